//! One connection's beginning: header, first bytes, decision, dial.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::Instant;

use crate::admission::Permit;
use crate::config::model::{Arrival, BackendId, Config, HeaderPolicy, ListenerId, Protocol, SendProxy, Transport};
use crate::generation::Epoch;
use crate::operation::outcomes::{HeaderIn, HeaderOut};
use crate::operation::unique_id::UniqueId;
use crate::operation::{CloseReason, Limit};
use crate::route::{decide, Arrived, Captures, Decision, TcpPreface};
use crate::story::{Story, Taken};
use crate::upstream::condition::Active;
use crate::wire::tlv::Tlvs;
use crate::wire::{proxy_v1, proxy_v2};
use crate::worker::Worker;

use super::allowance::Allowance;
use super::carried::{carry, note, reason, Carried};
use super::dial::{dial, Caller};
use super::direction::Direction;
use super::header::{self, Deadlines};
use super::listener::over_limit;
use super::preface::{decide_by_first_bytes, Effort, Hold};
use super::relay::{End, RelayEnd};
use super::scratch::Scratch;
use super::unfinished::Unfinished;

/// Of what is here when a client is accepted at most so much is read at once.
const TAKEN_EARLY: usize = 4 * 1024;

/// What accept knows of a connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) original_dst: SocketAddr,
    pub(crate) permit: Permit,
}

/// Serves a connection to its end. All that only the beginning needs is on the heap while it lasts, and gone while bytes are
/// carried.
pub(crate) async fn serve(worker: Rc<Worker>, beginning: Box<Beginning>) {
    if let Some(carried) = Box::pin(begin(Rc::clone(&worker), beginning)).await {
        carry(worker, carried, None).await;
    }
}

/// What begins a connection.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) epoch: Rc<Epoch>,
    pub(crate) listener: ListenerId,
    pub(crate) accepted: Accepted,
}

/// Header, first bytes, decision, dial; none, where that was the end.
async fn begin(worker: Rc<Worker>, beginning: Box<Beginning>) -> Option<Box<Carried>> {
    let Beginning { epoch, listener, accepted: Accepted { stream, peer, original_dst, permit } } = *beginning;
    let mut client = Unfinished::new(stream);
    let story = Story::begin(&worker, &epoch, listener, Transport::Tcp, peer, original_dst).share();
    let prepared = prepare(&worker, &epoch, &story, client.get()?, permit).await;
    match prepared {
        Ok(Prepared { mut backend, first_bytes, held, header_length, permit, in_use }) => {
            let written = say_at_once(backend.get()?, &first_bytes, awaits_answer(&story.borrow()));
            let [from_client, to_client] = allowances(&epoch, listener);
            let up = Direction::beginning_with(first_bytes, written, from_client, &worker.scratch);
            drop(held); // what is left of it counts as the direction's now
            let down = Direction::beginning_with(Vec::new(), 0, to_client, &worker.scratch);
            let is_watched = false;
            note(&story, up.bytes().saturating_sub(header_length), 0);
            Some(Box::new(Carried { story, client, backend, up, down, header_length, is_watched, permit, in_use }))
        }
        Err(reason) => {
            // Its permit is gone before its end is told: whoever hears of that finds its place free.
            story.borrow_mut().close = reason;
            None
        }
    }
}

/// Sends the first bytes with the end of the backend's handshake; how many its kernel took. An error is found by the relay.
fn say_at_once(backend: &TcpStream, bytes: &[u8], awaits_answer: bool) -> usize {
    if bytes.is_empty() {
        return 0;
    }
    let socket = SockRef::from(backend);
    let written = (&*socket).write(bytes).unwrap_or(0);
    if !awaits_answer {
        // From here on as usual: a backend that writes in small pieces may wait for each to be acknowledged.
        acknowledge_at_once(backend);
    }
    written
}

/// Whether the client has said all that it can before it is answered, and is answered in one piece.
fn awaits_answer(story: &Story) -> bool {
    story.spoken.as_deref().is_some_and(|(protocol, _)| *protocol == Protocol::Tls)
}

/// What has come is acknowledged now, and what comes is without delay (`TCP_QUICKACK`, tcp(7)).
fn acknowledge_at_once(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_tcp_quickack(true);
}

/// What is ready to be relayed.
struct Prepared<'a> {
    backend: Unfinished<TcpStream>,
    /// What goes to the backend before all that is read from now on: a PROXY header, and what was read to decide.
    first_bytes: Vec<u8>,
    held: Hold<'a>,
    /// How much of that is the header.
    header_length: u64,
    permit: Permit,
    in_use: Active,
}

