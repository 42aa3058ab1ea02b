//! One flow: datagrams of one client to one address of this host, and the answers to them.

pub(crate) mod handover;
mod rate;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use tokio::time::Instant;

use crate::admission::Permit;
use crate::config::model::{ListenerId, Transport};
use crate::generation::Epoch;
use crate::kernel::{Batch, Route};
use crate::operation::outcomes::UdpDrop;
use crate::operation::CloseReason;
use crate::story::{SharedStory, Story};
use crate::tcp::allowance::Allowance;
use crate::wire::spp;
use crate::worker::Worker;

use super::absence::Absence;
use super::crowd::Crowd;
use super::giving_way::{GivesWay, Standing};
use super::held::{Held, SentFirst};
use super::rebinding::{ConnectionId, Place, MOST_OF_FLOW};
use super::reply::Reply;
use super::sending::{send_all, Joined, Sent, Way};
use super::table::{FlowKey, Table};
use super::upstream::Upstream;
use rate::limited;

/// A flow; its table and those who tend it share it, and its task at first.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(super) worker: Rc<Worker>,
    pub(super) epoch: Rc<Epoch>,
    pub(super) story: SharedStory,
    peer: Cell<SocketAddr>,
    hit: SocketAddr,
    /// Few flows have these, and all would have the room.
    named: Option<Box<(SocketAddr, SocketAddr)>>,
    pub(super) table: Weak<Table>,
    pub(super) me: Weak<Flow>,
    /// Where it is tended.
    pub(super) place: Cell<u32>,
    /// When it is looked at next.
    pub(super) alarm: Cell<Option<Instant>>,
    /// It has no task any more.
    pub(super) is_settled: Cell<bool>,
    reply: Reply,
    /// Stands before each answer: a peer that speaks Cloudflare's protocol wants its header back.
    reply_prefix: Option<Box<[u8; spp::LENGTH]>>,
    pub(super) outlet: RefCell<Outlet>,
    /// Its datagrams must not be cut, and its connection ids are learned.
    pub(super) is_quic: Cell<bool>,
    standing: Cell<Standing>,
    /// It was said that the backend is not there.
    pub(super) absence: Cell<Option<Absence>>,
    /// Others have ended it: its story says why.
    pub(super) is_ended: Cell<bool>,
    last_up: Cell<Instant>,
    pub(super) last_down: Cell<Instant>,
    up_allowance: RefCell<Allowance>,
    down_allowance: RefCell<Allowance>,
    /// The flow's task, while it waits for what others do to the flow.
    pub(super) task: RefCell<Option<Waker>>,
    followed: RefCell<Option<Box<Followed>>>,
    permit: RefCell<Option<Permit>>,
    /// The first datagrams, which have gone to a backend, for another one if nobody is there.
    pub(super) sent_first: SentFirst,
}

/// Where datagrams of the client go.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// Nowhere yet.
    Held(Box<Held>),
    /// To the backend.
    Open(Upstream),
    /// Nowhere any more.
    Closed,
}

/// A flow that other workers can find.
#[derive(Debug)]
struct Followed {
    number: u64,
    places: Vec<Place>,
}

/// What begins a flow.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) story: Story,
    pub(crate) key: FlowKey,
    pub(crate) table: Weak<Table>,
    pub(crate) reply: Reply,
    pub(crate) reply_prefix: Option<Box<[u8]>>,
    pub(crate) outlet: Outlet,
    pub(crate) allowances: [Allowance; 2],
    pub(crate) permit: Permit,
}

impl Flow {
    pub(crate) fn begin(beginning: Beginning) -> Rc<Self> {
        let Beginning { story, key, table, reply, reply_prefix, outlet, allowances, permit } = beginning;
        let [up, down] = allowances;
        let (worker, epoch, now) = (Rc::clone(&story.worker), Rc::clone(&story.epoch), story.accepted);
        let flow = Rc::new_cyclic(|me| Self {
            worker,
            epoch,
            story: story.share(),
            peer: Cell::new(key.peer),
            hit: key.hit,
            named: key.named.map(Box::new),
            table,
            me: Weak::clone(me),
            place: Cell::new(u32::MAX),
            alarm: Cell::new(None),
            is_settled: Cell::new(false),
            reply,
            reply_prefix: reply_prefix.and_then(|prefix| prefix.try_into().ok()),
            outlet: RefCell::new(outlet),
            is_quic: Cell::new(false),
            standing: Cell::new(Standing::Unanswered),
            absence: Cell::new(None),
            is_ended: Cell::new(false),
            last_up: Cell::new(now),
            last_down: Cell::new(now),
            up_allowance: RefCell::new(up),
            down_allowance: RefCell::new(down),
            task: RefCell::new(None),
            followed: RefCell::new(None),
            permit: RefCell::new(Some(permit)),
            sent_first: SentFirst::default(),
        });
        flow.place.set(flow.worker.udp.tended.put(Rc::clone(&flow)));
        let living = &flow.worker.udp.living;
        living.set(living.get() + 1);
        flow.worker.udp.queue.push(Rc::downgrade(&flow), living.get());
        flow.worker.udp.queue.push_holding(Rc::downgrade(&flow), living.get());
        let admitted = &flow.worker.udp.admitted;
        admitted.set(admitted.get() + 1);
        flow.crowd().iter().for_each(|crowd| crowd.begun(&flow));
        flow
    }

