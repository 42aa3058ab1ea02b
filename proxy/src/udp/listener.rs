//! Datagrams as they arrive: each to its flow, or a new one. Those of one flow go on together.

mod inherited;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{sleep, Instant};

use crate::admission::{Bound, Permit};
use crate::config::model::{HeaderPolicy, ListenerId, Transport};
use crate::generation::Epoch;
use crate::kernel::{Message, BATCH};
use crate::operation::outcomes::{HeaderIn, UdpDrop};
use crate::operation::unique_id::UniqueId;
use crate::operation::CloseReason;
use crate::story::Story;
use crate::tcp::connection::allowances;
use crate::wire::tlv::Tlvs;
use crate::worker::Worker;

use super::colleagues::Handed;
use super::door::Door;
use super::flow::{Beginning, Flow, Outlet};
use super::held::Held;
use super::reply::Reply;
use super::sending::Joined;
use super::table::{FlowKey, Table};
use super::unwrapping::{unwrapped, Unwrapped};

/// How long a socket rests that fails for no reason of one datagram's.
const REST: Duration = Duration::from_millis(5);

/// Flows that give way to one newcomer at most: where a reload has lowered a bound, there are more than it allows.
const MOST_TO_GO: usize = 64;

/// Messages of a batch are marked by bits.
const _: () = assert!(BATCH <= 64);

/// A socket, its flows, and who serves it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) worker: Rc<Worker>,
    pub(crate) door: Rc<Door>,
    pub(crate) table: Rc<Table>,
}

/// The configuration for those who arrive now, and which of its listeners this is.
struct Here {
    epoch: Rc<Epoch>,
    id: ListenerId,
}

/// What a new flow is begun with.
struct Newcomer<'a> {
    key: FlowKey,
    header_in: HeaderIn,
    reply_prefix: Option<&'a [u8]>,
    /// What the header holds beside the addresses.
    tlvs: Tlvs,
    /// By which the process before knew it.
    unique_id: Option<&'a UniqueId>,
    /// Its first datagrams were let in by the process before.
    is_let_in: bool,
}

impl Newcomer<'_> {
    /// Of whom nothing is known but the datagram.
    fn plain(key: FlowKey) -> Self {
        let (reply_prefix, tlvs, unique_id) = (None, Tlvs::default(), None);
        Self { key, header_in: HeaderIn::NotExpected, reply_prefix, tlvs, unique_id, is_let_in: false }
    }

    /// By which others know it.
    fn given_id(&self) -> Option<UniqueId> {
        self.unique_id.cloned().or_else(|| self.tlvs.unique_id().map(|id| UniqueId::Given(id.into())))
    }
}

impl Listener {
    /// Receives for as long as the task lives.
    pub(crate) async fn receive(self: Rc<Self>) {
        let mut known: Option<(Weak<Epoch>, ListenerId)> = None;
        loop {
            if self.door.arrivals().await.is_err() || self.take_batch(&mut known).is_err() {
                sleep(REST).await;
            }
        }
    }

    fn take_batch(&self, known: &mut Option<(Weak<Epoch>, ListenerId)>) -> io::Result<()> {
        let mut batch = self.worker.batch.borrow_mut();
        match self.door.receive(&mut batch) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let Some(here) = self.here(known) else { return Ok(()) };
        let now = Instant::now();
        let messages: Vec<(Message, &[u8])> = batch.messages().collect();
        let mut taken = 0u64;
        for (place, (message, _)) in messages.iter().enumerate() {
            if taken & 1 << place != 0 {
                continue;
            }
            let is_of_this =
                |(at, (other, _)): &(usize, &(Message, &[u8]))| taken & 1 << at == 0 && other.ends() == message.ends();
            let of_this =
                messages.iter().enumerate().skip(place).filter(is_of_this).fold(0, |all, (at, _)| all | 1 << at);
            taken |= of_this;
            let Some(peer) = message.peer else { continue };
            let mut joined = messages
                .iter()
                .enumerate()
                .filter(|(at, _)| of_this & 1 << at != 0)
                .map(|(_, (message, bytes))| Joined { bytes, segment: message.segment });
            self.take(&here, (peer, self.door.hit(message)), &mut joined, now);
        }
        Ok(())
    }