async fn prepare<'a>(
    worker: &'a Rc<Worker>,
    epoch: &Rc<Epoch>,
    story: &RefCell<Story>,
    client: &mut TcpStream,
    mut permit: Permit,
) -> Result<Prepared<'a>, CloseReason> {
    let config = epoch.config();
    let (id, peer, accepted) = {
        let story = story.borrow();
        (story.listener, story.peer, story.accepted)
    };
    let (mut begun, most) = (accepted, config.limits.undecided_per_source);
    let listener = epoch.listener(id).ok_or(CloseReason::NoRule)?;
    let mut leftover = what_is_here(client, config.limits.preface_bytes.get(), &worker.scratch);
    let held = Hold::nothing(&worker.scratch);
    let (mut received, mut held_of_header) = (Tlvs::default(), Hold::nothing(&worker.scratch));
    let mut effort = Effort { segments: usize::from(!leftover.is_empty()), has_ended: false, held };
    let rule = epoch.generation.header_rule(listener, peer.ip()).ok_or(CloseReason::HeaderMissing)?;
    if rule.policy != HeaderPolicy::Never {
        let deadlines = Deadlines { header: begun + config.timeouts.header, silence: begun + config.timeouts.silence };
        let reading = header::read(client, leftover, (rule, peer.ip()), deadlines, &worker.scratch);
        let introduced;
        (permit, introduced) = worker.undecided.wait(permit, accepted, most, reading).await?;
        let introduced = introduced.map_err(|(reason, outcome)| {
            note_header(epoch, &mut story.borrow_mut(), outcome);
            reason
        })?;
        let mut story = story.borrow_mut();
        note_header(epoch, &mut story, introduced.outcome);
        if introduced.outcome != HeaderIn::Absent {
            begun = Instant::now();
        }
        // A check by version 1 names its own two ends, as there is no LOCAL (PROXY protocol, 2.1); by version 2 a client does,
        // behind a peer that speaks from the client's own address.
        let names_itself = introduced.addresses == Some((story.peer, story.original_dst));
        story.is_peers_own = introduced.is_peers_own || names_itself && introduced.outcome == HeaderIn::V1;
        if let Some((named, destination)) = introduced.addresses {
            (story.client, story.original_dst) = (named, destination);
        }
        if let Some(given) = introduced.unique_id {
            let comes_back = worker.admission.circle.comes_back(&given, &listener.name, story.peer.ip());
            story.unique_id = UniqueId::Given(given);
            if comes_back {
                return Err(CloseReason::SelfLoop);
            }
        }
        if passes_on(config) {
            if !held_of_header.grow_to(introduced.tlvs.as_bytes().len()) {
                return Err(CloseReason::OverLimit(Limit::PrefaceMemory));
            }
            received = introduced.tlvs;
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
    let deciding = decided(epoch, story, client, &mut preface, &mut effort, begun);
    let (permit, decided) = worker.undecided.wait(permit, accepted, most, deciding).await?;
    let (backend, captures) = decided?;
    // Of one that is led on they only count: whoever is undecided has to go first.
    effort.held.grow_to(preface.bytes().len());
    let caller = {
        let story = story.borrow();
        let (client, original_dst) = (story.client, story.original_dst);
        let sends_header = config.backends.get(backend.0).is_some_and(|backend| backend.send_proxy.is_some());
        let speaks_at_once = sends_header || !preface.bytes().is_empty();
        Caller { client, original_dst, arrival: listener.arrival, captures: &captures, speaks_at_once }
    };
    let dialled = select! {
        biased;
        dialled = dial(epoch, &worker.locals, backend, caller) => dialled?,
        reason = broken(client) => return Err(reason),
    };
    let mut story = story.borrow_mut();
    story.backend = Some(dialled.backend);
    story.target = Some(Taken { at: dialled.target, source: dialled.source, subflows: dialled.subflows });
    story.connect = Some(dialled.took);
    let mut first_bytes = header_for(epoch, &mut story, dialled.backend, &received);
    epoch.counters.header_out(story.header_out);
    let header_length = first_bytes.len() as u64;
    first_bytes.append(&mut preface.into_bytes());
    Ok(Prepared {
        backend: Unfinished::new(dialled.stream),
        first_bytes,
        held: effort.held,
        header_length,
        permit,
        in_use: dialled.in_use,
    })
}

/// Waits until the client's connection breaks. That it says no more is no reason to go: it may wait for the answer.
async fn broken(client: &TcpStream) -> CloseReason {
    loop {
        let error = match client.ready(Interest::ERROR).await {
            Ok(_) => client.take_error(),
            Err(error) => Ok(Some(error)),
        };
        if let Ok(Some(error)) | Err(error) = error {
            return reason(&RelayEnd::Broken { end: End::Client, error });
        }
        // It was about something else: the next one is waited for.
        let _ = client.try_io(Interest::ERROR, || Err::<(), _>(ErrorKind::WouldBlock.into()));
    }
}

/// Most clients speak first, and their first bytes are often here when they are accepted. Asked for at once, they cost no
/// wait, and go out together with the end of the backend's handshake.
fn what_is_here(client: &TcpStream, most: usize, scratch: &Scratch) -> Vec<u8> {
    let mut buffer = scratch.borrow();
    let room = buffer.get_mut(..most.min(TAKEN_EARLY)).unwrap_or_default();
    // Not by the runtime, which has not yet heard of them from the kernel. An end or an error is found by the next read.
    let count = (&*SockRef::from(client)).read(room).unwrap_or(0);
    room.get(..count).unwrap_or_default().to_vec()
}

/// Whether any backend gets what the headers of peers say.
fn passes_on(config: &Config) -> bool {
    config.backends.iter().any(|backend| matches!(backend.send_proxy, Some(SendProxy::V2 { received: true, .. })))
}

fn note_header(epoch: &Epoch, story: &mut Story, outcome: HeaderIn) {
    story.header_in = outcome;
    epoch.counters.header_in(outcome);
}

/// The rule that holds, and the backend that it leads to.
async fn decided(
    epoch: &Epoch,
    story: &RefCell<Story>,
    client: &mut TcpStream,
    preface: &mut TcpPreface,
    effort: &mut Effort<'_>,
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
            acknowledge_at_once(client);
            let decision = decide_by_first_bytes(client, config, &arrived, preface, effort, begun).await;
            // Who spoke for nobody and has left without a word is nobody whom a rule for the rest is to lead anywhere.
            let is_check = effort.has_ended && preface.bytes().is_empty() && story.borrow().is_peers_own;
            if is_check {
                Err(CloseReason::ClientLeftEarly)
            } else {
                decision
            }
        }
        at_once @ (Decision::Forward { .. } | Decision::Refuse { .. } | Decision::NoRule) => Ok(at_once),
    };
    let took = begun.elapsed();
    let mut story = story.borrow_mut();
    story.preface = Some(took);
    story.is_peers_own &= preface.bytes().is_empty();
    story.spoken = preface.found().map(|(protocol, found)| Box::new((protocol, found.clone())));
    if epoch.generation.hears(arrived.listener) && !awaits_answer(&story) {
        acknowledge_at_once(client);
    }
    epoch.counters.preface(story.spoken.as_deref(), preface.bytes().len(), effort.segments, took);
    match decision? {
        Decision::Forward { rule, backend, captures } => {
            epoch.counters.rule_chosen(rule);
            (story.rule, story.backend) = (Some(rule), Some(backend));
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
fn header_for(epoch: &Epoch, story: &mut Story, backend: BackendId, received: &Tlvs) -> Vec<u8> {
    let Some(backend) = epoch.config().backends.get(backend.0) else { return Vec::new() };
    match backend.send_proxy {
        None => Vec::new(),
        Some(SendProxy::V1) => {
            story.header_out = HeaderOut::V1;
            proxy_v1::build(story.client, story.original_dst)
        }
        Some(SendProxy::V2 { hello, unique_id, crc32c, received: has_received }) => {
            story.sends_v2();
            let found = story.spoken.as_deref().filter(|(protocol, _)| hello && *protocol == Protocol::Tls);
            let found = found.map(|(_, found)| found);
            let signer = epoch.generation.signs_for(backend).and_then(|ring| ring.signer());
            let fields = proxy_v2::Fields {
                signed: signer.as_ref().map(|(key, stamp)| (key, *stamp)),
                authority: found.and_then(|found| found.name.as_deref()),
                alpn: found.and_then(|found| found.alpn.first()).map(Vec::as_slice),
                unique_id: unique_id.then(|| story.unique_id.bytes()),
                crc32c,
                received: has_received.then_some(received),
                ..proxy_v2::Fields::bare(proxy_v2::Announced::Stream, story.client, story.original_dst)
            };
            fields.build()
        }
    }
}

/// What each direction of a flow at this listener may carry: from the client, to the client.
pub(crate) fn allowances(epoch: &Epoch, listener: ListenerId) -> [Allowance; 2] {
    let own = epoch.listener(listener).and_then(|listener| listener.rate_per_flow).map(std::num::NonZeroU32::get);
    epoch.generation.rates(listener).unwrap_or_default().map(|shared| Allowance::of(own, shared))
}

/// Whether the socket's own address must be asked for: a listener at a fixed address knows it.
pub(crate) fn knows_destination(address: SocketAddr, arrival: Arrival) -> bool {
    !address.ip().is_unspecified() && arrival == Arrival::Direct
}