    /// What it is known by now.
    pub(crate) fn key(&self) -> FlowKey {
        FlowKey { peer: self.peer.get(), hit: self.hit, named: self.named.as_deref().copied() }
    }

    /// Ends the flow; those who tend it do the rest.
    pub(crate) fn close(&self, reason: CloseReason) {
        if !self.is_ended.replace(true) {
            self.story.borrow_mut().close = reason;
        }
        self.wake();
    }

    /// How others have ended it, if they have.
    pub(super) fn end(&self) -> Option<CloseReason> {
        self.is_ended.get().then(|| self.story.borrow().close)
    }

    pub(super) fn wake(&self) {
        if self.is_settled.get() {
            self.worker.udp.tended.nudge(self.place.get());
        } else if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Has the task polled again when others have done something to the flow.
    pub(super) fn watch(&self, context: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            *task = Some(context.waker().clone());
        }
    }

    /// Takes further datagrams of the client.
    pub(crate) fn carry<'a>(&self, joined: impl Iterator<Item = Joined<'a>>, now: Instant) {
        self.last_up.set(now);
        if self.standing.get() == Standing::Answered {
            self.confirm();
        }
        limited(&mut self.up_allowance.borrow_mut(), &self.epoch, joined, |joined| self.send(joined));
    }

    /// The flows of its listener.
    fn crowd(&self) -> Option<Rc<Crowd>> {
        let listener = self.story.try_borrow().ok()?.listener;
        self.worker.udp.crowd(&self.epoch.generation, listener)
    }

    /// Gives its place to others.
    fn leave(&self) {
        if self.permit.take().is_some() {
            let admitted = &self.worker.udp.admitted;
            admitted.set(admitted.get().saturating_sub(1));
        }
    }

    fn confirm(&self) {
        self.standing.set(Standing::Confirmed);
        self.worker.udp.queue.confirm(Weak::clone(&self.me), self.last_up.get());
        self.crowd().iter().for_each(|crowd| crowd.confirmed(Weak::clone(&self.me), self.last_up.get()));
    }

    /// Takes datagrams that its rate has let in.
    pub(super) fn send<'a>(&self, joined: &mut dyn Iterator<Item = Joined<'a>>) {
        let counters = &self.epoch.counters;
        match &mut *self.outlet.borrow_mut() {
            Outlet::Open(upstream) => {
                let sent = upstream.send(joined, self.epoch.generation.ring_of(self.story.borrow().backend));
                self.sent_up(sent);
            }
            Outlet::Held(held) => {
                let datagrams = joined.flat_map(Joined::datagrams);
                let too_many = datagrams.filter(|datagram| !held.push(datagram)).count() as u64;
                counters.datagrams_dropped(UdpDrop::HeldTooMany, too_many);
                self.wake();
            }
            Outlet::Closed => {
                counters.datagrams_dropped(UdpDrop::NoUpstream, joined.map(|joined| joined.count() as u64).sum());
            }
        }
    }

    /// Lets go of datagrams that nobody was sent, and of those that come.
    pub(super) fn discard(&self, why: UdpDrop) {
        let mut outlet = self.outlet.borrow_mut();
        if let Outlet::Held(held) = &*outlet {
            self.epoch.counters.datagrams_dropped(why, held.datagrams().count() as u64);
            *outlet = Outlet::Closed;
        }
    }

    pub(super) fn sent_up(&self, sent: Sent) {
        let mut story = self.story.borrow_mut();
        story.bytes_in += sent.bytes;
        count(&self.epoch, story.listener, sent, Sent::default());
        if let Some(absence) = sent.absence {
            self.is_absent(absence);
        }
    }

    /// It was said that the backend is not there.
    pub(super) fn is_absent(&self, absence: Absence) {
        self.absence.set(Some(absence));
        self.wake();
    }

    /// Passes on what the backend has said.
    pub(super) fn answer(&self, batch: &Batch, now: Instant) {
        self.last_down.set(now);
        if self.standing.get() == Standing::Unanswered {
            self.standing.set(Standing::Answered);
            self.answered_first();
        }
        let messages = || batch.messages().map(|(message, bytes)| Joined { bytes, segment: message.segment });
        if self.is_quic.get() {
            messages().flat_map(Joined::datagrams).for_each(|datagram| self.learn_of(datagram));
        }
        let (socket, from) = self.reply.way(!self.is_quic.get());
        let prefix = self.reply_prefix.as_deref().map_or(&[][..], |prefix| prefix);
        let way = Way { socket, route: Route { to: Some(self.peer.get()), from, segment: None }, prefix };
        limited(&mut self.down_allowance.borrow_mut(), &self.epoch, messages(), |joined| {
            let sent = send_all(&way, joined);
            let mut story = self.story.borrow_mut();
            story.bytes_out += sent.bytes;
            count(&self.epoch, story.listener, Sent::default(), sent);
        });
    }

    pub(super) fn last_spoken(&self) -> Instant {
        self.last_down.get().max(self.last_up.get())
    }

    /// When the flow will have been silent for too long.
    pub(super) fn idle_at(&self) -> Instant {
        let timeouts = &self.epoch.config().timeouts;
        self.last_spoken() + if self.is_answered() { timeouts.udp_idle } else { timeouts.udp_one_way }
    }

    /// Whether the backend has answered.
    pub(super) fn is_answered(&self) -> bool {
        self.standing.get() != Standing::Unanswered
    }

    /// Learns from an answer under which connection id the client will speak.
    fn learn_of(&self, answer: &[u8]) {
        if !answer.first().is_some_and(|first| first & 0x80 != 0) {
            return;
        }
        let Some(id) = ConnectionId::chosen_in(answer) else { return };
        let mut followed = self.followed.borrow_mut();
        let followed = followed.get_or_insert_with(|| {
            Box::new(Followed { number: self.worker.udp.number(&self.me), places: Vec::with_capacity(2) })
        });
        let place = Place::Connection { hit: self.hit, id };
        // Flows of one peer for many clients cannot be followed: the new endpoint would have to name its client.
        let is_followed = self.named.is_none() && followed.places.len() < MOST_OF_FLOW;
        if is_followed && !followed.places.contains(&place) {
            let home = self.worker.udp.home(followed.number);
            if self.worker.udp.homes.learn(place, home) {
                followed.places.push(place);
            }
        }
    }

    /// The client has another endpoint now; datagrams from there come to another worker (`is_elsewhere`), or to this one.
    pub(crate) fn move_to(&self, peer: SocketAddr, is_elsewhere: bool) {
        if self.peer.get() == peer {
            return;
        }
        match (self.table.upgrade(), self.me.upgrade()) {
            (Some(table), Some(me)) => table.rekey(&me, || self.peer.set(peer)),
            // About to end.
            _ => return,
        }
        if let Some(followed) = &mut *self.followed.borrow_mut() {
            let homes = &self.worker.udp.homes;
            followed.places.retain(|place| {
                let is_id = matches!(place, Place::Connection { .. });
                if !is_id {
                    homes.forget(place);
                }
                is_id
            });
            let place = Place::Endpoint { hit: self.hit, peer };
            if is_elsewhere && homes.learn(place, self.worker.udp.home(followed.number)) {
                followed.places.push(place);
            }
        }
    }
}

