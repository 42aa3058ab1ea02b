//! What an end said before it broke still goes to the other one: a reset in its place would have the kernel drop it.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout, Instant};

use crate::kernel::unsent;

use super::direction::Direction;
use super::relay::gone;
use super::scratch::{Scratch, KEPT_BUDGET};

/// How soon, and then how often, it is looked whether all has arrived: of that the kernel tells nobody.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LATER_LOOK: Duration = Duration::from_millis(250);

/// So long after the break it is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Longest {
    /// In any case: who breaks off holds nothing any more, and must not make this proxy hold more and more connections to a
    /// backend that is slow.
    pub(crate) in_all: Duration,
    /// Where others need the place or the memory.
    pub(crate) when_crowded: Duration,
}

impl Longest {
    /// Some megabytes wait at most, and mostly those take seconds; where it is crowded, a few ways there and back.
    pub(crate) const USUAL: Self = Self { in_all: Duration::from_secs(30), when_crowded: Duration::from_secs(1) };
}

/// Carries what the broken sender has left in `way` and in the kernel, and waits until the receiver has acknowledged it, has
/// taken nothing for as long as `patience`, is gone too, or it takes longest. `is_crowded`: there is no place for others.
/// `tell` is called when bytes were carried.
pub(crate) async fn last_words(
    sender: &mut TcpStream,
    receiver: &mut TcpStream,
    way: &mut Direction,
    scratch: &Scratch,
    (patience, longest): (Duration, Longest),
    is_crowded: impl Fn() -> bool,
    mut tell: impl FnMut(&Direction),
) {
    let (mut is_carried, mut waiting) = (false, usize::MAX);
    let (begun, mut pause) = (Instant::now(), FIRST_LOOK);
    let mut last_move = begun;
    loop {
        let mut moved = false;
        if is_carried {
            sleep(pause).await;
        } else {
            let carrying = poll_fn(|context| way.poll_last_words(context, (sender, receiver), scratch, &mut moved));
            match timeout(pause, carrying).await {
                Ok(true) => is_carried = true,
                Ok(false) => return,
                Err(_) => {}
            }
        }
        if moved {
            tell(way);
        }
        let is_gone = gone(receiver).is_some();
        let Ok(left) = unsent(receiver.as_fd()) else { return };
        if is_gone || is_carried && left == 0 {
            return;
        }
        if moved || left < waiting {
            last_move = Instant::now();
        }
        let is_crowded = is_crowded() || way.is_stalled() && scratch.kept() >= KEPT_BUDGET;
        let allowed = if is_crowded { longest.when_crowded } else { longest.in_all };
        if last_move.elapsed() >= patience || begun.elapsed() >= allowed {
            return;
        }
        waiting = left;
        pause = (pause * 2).min(LATER_LOOK).min(patience);
    }
}

#[cfg(test)]
#[path = "last_words_tests.rs"]
mod tests;
