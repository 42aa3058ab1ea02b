//! A connection from its dial to its end: its bytes are carried, and while none move it rests.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::admission::Permit;
use crate::config::model::{Timeouts, Transport};
use crate::listening::keep_alive;
use crate::operation::CloseReason;
use crate::story::{SharedStory, Story};
use crate::upstream::condition::Active;
use crate::worker::Worker;

use super::delivery::all_taken;
use super::dial::subflows_of;
use super::direction::Direction;
use super::last_words::{last_words, Longest};
use super::relay::{relay, End, Patience, RelayEnd};
use super::resting::Rested;
use super::unfinished::Unfinished;

/// What a connection needs while bytes move.
pub(crate) struct Carried {
    pub(crate) story: SharedStory,
    pub(crate) client: Unfinished<TcpStream>,
    pub(crate) backend: Unfinished<TcpStream>,
    pub(crate) up: Direction,
    pub(crate) down: Direction,
    /// Of the bytes upwards so many are a PROXY header.
    pub(crate) header_length: u64,
    /// The kernel looks after the backend's end.
    pub(crate) is_watched: bool,
    pub(crate) permit: Permit,
    pub(crate) in_use: Active,
}

/// Carries bytes until the end, or until the connection rests.
pub(crate) async fn carry(worker: Rc<Worker>, mut carried: Box<Carried>, since: Option<Instant>) {
    let epoch = Rc::clone(&carried.story.borrow().epoch);
    let Timeouts { idle, half_closed, keepalive, user_timeout, .. } = epoch.config().timeouts;
    let mut patience = Patience { idle, half_closed, rest: worker.rest, since };
    if user_timeout.map_or(keepalive, |limit| limit.min(keepalive)) <= 2 * worker.rest {
        carried.watch();
    }
    let end = loop {
        let Carried { story, client, backend, up, down, header_length, .. } = &mut *carried;
        let (Some(client), Some(backend)) = (client.get(), backend.get()) else { return };
        let tell =
            |up: &Direction, down: &Direction| note(story, up.bytes().saturating_sub(*header_length), down.bytes());
        match relay(client, backend, up, down, &worker.scratch, patience, tell).await {
            RelayEnd::Quiet { since } => {
                carried.watch();
                carried.see_subflows();
                if carried.up.is_clear() && carried.down.is_clear() {
                    return carried.rest(&worker, since);
                }
                patience.since = Some(since);
            }
            end @ (RelayEnd::Closed { .. } | RelayEnd::Broken { .. } | RelayEnd::Idle | RelayEnd::HalfClosed) => {
                break end
            }
        }
    };
    carried.see_subflows();
    if let RelayEnd::Broken { end: broken, .. } = &end {
        carried.story.borrow_mut().close = reason(&end);
        Box::pin(carried.pass_last_words(&worker, *broken)).await;
    }
    if matches!(end, RelayEnd::Closed { .. }) {
        carried.see_delivered(half_closed).await;
    }
    carried.end(&worker, &end);
}

/// Takes up a connection that rested.
pub(crate) fn resume(worker: &Rc<Worker>, rested: Rested) {
    let Rested { story, client, backend, up, down, header_length, permit, in_use, since } = rested;
    let story = story.share();
    let (client, backend) = (client.into_form(TcpStream::from_std), backend.into_form(TcpStream::from_std));
    let (Some(client), Some(backend)) = (client, backend) else {
        story.borrow_mut().close = CloseReason::IoError(io::ErrorKind::OutOfMemory);
        return;
    };
    let is_watched = true;
    let carried = Carried { story, client, backend, up, down, header_length, is_watched, permit, in_use };
    spawn_local(carry(Rc::clone(worker), Box::new(carried), Some(since)));
}

/// Counts what has moved since the last time.
pub(crate) fn note(story: &RefCell<Story>, bytes_in: u64, bytes_out: u64) {
    let mut story = story.borrow_mut();
    let (more_in, more_out) = (bytes_in - story.bytes_in, bytes_out - story.bytes_out);
    (story.bytes_in, story.bytes_out) = (bytes_in, bytes_out);
    story.epoch.counters.carried(story.listener, Transport::Tcp, more_in, more_out);
}

impl Carried {
    /// Lets the kernel find out that the backend is gone. Not before a connection has been quiet: most are never, and it
    /// takes three calls.
    fn watch(&mut self) {
        if !self.is_watched {
            let epoch = Rc::clone(&self.story.borrow().epoch);
            if let Some(backend) = self.backend.get() {
                // A kernel that refuses it is no reason to cut a connection.
                let _ = keep_alive(&SockRef::from(&*backend), &epoch.config().timeouts);
            }
            self.is_watched = true;
        }
    }

    /// Of the ways to the backend the most that were seen are told.
    fn see_subflows(&mut self) {
        let mut story = self.story.borrow_mut();
        let seen = story.target.as_mut().and_then(|taken| taken.subflows.as_mut());
        if let (Some(seen @ 1..), Some(backend)) = (seen, self.backend.get()) {
            *seen = (*seen).max(subflows_of(backend));
        }
    }