impl GivesWay for Flow {
    fn standing(&self) -> Option<Standing> {
        (!self.is_ended.get()).then(|| self.standing.get())
    }

    fn last_heard(&self) -> Instant {
        self.last_up.get()
    }

    fn is_holding(&self) -> bool {
        matches!(&*self.outlet.borrow(), Outlet::Held(_))
    }

    fn is_keeping(&self) -> bool {
        self.sent_first.is_some()
    }

    fn forget_sent(&self) {
        self.sent_first.take();
        self.wake();
    }

    fn give_way(&self) {
        self.leave();
        self.discard(UdpDrop::FlowLimit);
        self.close(CloseReason::Evicted);
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let station = &self.worker.udp;
        station.living.set(station.living.get().saturating_sub(1));
        let was_confirmed = self.standing.get() == Standing::Confirmed;
        if was_confirmed {
            station.queue.unconfirm();
        }
        self.leave();
        self.crowd().iter().for_each(|crowd| crowd.ended(was_confirmed));
        if let Some(followed) = self.followed.get_mut().take() {
            station.unnumber(followed.number);
            followed.places.iter().for_each(|place| station.homes.forget(place));
        }
    }
}

fn count(epoch: &Epoch, listener: ListenerId, up: Sent, down: Sent) {
    let counters = &epoch.counters;
    counters.datagrams(listener, up.datagrams, down.datagrams);
    counters.carried(listener, Transport::Udp, up.bytes, down.bytes);
    for sent in [up, down] {
        counters.datagrams_dropped(UdpDrop::SendBuffer, sent.crowded_out);
        counters.datagrams_dropped(UdpDrop::TooLong, sent.too_large);
        counters.datagrams_dropped(UdpDrop::SendError, sent.failed);
    }
}
