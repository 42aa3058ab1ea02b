//! One connection's life: header, first bytes, decision, dial, relay, end.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::admission::Permit;
use crate::config::model::{Arrival, BackendId, HeaderPolicy, ListenerId, Protocol, SendProxy, Transport};
use crate::generation::{header_policy, Epoch};
use crate::operation::outcomes::{HeaderIn, HeaderOut};
use crate::operation::unique_id::UniqueId;
use crate::operation::CloseReason;
use crate::route::{decide, Arrived, Captures, Decision, TcpPreface};
use crate::story::Story;
use crate::upstream::condition::Active;
use crate::wire::{proxy_v1, proxy_v2};
use crate::worker::Worker;

use super::allowance::Allowance;
use super::dial::{dial, Caller};
use super::direction::Direction;
use super::header;
use super::listener::over_limit;
use super::preface::{decide_by_first_bytes, Effort};
use super::relay::{relay, End, Patience, RelayEnd};

/// What accept knows of a connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) original_dst: SocketAddr,
    pub(crate) permit: Permit,
}

/// Serves a connection to its end. All that only the beginning needs is on the heap while it lasts, and gone while bytes are
/// relayed: an idle connection holds two sockets, their directions and a timer.
pub(crate) async fn serve(worker: Rc<Worker>, epoch: Rc<Epoch>, listener: ListenerId, accepted: Accepted) {
    let Accepted { stream, peer, original_dst, mut permit } = accepted;
    let mut client = Unfinished::new(stream);
    let story = Story::begin(&worker, &epoch, listener, Transport::Tcp, peer, original_dst).share();
    match Box::pin(prepare(&worker, &epoch, &story, &client.stream, &mut permit)).await {
        Ok(Prepared { mut backend, first_bytes, header_length, in_use }) => {
            let [from_client, to_client] = allowances(&epoch, listener);
            let scratch = &worker.scratch;
            let mut up = Direction::beginning_with(&first_bytes, from_client, scratch);
            let mut down = Direction::beginning_with(&[], to_client, scratch);
            drop(first_bytes);
            let timeouts = &epoch.config().timeouts;
            let patience = Patience { idle: timeouts.idle, half_closed: timeouts.half_closed };
            let tell = |up: &Direction, down: &Direction| {
                let mut story = story.borrow_mut();
                let (bytes_in, bytes_out) = (up.bytes().saturating_sub(header_length), down.bytes());
                let (more_in, more_out) = (bytes_in - story.bytes_in, bytes_out - story.bytes_out);
                (story.bytes_in, story.bytes_out) = (bytes_in, bytes_out);
                epoch.counters.carried(listener, Transport::Tcp, more_in, more_out);
            };
            let end = relay(&mut client.stream, &mut backend.stream, &mut up, &mut down, scratch, patience, tell).await;
            story.borrow_mut().close = reason(&end);
            if matches!(end, RelayEnd::Closed { .. }) {
                client.finish();
                backend.finish();
            }
            up.abandon(scratch);
            down.abandon(scratch);
            drop(in_use);
        }
        Err(reason) => story.borrow_mut().close = reason,
    }
    drop(permit);
}

/// A stream whose end is a reset unless it is finished: what was cut short must not look complete, also when the proxy's own
/// end cuts it short.
#[derive(Debug)]
struct Unfinished {
    stream: TcpStream,
    is_finished: bool,
}

impl Unfinished {
    fn new(stream: TcpStream) -> Self {
        Self { stream, is_finished: false }
    }

    /// Both FINs are with the kernel.
    fn finish(&mut self) {
        self.is_finished = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            reset(&self.stream);
        }
    }
}

/// What is ready to be relayed.
struct Prepared {
    backend: Unfinished,
    /// What goes to the backend before all that is read from now on: a PROXY header, and what was read to decide.
    first_bytes: Vec<u8>,
    /// How much of that is the header.
    header_length: u64,
    in_use: Active,
}

async fn prepare(
    worker: &Rc<Worker>,
    epoch: &Rc<Epoch>,
    story: &RefCell<Story>,
    client: &TcpStream,
    permit: &mut Permit,
) -> Result<Prepared, CloseReason> {
    let config = epoch.config();
    let (id, peer, mut begun) = {
        let story = story.borrow();
        (story.listener, story.peer, story.accepted)
    };
    let listener = epoch.listener(id).ok_or(CloseReason::NoRule)?;
    let mut effort = Effort::default();
    let mut leftover = Vec::new();
    let (policy, _) = header_policy(listener, peer.ip());
    if policy != HeaderPolicy::Never {
        let (deadline, silence) = (begun + config.timeouts.header, begun + config.timeouts.silence);
        let introduced = header::read(client, policy, deadline, silence, &worker.scratch).await;
        let introduced = introduced.map_err(|(reason, outcome)| {
            note_header(epoch, &mut story.borrow_mut(), outcome);
            reason
        })?;
        let mut story = story.borrow_mut();
        note_header(epoch, &mut story, introduced.outcome);
        if introduced.outcome != HeaderIn::Absent {
            begun = Instant::now();
        }
        if let Some((named, destination)) = introduced.addresses {
            (story.client, story.original_dst) = (named, destination);
        }
        if let Some(given) = introduced.unique_id {
            story.unique_id = UniqueId::Given(given);
        }
        leftover = introduced.leftover;
        effort.has_ended = introduced.has_ended;
        if worker.is_denied(story.client.ip()) {
            return Err(CloseReason::Denied);
        }
        let (_, bounds) = epoch.generation.bounds(id).ok_or(CloseReason::NoRule)?;
        permit.name(story.client.ip(), bounds).map_err(over_limit)?;
    }
    let mut preface = TcpPreface::new(leftover);
    let (backend, captures) = decided(worker, epoch, story, client, &mut preface, &mut effort, begun).await?;
    let caller = {
        let story = story.borrow();
        let (client, original_dst) = (story.client, story.original_dst);
        Caller { client, original_dst, arrival: listener.arrival, captures: &captures }
    };
    let dialled = dial(epoch, &worker.locals, backend, caller).await?;
    let mut story = story.borrow_mut();
    story.backend = Some(dialled.backend);
    story.target = Some((dialled.target, dialled.source));
    story.connect = Some(dialled.took);
    let mut first_bytes = header_for(epoch, &mut story, dialled.backend);
    epoch.counters.header_out(story.header_out);
    let header_length = first_bytes.len() as u64;
    first_bytes.append(&mut preface.into_bytes());
    Ok(Prepared { backend: Unfinished::new(dialled.stream), first_bytes, header_length, in_use: dialled.in_use })
}

