//! Datagrams as they arrive: each to its flow, or a new one.

mod inherited;

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::task::spawn_local;
use tokio::time::{sleep, Instant};

use crate::admission::{Bound, Bounds, Occupancy};
use crate::config::model::{HeaderFraming, HeaderPolicy, ListenerId, Transport};
use crate::generation::{header_policy, Epoch};
use crate::kernel::Message;
use crate::operation::outcomes::{HeaderIn, UdpDrop};
use crate::operation::{CloseReason, Limit};
use crate::story::Story;
use crate::tcp::connection::allowances;
use crate::wire::header::{Command, HeaderTransport, ProxyHeader};
use crate::wire::spp;
use crate::wire::udp_preface::{self, DatagramPreface, DatagramRule, PeerFraming};
use crate::worker::Worker;

use super::door::Door;
use super::flow::{datagrams_of, Beginning, Flow};
use super::reply::Reply;
use super::table::{FlowKey, Table};

/// How long a socket rests that fails for no reason of one datagram's.
const REST: std::time::Duration = std::time::Duration::from_millis(5);

/// A socket, its flows, and who serves it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) worker: Rc<Worker>,
    pub(crate) door: Rc<Door>,
    pub(crate) table: Rc<Table>,
}

/// A datagram and whom it is for.
struct Datagram<'a> {
    key: FlowKey,
    original_dst: SocketAddr,
    header_in: HeaderIn,
    framing: PeerFraming,
    reply_prefix: Vec<u8>,
    payload: &'a [u8],
}

impl Listener {
    /// Receives for as long as the task lives.
    pub(crate) async fn receive(self: Rc<Self>) {
        loop {
            if self.door.arrivals().await.is_err() {
                sleep(REST).await;
                continue;
            }
            let worker = Rc::clone(&self.worker);
            let mut batch = worker.batch.borrow_mut();
            match self.door.receive(&mut batch) {
                Ok(_) => {
                    let epoch = worker.epoch();
                    let Some(id) = epoch.generation.listener_at(self.door.endpoint) else { continue };
                    let now = Instant::now();
                    for (message, bytes) in batch.messages() {
                        self.take(&epoch, id, message, bytes, now);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // ICMP said something of an answer; its flow ends by its own timer.
                Err(_) => {}
            }
        }
    }

    fn take(&self, epoch: &Rc<Epoch>, id: ListenerId, message: Message, bytes: &[u8], now: Instant) {
        let Some(peer) = message.peer else { return };
        let hit = message.original_dst.unwrap_or_else(|| self.door.destination(message.destination));
        let Some(listener) = epoch.listener(id) else { return };
        let (policy, framing) = header_policy(listener, peer.ip());
        if policy == HeaderPolicy::Never {
            let key = FlowKey { peer, hit, client: peer };
            if let Some(flow) = self.table.find(&key) {
                return flow.carry(datagrams_of(bytes, message.segment), now);
            }
        }
        for datagram in datagrams_of(bytes, message.segment) {
            match self.unwrapped((policy, framing), peer, hit, datagram) {
                Ok(datagram) => self.deliver(epoch, id, datagram, now),
                Err(outcome) => {
                    epoch.counters.header_in(outcome);
                    epoch.counters.datagrams_dropped(UdpDrop::Header, 1);
                }
            }
        }
    }

    /// A datagram without its header, if its peer is trusted to send one.
    fn unwrapped<'a>(
        &self,
        (policy, framing): (HeaderPolicy, HeaderFraming),
        peer: SocketAddr,
        hit: SocketAddr,
        datagram: &'a [u8],
    ) -> Result<Datagram<'a>, HeaderIn> {
        let plain = |header_in| Datagram {
            key: FlowKey { peer, hit, client: peer },
            original_dst: hit,
            header_in,
            framing: PeerFraming::Bare,
            reply_prefix: Vec::new(),
            payload: datagram,
        };
        if policy == HeaderPolicy::Never {
            return Ok(plain(HeaderIn::NotExpected));
        }
        let known = self.table.peer(peer, hit);
        let read = udp_preface::read(rule(framing), known.framing, datagram);
        let (framing, preface) = read.map_err(|_| HeaderIn::Broken)?;
        match preface {
            DatagramPreface::Header { header, payload_at } => {
                let named = named(&header);
                self.table.learn(peer, hit, framing, named);
                let (client, original_dst) = named.unwrap_or((peer, hit));
                let is_simple = framing == PeerFraming::Spp;
                Ok(Datagram {
                    key: FlowKey { peer, hit, client },
                    original_dst,
                    header_in: match (named, is_simple) {
                        (None, _) => HeaderIn::Local,
                        (Some(_), true) => HeaderIn::Spp,
                        (Some(_), false) => HeaderIn::V2,
                    },
                    framing,
                    reply_prefix: datagram.get(..spp::LENGTH).filter(|_| is_simple).unwrap_or_default().to_vec(),
                    payload: datagram.get(payload_at..).unwrap_or_default(),
                })
            }
            DatagramPreface::Continued => {
                self.table.learn(peer, hit, framing, known.last);
                let (client, original_dst) = known.last.unwrap_or((peer, hit));
                let key = FlowKey { peer, hit, client };
                Ok(Datagram { key, original_dst, framing, ..plain(HeaderIn::Remembered) })
            }
            DatagramPreface::Missing if policy == HeaderPolicy::Require => Err(HeaderIn::Missing),
            DatagramPreface::Missing => Ok(plain(HeaderIn::Absent)),
        }
    }

