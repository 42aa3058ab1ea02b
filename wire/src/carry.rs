//! The loop: waits for either TAP or a signal, reads frames, hands them to their direction, writes what leaves.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::direction::{Direction, Frame};
use crate::tap::{Tap, TapError};

/// Room for the longest thing a TAP gives: a 64 KiB segment with its Ethernet, VLAN and offload headers.
const BUFFER_LEN: usize = 68 * 1024;
/// Frames read from one end before the other has its turn.
const TURN: usize = 64;

/// Both directions of the wire.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub(crate) a_to_b: Direction,
    pub(crate) b_to_a: Direction,
}

/// Carries until SIGTERM or SIGINT, or until a device goes away; `clock` tells the time since the wire's start.
pub(crate) fn until_signal(tap_a: &Tap, tap_b: &Tap, clock: impl Fn() -> Duration) -> (Carried, Result<(), TapError>) {
    let mut carried = Carried::default();
    let outcome = carry(tap_a, tap_b, &clock, &mut carried);
    (carried, outcome)
}

fn carry(tap_a: &Tap, tap_b: &Tap, clock: &impl Fn() -> Duration, carried: &mut Carried) -> Result<(), TapError> {
    let signals = end_signals()?;
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let mut waited = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(tap_a.as_fd(), PollFlags::POLLIN),
            PollFd::new(tap_b.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waited, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(TapError::host("poll", errno)),
        }
        let [end, a, b] = waited.map(|fd| fd.any().unwrap_or(true));
        if end {
            return Ok(());
        }
        if a {
            take_turn(tap_a, tap_b, &mut carried.a_to_b, clock, &mut buffer)?;
        }
        if b {
            take_turn(tap_b, tap_a, &mut carried.b_to_a, clock, &mut buffer)?;
        }
    }
}

fn take_turn(
    from: &Tap,
    to: &Tap,
    direction: &mut Direction,
    clock: &impl Fn() -> Duration,
    buffer: &mut [u8],
) -> Result<(), TapError> {
    for _ in 0..TURN {
        let Some(bytes) = from.read(buffer)? else {
            break;
        };
        if let Some(frame) = Frame::new(bytes) {
            direction.carry(clock(), frame, |leaving| to.write(leaving))?;
        }
    }
    Ok(())
}

/// A descriptor that can be read once SIGTERM or SIGINT has come; they no more end the process by themselves.
fn end_signals() -> Result<SignalFd, TapError> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().map_err(|errno| TapError::host("sigprocmask", errno))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| TapError::host("signalfd", errno))
}