    /// Looks for this listener in the configuration once for each of them.
    fn here(&self, known: &mut Option<(Weak<Epoch>, ListenerId)>) -> Option<Here> {
        let epoch = self.worker.epoch();
        let id = match known {
            Some((before, id)) if Weak::as_ptr(before) == Rc::as_ptr(&epoch) => *id,
            _ => epoch.generation.listener_at(self.door.endpoint)?,
        };
        *known = Some((Rc::downgrade(&epoch), id));
        Some(Here { epoch, id })
    }

    fn take<'a>(
        &self,
        here: &Here,
        (peer, hit): (SocketAddr, SocketAddr),
        joined: &mut dyn Iterator<Item = Joined<'a>>,
        now: Instant,
    ) {
        let Some(listener) = here.epoch.listener(here.id) else { return };
        let Some(rule) = here.epoch.generation.header_rule(listener, peer.ip()) else { return };
        if rule.policy == HeaderPolicy::Never {
            let key = FlowKey { peer, hit, named: None };
            return self.carry(here, Newcomer::plain(key), joined, now);
        }
        self.table.peers.have_room_for(here.epoch.config().limits.udp_flows.get());
        // Payloads of one flow that follow each other go on together.
        let mut of: Option<Newcomer<'_>> = None;
        let mut payloads = Vec::new();
        for datagram in joined.flat_map(Joined::datagrams) {
            match unwrapped(rule, &self.table.peers, (peer, hit), datagram, now) {
                Ok(Unwrapped { key, header_in, reply_prefix, tlvs, payload }) => {
                    if let Some(before) = of.take() {
                        if before.key == key {
                            of = Some(before);
                        } else {
                            self.carry(here, before, &mut payloads.drain(..), now);
                        }
                    }
                    of.get_or_insert_with(|| Newcomer { header_in, reply_prefix, tlvs, ..Newcomer::plain(key) });
                    payloads.push(Joined::one(payload));
                }
                Err(outcome) => {
                    here.epoch.counters.header_in(outcome);
                    here.epoch.counters.datagrams_dropped(UdpDrop::Header, 1);
                }
            }
        }
        if let Some(last) = of {
            self.carry(here, last, &mut payloads.drain(..), now);
        }
    }

    /// To their flow; a new one, if there is none.
    fn carry<'a>(
        &self,
        here: &Here,
        newcomer: Newcomer<'_>,
        joined: &mut dyn Iterator<Item = Joined<'a>>,
        now: Instant,
    ) {
        let (key, is_let_in) = (newcomer.key, newcomer.is_let_in);
        if let Some(flow) = self.table.find(&key) {
            return flow.carry(joined, now);
        }
        let Some(first) = joined.next() else { return };
        let mut datagrams = first.datagrams();
        let Some(datagram) = datagrams.next() else { return };
        if key.named.is_none()
            && self.follow(here, &key, datagram, &mut std::iter::once(first).chain(&mut *joined), now)
        {
            return;
        }
        let mut rest = datagrams.map(Joined::one).chain(joined);
        match self.begin(here, newcomer, datagram) {
            Ok(flow) => {
                self.table.insert(&flow);
                if is_let_in {
                    flow.send(&mut rest);
                } else {
                    flow.carry(rest, now);
                }
                begin_to_live(flow);
            }
            Err(drop) => {
                let all = 1 + rest.by_ref().map(|joined| joined.count() as u64).sum::<u64>();
                here.epoch.counters.datagrams_dropped(drop, all);
            }
        }
    }

    /// Whether datagrams from an unknown endpoint belong to a flow whose client has moved; then they have gone there.
    fn follow<'a>(
        &self,
        here: &Here,
        key: &FlowKey,
        datagram: &[u8],
        joined: &mut dyn Iterator<Item = Joined<'a>>,
        now: Instant,
    ) -> bool {
        let station = &self.worker.udp;
        let Some(home) = station.homes.find(key.peer, key.hit, datagram) else { return false };
        let counters = &here.epoch.counters;
        if self.worker.is_denied(key.peer.ip()) {
            counters.datagrams_dropped(UdpDrop::Denied, joined.map(|joined| joined.count() as u64).sum());
            return true;
        }
        if station.is_here(home) {
            let Some(flow) = station.numbered(home.flow) else { return false };
            flow.move_to(key.peer, false);
            flow.carry(joined, now);
            return true;
        }
        for Joined { bytes, segment } in joined {
            let handed = Handed { flow: home.flow, peer: key.peer, bytes: bytes.to_vec(), segment };
            if !station.colleagues.hand(home.worker, handed) {
                counters.datagrams_dropped(UdpDrop::SendBuffer, Joined { bytes, segment }.count() as u64);
            }
        }
        true
    }

    /// A new flow. Who is refused here gets no line in the log: a flood of made-up sources would fill it.
    fn begin(&self, here: &Here, newcomer: Newcomer<'_>, first: &[u8]) -> Result<Rc<Flow>, UdpDrop> {
        let Here { epoch, id } = here;
        let Newcomer { key, header_in, reply_prefix, is_let_in, .. } = newcomer;
        if self.worker.is_denied(key.peer.ip()) || self.worker.is_denied(key.client().ip()) {
            return Err(UdpDrop::Denied);
        }
        if self.worker.udp.is_draining.get() {
            return Err(UdpDrop::Draining);
        }
        // Of many a flow the first datagram is the only one. Over the rate it takes no place from others.
        let mut allowances = allowances(epoch, *id);
        let [up, _] = &mut allowances;
        if !is_let_in && !up.take_now(first.len()) {
            return Err(UdpDrop::Rate);
        }
        let permit = self.admit(here, key.client()).ok_or(UdpDrop::FlowLimit)?;
        let most = epoch.config().limits.preface_bytes.get();
        let station = &self.worker.udp;
        // Who keeps the oldest half hello makes room for a new one; what one lets go need not be enough.
        let mut held = Held::begin(&station.store, first, most);
        while held.is_none() && station.queue.make_memory() {
            held = Held::begin(&station.store, first, most);
        }
        let held = held.ok_or(UdpDrop::HeldTooMany)?;
        let mut story = Story::begin(&self.worker, epoch, *id, Transport::Udp, key.peer, key.hit);
        story.header_in = header_in;
        if let Some(given) = newcomer.given_id() {
            story.unique_id = given;
        }
        epoch.counters.header_in(header_in);
        if let Some((client, original_dst)) = key.named {
            (story.client, story.original_dst) = (client, original_dst);
        }
        let Ok(reply) = self.reply(key.hit) else {
            story.close = CloseReason::TransparencyImpossible;
            return Err(UdpDrop::NoUpstream);
        };
        let table = Rc::downgrade(&self.table);
        let reply_prefix = reply_prefix.map(Box::from);
        let outlet = Outlet::Held(Box::new(held));
        Ok(Flow::begin(Beginning { story, key, table, reply, reply_prefix, outlet, allowances, permit }))
    }

    fn reply(&self, hit: SocketAddr) -> io::Result<Reply> {
        let door = &self.door;
        if door.is_at_port_of(hit) {
            return Ok(Reply::ByDoor(Rc::clone(door), door.reply_from(hit.ip())));
        }
        self.table.reply_socket(hit).map(Reply::AsDestination)
    }

    /// A place for a flow, if need be that of one that may give way.
    fn admit(&self, here: &Here, client: SocketAddr) -> Option<Permit> {
        let generation = &here.epoch.generation;
        let (occupancy, bounds) = generation.flow_bounds(here.id)?;
        let (station, flows) = (&self.worker.udp, &self.worker.flows);
        // The total may be wanting, and then the listener's own.
        for _ in 0..MOST_TO_GO {
            let has_room = match flows.admit(client.ip(), occupancy, bounds) {
                Ok(permit) => return Some(permit),
                Err(Bound::Source) => {
                    generation.suspicion.is_full(client.ip());
                    return None;
                }
                // Nobody is to go for one who does not come in.
                Err(Bound::Total | Bound::Listener) if flows.is_full(client.ip(), bounds) => return None,
                Err(Bound::Total) => station.make_room(bounds.total.get(), Instant::now()),
                Err(Bound::Listener) => {
                    station.crowd(generation, here.id).is_some_and(|crowd| crowd.make_room(Instant::now()))
                }
            };
            if !has_room {
                return None;
            }
        }
        None
    }
}

/// Most flows have their backend at once. The others have a task until they have.
fn begin_to_live(flow: Rc<Flow>) {
    let mut life = Box::pin(live(flow));
    // A task has it polled again, by its own waker.
    let nobody = Waker::from(Arc::new(Nobody));
    if life.as_mut().poll(&mut Context::from_waker(&nobody)).is_pending() {
        spawn_local(life);
    }
}

async fn live(flow: Rc<Flow>) {
    match flow.begin_to_live().await {
        Ok(()) => flow.settle(),
        Err(reason) => flow.finish(reason),
    }
}

/// Whom to wake while there is no task.
struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}