    fn deliver(&self, epoch: &Rc<Epoch>, id: ListenerId, datagram: Datagram<'_>, now: Instant) {
        if let Some(flow) = self.table.find(&datagram.key) {
            return flow.carry(std::iter::once(datagram.payload), now);
        }
        let key = datagram.key;
        let named = (key.client != key.peer).then_some((key.client, datagram.original_dst));
        let learned = datagram.framing;
        match self.begin(epoch, id, datagram) {
            Ok(flow) => {
                self.start(key, flow);
                if self.table.peer(key.peer, key.hit).framing == PeerFraming::Unheard {
                    self.table.learn(key.peer, key.hit, learned, named);
                }
            }
            Err(drop) => epoch.counters.datagrams_dropped(drop, 1),
        }
    }

    fn start(&self, key: FlowKey, flow: Flow) {
        let flow = Rc::new(flow);
        self.table.insert(key, &flow);
        let table = Rc::clone(&self.table);
        spawn_local(async move {
            let reason = flow.live().await;
            flow.story.borrow_mut().close = reason;
            table.remove(&key);
        });
    }

    fn begin(&self, epoch: &Rc<Epoch>, id: ListenerId, datagram: Datagram<'_>) -> Result<Flow, UdpDrop> {
        let key = datagram.key;
        let mut story = Story::begin(&self.worker, epoch, id, Transport::Udp, key.peer, key.hit);
        story.header_in = datagram.header_in;
        epoch.counters.header_in(datagram.header_in);
        if key.client != key.peer {
            (story.client, story.original_dst) = (key.client, datagram.original_dst);
        }
        if self.worker.is_denied(key.peer.ip()) || self.worker.is_denied(key.client.ip()) {
            story.close = CloseReason::Denied;
            return Err(UdpDrop::Denied);
        }
        let permit = match self.admit(epoch, key.client) {
            Ok(permit) => permit,
            Err(limit) => {
                story.close = CloseReason::OverLimit(limit);
                return Err(UdpDrop::FlowLimit);
            }
        };
        let Ok(reply) = self.reply(key.hit) else {
            story.close = CloseReason::TransparencyImpossible;
            return Err(UdpDrop::NoUpstream);
        };
        Ok(Flow::begin(Beginning {
            story,
            peer: key.peer,
            reply,
            reply_prefix: datagram.reply_prefix,
            first: datagram.payload.to_vec(),
            allowances: allowances(epoch, id),
            permit,
        }))
    }

    fn reply(&self, hit: SocketAddr) -> std::io::Result<Reply> {
        if self.door.endpoint.is_tproxy {
            return Ok(Reply::AsDestination(self.table.reply_socket(hit)?));
        }
        Ok(Reply::ByDoor(Rc::clone(&self.door), self.door.reply_from(hit.ip())))
    }

    /// A place for a flow; in a full table the oldest flow that nobody has answered makes room.
    fn admit(&self, epoch: &Epoch, client: SocketAddr) -> Result<crate::admission::Permit, Limit> {
        let limits = &epoch.config().limits;
        let bounds =
            Bounds { total: limits.udp_flows, listener: limits.udp_flows, source: limits.udp_flows_per_source };
        let everywhere = Occupancy::default();
        let admit = || self.worker.flows.admit(client.ip(), &everywhere, bounds);
        match admit() {
            Ok(permit) => Ok(permit),
            Err(Bound::Source) => Err(Limit::SourceFlows),
            Err(Bound::Total | Bound::Listener) => {
                // Its place is free when its task has run; until then newcomers wait for their next datagram.
                self.table.evict();
                Err(Limit::Flows)
            }
        }
    }
}

fn rule(framing: HeaderFraming) -> DatagramRule {
    match framing {
        HeaderFraming::Every => DatagramRule::Every,
        HeaderFraming::First => DatagramRule::First,
        HeaderFraming::Spp => DatagramRule::Spp,
        HeaderFraming::Auto => DatagramRule::Auto,
    }
}

/// Client and original destination, if a header names them for datagrams.
fn named(header: &ProxyHeader) -> Option<(SocketAddr, SocketAddr)> {
    let is_of_datagrams = header.transport != HeaderTransport::Stream;
    header.addresses.filter(|_| header.command == Command::Proxy && is_of_datagrams)
}