    /// Of plain TCP the kernel sees to it.
    async fn see_delivered(&mut self, patience: Duration) {
        let (by_client, by_backend) = {
            let story = self.story.borrow();
            let listener = story.epoch.listener(story.listener);
            let subflows = story.target.as_ref().and_then(|taken| taken.subflows);
            (listener.is_some_and(|listener| listener.mptcp), subflows.is_some_and(|subflows| subflows > 0))
        };
        if let Some(client) = self.client.get().filter(|client| by_client && subflows_of(client) > 0) {
            Box::pin(all_taken(client, patience)).await;
        }
        if let Some(backend) = self.backend.get().filter(|_| by_backend) {
            Box::pin(all_taken(backend, patience)).await;
        }
    }

    fn rest(self: Box<Self>, worker: &Rc<Worker>, since: Instant) {
        let Self { story, client, backend, up, down, header_length, permit, in_use, .. } = *self;
        // Whoever lists stories holds one only for a moment in which nothing else runs.
        let Some(story) = Rc::into_inner(story).map(RefCell::into_inner) else { return };
        let (client, backend) = (client.into_form(TcpStream::into_std), backend.into_form(TcpStream::into_std));
        let (Some(client), Some(backend)) = (client, backend) else { return };
        let rested = Rested { story, client, backend, up, down, header_length, permit, in_use, since };
        if let Err(rested) = worker.resting.add(rested) {
            resume(worker, *rested);
        }
    }

    async fn pass_last_words(&mut self, worker: &Worker, broken: End) {
        let (epoch, listener) = {
            let story = self.story.borrow();
            (Rc::clone(&story.epoch), story.listener)
        };
        let waits = (epoch.config().timeouts.half_closed, Longest::USUAL);
        let Self { story, client, backend, up, down, header_length, permit, .. } = self;
        let bounds = epoch.generation.bounds(listener).map(|(_, bounds)| bounds);
        let is_crowded = || bounds.is_some_and(|bounds| permit.is_last(bounds));
        let (Some(client), Some(backend)) = (client.get(), backend.get()) else { return };
        match broken {
            End::Client => {
                let down = down.bytes();
                let tell = |up: &Direction| note(story, up.bytes().saturating_sub(*header_length), down);
                last_words(client, backend, up, &worker.scratch, waits, is_crowded, tell).await;
            }
            End::Backend => {
                let up = up.bytes().saturating_sub(*header_length);
                let tell = |down: &Direction| note(story, up, down.bytes());
                last_words(backend, client, down, &worker.scratch, waits, is_crowded, tell).await;
            }
        }
    }

    fn end(self: Box<Self>, worker: &Worker, end: &RelayEnd) {
        let Self { story, client, backend, mut up, mut down, permit, in_use, .. } = *self;
        story.borrow_mut().close = reason(end);
        if matches!(end, RelayEnd::Closed { .. }) {
            client.finish();
            backend.finish();
        }
        up.abandon(&worker.scratch);
        down.abandon(&worker.scratch);
        // The story last: whoever hears that it has ended finds its place free.
        drop((in_use, permit, story));
    }
}

/// Why a connection ended, by how its relay did.
pub(crate) fn reason(end: &RelayEnd) -> CloseReason {
    match end {
        RelayEnd::Closed { first: End::Client } => CloseReason::ClientClosed,
        RelayEnd::Closed { first: End::Backend } => CloseReason::BackendClosed,
        RelayEnd::Idle => CloseReason::IdleTimeout,
        RelayEnd::HalfClosed => CloseReason::HalfClosedTimeout,
        RelayEnd::Quiet { .. } => CloseReason::Drained,
        RelayEnd::Broken { end, error } => match (error.kind(), end) {
            _ if is_given_up(error) => CloseReason::PeerVanished,
            // The second is what writing says afterwards, the third what ending one's side does (shutdown(2)).
            (io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected, broken) => {
                match broken {
                    End::Client => CloseReason::ClientReset,
                    End::Backend => CloseReason::BackendReset,
                }
            }
            (other, _) => CloseReason::IoError(other),
        },
    }
}

/// The kernel has given up an end that acknowledges nothing. What ICMP said meanwhile then stands in place of a timeout
/// (tcp(7), "Error handling"); what it says makes no other error of an open connection (RFC 1122, 4.2.3.9).
fn is_given_up(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ETIMEDOUT
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EACCES
                | libc::ECONNREFUSED
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::EOPNOTSUPP
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_reset_and_no_silence_explains_keeps_its_kind() {
        let of = |code| reason(&RelayEnd::Broken { end: End::Backend, error: io::Error::from_raw_os_error(code) });
        assert_eq!(of(libc::ENOBUFS), CloseReason::IoError(io::Error::from_raw_os_error(libc::ENOBUFS).kind()));
        assert_eq!(of(libc::ENOMEM), CloseReason::IoError(io::ErrorKind::OutOfMemory));
        assert_eq!(
            (of(libc::ETIMEDOUT), of(libc::EHOSTUNREACH)),
            (CloseReason::PeerVanished, CloseReason::PeerVanished)
        );
    }

    #[test]
    fn a_reset_is_one_whichever_call_finds_it() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::NotConnected] {
            let broken = |end| reason(&RelayEnd::Broken { end, error: kind.into() });
            assert_eq!(
                (broken(End::Client), broken(End::Backend)),
                (CloseReason::ClientReset, CloseReason::BackendReset)
            );
        }
    }
}