fn note_header(epoch: &Epoch, story: &mut Story, outcome: HeaderIn) {
    story.header_in = outcome;
    epoch.counters.header_in(outcome);
}

/// The rule that holds, and the backend that it leads to.
async fn decided(
    worker: &Worker,
    epoch: &Epoch,
    story: &RefCell<Story>,
    client: &TcpStream,
    preface: &mut TcpPreface,
    effort: &mut Effort,
    begun: Instant,
) -> Result<(BackendId, Captures), CloseReason> {
    let config = epoch.config();
    let arrived = {
        let story = story.borrow();
        let (listener, original_dst, client) = (story.listener, story.original_dst, story.client);
        Arrived { listener, transport: Transport::Tcp, original_dst, client }
    };
    let decision = match decide(config, &arrived, preface) {
        Decision::NeedMore => {
            decide_by_first_bytes(client, config, &arrived, preface, effort, &worker.scratch, begun).await
        }
        at_once @ (Decision::Forward { .. } | Decision::Refuse { .. } | Decision::NoRule) => Ok(at_once),
    };
    let took = begun.elapsed();
    let mut story = story.borrow_mut();
    story.preface = Some(took);
    story.spoken = preface.found().map(|(protocol, found)| (protocol, found.clone()));
    let (protocol, ech) = story.spoken.as_ref().map_or((None, false), |(protocol, found)| (Some(*protocol), found.ech));
    epoch.counters.preface(protocol, preface.bytes().len(), effort.segments, took, ech);
    match decision? {
        Decision::Forward { rule, backend, captures } => {
            epoch.counters.rule_chosen(rule);
            story.rule = Some(rule);
            Ok((backend, captures))
        }
        Decision::Refuse { rule } => {
            epoch.counters.rule_chosen(rule);
            story.rule = Some(rule);
            Err(CloseReason::RefusedByRule)
        }
        Decision::NoRule | Decision::NeedMore => Err(CloseReason::NoRule),
    }
}

/// The PROXY header that the backend asks for; empty: none.
fn header_for(epoch: &Epoch, story: &mut Story, backend: BackendId) -> Vec<u8> {
    let send = epoch.config().backends.get(backend.0).and_then(|backend| backend.send_proxy);
    match send {
        None => Vec::new(),
        Some(SendProxy::V1) => {
            story.header_out = HeaderOut::V1;
            proxy_v1::build(story.client, story.original_dst)
        }
        Some(SendProxy::V2 { hello, unique_id, crc32c }) => {
            story.header_out = HeaderOut::V2;
            let found = story.spoken.as_ref().filter(|(protocol, _)| hello && *protocol == Protocol::Tls);
            let found = found.map(|(_, found)| found);
            let fields = proxy_v2::Fields {
                authority: found.and_then(|found| found.name.as_deref()),
                alpn: found.and_then(|found| found.alpn.first()).map(Vec::as_slice),
                unique_id: unique_id.then(|| story.unique_id.bytes()),
                crc32c,
                ..proxy_v2::Fields::bare(proxy_v2::Announced::Stream, story.client, story.original_dst)
            };
            fields.build()
        }
    }
}

/// What each direction of a flow at this listener may carry: from the client, to the client.
pub(crate) fn allowances(epoch: &Epoch, listener: ListenerId) -> [Option<Box<Allowance>>; 2] {
    let own = epoch.listener(listener).and_then(|listener| listener.rate_per_flow).map(std::num::NonZeroU32::get);
    match epoch.generation.buckets(listener) {
        Some(shared) => shared.map(|bucket| Allowance::of(own, Some(bucket))),
        None => [Allowance::of(own, None), Allowance::of(own, None)],
    }
}

fn reason(end: &RelayEnd) -> CloseReason {
    match end {
        RelayEnd::Closed { first: End::Client } => CloseReason::ClientClosed,
        RelayEnd::Closed { first: End::Backend } => CloseReason::BackendClosed,
        RelayEnd::Idle => CloseReason::IdleTimeout,
        RelayEnd::HalfClosed => CloseReason::HalfClosedTimeout,
        RelayEnd::Broken { end, error } => match (error.kind(), end) {
            (io::ErrorKind::TimedOut, _) => CloseReason::PeerVanished,
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

/// Makes the end of a stream a reset: what was cut short must not look complete.
pub(crate) fn reset(stream: &TcpStream) {
    // A socket that refuses this is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Whether the socket's own address must be asked for: a listener at a fixed address knows it.
pub(crate) fn knows_destination(address: SocketAddr, arrival: Arrival) -> bool {
    !address.ip().is_unspecified() && arrival == Arrival::Direct
}

#[cfg(test)]
mod tests {
    use super::*;

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
