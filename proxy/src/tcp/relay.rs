//! Carrying bytes both ways until both directions have ended, one end broke, or nothing moved for too long.

use std::future::{poll_fn, Future};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep_until, Instant};

use super::direction::{Broken, Direction, Progress};
use super::scratch::Scratch;

/// How often a sender of which nothing is read is looked at: a reset behind its bytes, or behind its FIN, wakes nobody.
const UNREAD_LOOK: Duration = Duration::from_secs(1);

/// How long nothing may move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While both directions are open.
    pub(crate) idle: Duration,
    /// Once one of them has ended.
    pub(crate) half_closed: Duration,
    /// Until that is told ([`RelayEnd::Quiet`]).
    pub(crate) rest: Duration,
    /// When a byte moved last, if that was before this relay.
    pub(crate) since: Option<Instant>,
}

/// Which end of the connection is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Backend,
}

/// How a relay came to its end.
#[derive(Debug)]
pub(crate) enum RelayEnd {
    /// Both directions ended in order; the end that was first to say so.
    Closed { first: End },
    /// An end was reset or vanished. What it said before ([`super::last_words`]) is still the other one's, then a reset.
    Broken { end: End, error: io::Error },
    /// Nothing moved while both directions were open.
    Idle,
    /// Nothing moved in the one direction that was still open.
    HalfClosed,
    /// Nothing has moved for a while, since then: no end, the relay may go on.
    Quiet { since: Instant },
}

/// Relays until the end. Bytes carried stand in `up` (client to backend) and `down`; `tell` is called whenever they have
/// changed, and at the end.
///
/// After [`RelayEnd::Closed`] both streams are to be dropped: every byte and one FIN are with the kernel, and the other FIN
/// is that close. After any other end they should be reset, which is the caller's to do.
pub(crate) async fn relay(
    client: &mut TcpStream,
    backend: &mut TcpStream,
    up: &mut Direction,
    down: &mut Direction,
    scratch: &Scratch,
    patience: Patience,
    mut tell: impl FnMut(&Direction, &Direction),
) -> RelayEnd {
    let mut first = first_ended(up, down);
    let begun = Instant::now();
    let mut last_move = patience.since.unwrap_or(begun);
    let mut timer = pin!(sleep_until((begun + patience.rest).min(last_move + patience.idle)));
    if patience.since.is_some() {
        // What has woken it may be of a sender that is not read.
        if let Some(broken) = broken_unread([(&*up, &*client, End::Client), (&*down, &*backend, End::Backend)]) {
            return broken;
        }
    }
    poll_fn(|context| {
        let (mut moved, was_open) = (false, first.is_none());
        let is_last = down.progress() == Progress::Ended;
        let upward = up.poll_carry(context, (client, backend), scratch, &mut moved, is_last);
        if let Poll::Ready(Err(broken)) = upward {
            tell(up, down);
            return Poll::Ready(broken_relay(broken, End::Client, End::Backend));
        }
        first = first.or_else(|| first_ended(up, down));
        let is_last = up.progress() == Progress::Ended;
        let downward = down.poll_carry(context, (backend, client), scratch, &mut moved, is_last);
        if let Poll::Ready(Err(broken)) = downward {
            tell(up, down);
            return Poll::Ready(broken_relay(broken, End::Backend, End::Client));
        }
        first = first.or_else(|| first_ended(up, down));
        if moved {
            tell(up, down);
        }
        if upward.is_ready() && downward.is_ready() {
            return Poll::Ready(RelayEnd::Closed { first: first.unwrap_or(End::Client) });
        }
        // An end is a move too: from there on the other direction has its own time.
        if moved || was_open && first.is_some() {
            last_move = Instant::now();
        }
        let (allowed, end) = match first {
            None => (patience.idle, RelayEnd::Idle),
            Some(_) => (patience.half_closed, RelayEnd::HalfClosed),
        };
        // The timer is left alone while bytes move: it looks again at the time when they might have stopped long ago.
        if first.is_some() && timer.deadline() > last_move + allowed {
            timer.as_mut().reset(last_move + allowed);
        }
        let is_unread = first.is_some() || up.is_stalled() || down.is_stalled();
        if is_unread && timer.deadline() > last_move + UNREAD_LOOK {
            let look = timer.deadline().min(Instant::now() + UNREAD_LOOK);
            timer.as_mut().reset(look);
        }
        while timer.as_mut().poll(context).is_ready() {
            if let Some(broken) = broken_unread([(&*up, &*client, End::Client), (&*down, &*backend, End::Backend)]) {
                return Poll::Ready(broken);
            }
            let (now, deadline, quiet) = (Instant::now(), last_move + allowed, last_move.max(begun) + patience.rest);
            if now >= deadline {
                return Poll::Ready(end);
            }
            if now >= quiet {
                return Poll::Ready(RelayEnd::Quiet { since: last_move });
            }
            let next = deadline.min(quiet);
            timer.as_mut().reset(if is_unread { next.min(now + UNREAD_LOOK) } else { next });
        }
        Poll::Pending
    })
    .await
}

fn first_ended(up: &Direction, down: &Direction) -> Option<End> {
    match (up.progress(), down.progress()) {
        (Progress::Open, Progress::Open) => None,
        (Progress::Open, Progress::Ending | Progress::Ended) => Some(End::Backend),
        (Progress::Ending | Progress::Ended, _) => Some(End::Client),
    }
}

/// A sender that is gone while nothing is read of it: what it sent waits for the receiver, or it has ended its side.
fn broken_unread(ways: [(&Direction, &TcpStream, End); 2]) -> Option<RelayEnd> {
    let is_unread = |way: &Direction| way.is_stalled() || way.progress() != Progress::Open;
    let unread = ways.into_iter().filter(|(direction, ..)| is_unread(direction));
    let mut broken = unread.filter_map(|(_, sender, end)| Some((end, gone(sender)?)));
    broken.next().map(|(end, error)| RelayEnd::Broken { end, error })
}

/// Why an end is gone, if it is. The kernel knows no peer then (getpeername(2)), and has an error to tell. Neither proves it
/// alone: no peer is known either once both sides have ended in order, be it that bytes of it are unread; and what ICMP said of
/// a way that may come back is an error too (`SO_ERROR`, socket(7)).
pub(super) fn gone(end: &TcpStream) -> Option<io::Error> {
    end.peer_addr().err()?;
    end.take_error().ok().flatten()
}

fn broken_relay(broken: Broken, sender: End, receiver: End) -> RelayEnd {
    match broken {
        // So Multipath TCP tells of a connection whose ways have all been gone for `net.mptcp.close_timeout`, without an error
        // before (`mptcp_close_tout_expired` in the kernel's net/mptcp/protocol.c); plain TCP says it to nobody who reads.
        Broken::Sender(error) if error.kind() == io::ErrorKind::NotConnected => {
            RelayEnd::Broken { end: sender, error: io::Error::from_raw_os_error(libc::ETIMEDOUT) }
        }
        Broken::Sender(error) => RelayEnd::Broken { end: sender, error },
        Broken::Receiver(error) => RelayEnd::Broken { end: receiver, error },
    }
}
