//! One flow: datagrams of one client to one address of this host, and the answers to them.

pub(crate) mod handover;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout_at, Instant};

use crate::admission::Permit;
use crate::config::model::{BackendId, ListenerId, Protocol, Transport};
use crate::generation::Epoch;
use crate::kernel::{Batch, Route};
use crate::operation::outcomes::UdpDrop;
use crate::operation::CloseReason;
use crate::route::{decide, final_decision, Arrived, Captures, DatagramPreface, Decision};
use crate::story::{SharedStory, Story};
use crate::tcp::allowance::Allowance;
use crate::transparent::socket::udp_from;

use super::dial::{candidates, Way as DialWay};
use super::reply::Reply;
use super::sending::{send_all, Sent, Way};
use super::upstream::{Header, Upstream};

/// A flow; its table and its task share it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) story: SharedStory,
    /// Where answers go.
    peer: SocketAddr,
    reply: Reply,
    /// Stands before each answer: a peer that speaks Cloudflare's protocol wants its header back.
    reply_prefix: Vec<u8>,
    /// First datagrams, until they may go.
    held: RefCell<Option<DatagramPreface>>,
    upstream: OnceCell<RefCell<Upstream>>,
    /// A further datagram is held, or the flow is to end.
    news: Notify,
    end: Cell<Option<CloseReason>>,
    last_up: Cell<Instant>,
    last_down: Cell<Option<Instant>>,
    up_allowance: RefCell<Option<Box<Allowance>>>,
    down_allowance: RefCell<Option<Box<Allowance>>>,
    _permit: Permit,
}

/// What begins a flow.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) story: Story,
    pub(crate) peer: SocketAddr,
    pub(crate) reply: Reply,
    pub(crate) reply_prefix: Vec<u8>,
    pub(crate) first: Vec<u8>,
    pub(crate) allowances: [Option<Box<Allowance>>; 2],
    pub(crate) permit: Permit,
}

impl Flow {
    pub(crate) fn begin(beginning: Beginning) -> Self {
        let Beginning { story, peer, reply, reply_prefix, first, allowances: [up, down], permit } = beginning;
        Self {
            last_up: Cell::new(story.accepted),
            story: story.share(),
            peer,
            reply,
            reply_prefix,
            held: RefCell::new(Some(DatagramPreface::new(first))),
            upstream: OnceCell::new(),
            news: Notify::new(),
            end: Cell::new(None),
            last_down: Cell::new(None),
            up_allowance: RefCell::new(up),
            down_allowance: RefCell::new(down),
            _permit: permit,
        }
    }

    /// Whether the backend has answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.last_down.get().is_some()
    }

    /// Ends the flow; its task does the rest.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.end.set(Some(reason));
        self.news.notify_one();
    }

    /// Takes further datagrams of the client.
    pub(crate) fn carry<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>, now: Instant) {
        self.last_up.set(now);
        let mut story = self.story.borrow_mut();
        let counters = Rc::clone(&story.epoch);
        let mut allowance = self.up_allowance.borrow_mut();
        let mut over_rate = 0;
        let mut within = datagrams.filter(|datagram| {
            let passes = allowance.as_mut().map_or(true, |allowance| allowance.take_now(datagram.len()));
            over_rate += u64::from(!passes);
            passes
        });
        match self.upstream.get() {
            Some(upstream) => {
                let sent = upstream.borrow_mut().send(within);
                story.bytes_in += sent.bytes;
                count(&counters, story.listener, sent, Sent::default());
            }
            None => {
                let mut held = self.held.borrow_mut();
                let too_many = match held.as_mut() {
                    Some(held) => within.by_ref().filter(|datagram| !held.push(datagram.to_vec())).count() as u64,
                    None => within.by_ref().count() as u64,
                };
                drop(within);
                counters.counters.datagrams_dropped(UdpDrop::HeldTooMany, too_many);
                self.news.notify_one();
            }
        }
        counters.counters.datagrams_dropped(UdpDrop::Rate, over_rate);
    }

    /// The flow's life: decide, dial, send on what was held, pass on answers until nobody speaks any more.
    pub(crate) async fn live(&self) -> CloseReason {
        let epoch = Rc::clone(&self.story.borrow().epoch);
        let prepared = if self.upstream.get().is_some() {
            Ok(()) // by the process that this flow began in
        } else {
            tokio::select! {
                prepared = self.prepare(&epoch) => prepared,
                reason = self.ended() => return reason,
            }
        };
        match prepared {
            Ok(()) => self.answer(&epoch).await,
            Err(reason) => {
                let held = self.held.borrow_mut().take().map_or(0, |held| held.datagrams().len() as u64);
                let is_refused = matches!(reason, CloseReason::NoRule | CloseReason::RefusedByRule);
                let drop = if is_refused { UdpDrop::Refused } else { UdpDrop::NoUpstream };
                epoch.counters.datagrams_dropped(drop, held);
                reason
            }
        }
    }

    async fn ended(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.end.get() {
                return reason;
            }
            self.news.notified().await;
        }
    }

    async fn prepare(&self, epoch: &Epoch) -> Result<(), CloseReason> {
        let (backend, captures) = self.decide(epoch).await?;
        self.dial(epoch, backend, &captures).await?;
        let held = self.held.borrow_mut().take();
        let datagrams = held.map(DatagramPreface::into_datagrams).unwrap_or_default();
        self.carry(datagrams.iter().map(Vec::as_slice), self.last_up.get());
        Ok(())
    }

    async fn decide(&self, epoch: &Epoch) -> Result<(BackendId, Captures), CloseReason> {
        let config = epoch.config();
        let (arrived, begun) = {
            let story = self.story.borrow();
            let (listener, original_dst, client) = (story.listener, story.original_dst, story.client);
            (Arrived { listener, transport: Transport::Udp, original_dst, client }, story.accepted)
        };
        let mut is_over = false;
        let (decision, seen) = loop {
            let seen = self.held.borrow().as_ref().map_or(0, |held| held.datagrams().len());
            let decision = match self.held.borrow_mut().as_mut() {
                Some(held) if is_over || seen >= crate::route::preface::MOST_DATAGRAMS => {
                    final_decision(config, &arrived, held)
                }
                Some(held) => decide(config, &arrived, held),
                None => Decision::NoRule,
            };
            if decision != Decision::NeedMore {
                break (decision, seen);
            }
            is_over = timeout_at(begun + config.timeouts.preface, self.news.notified()).await.is_err();
        };
        let mut story = self.story.borrow_mut();
        story.preface = Some(begun.elapsed());
        if let Some(held) = self.held.borrow().as_ref() {
            story.spoken = held.found().map(|(protocol, found)| (protocol, found.clone()));
            let bytes = held.datagrams().iter().map(Vec::len).sum();
            let (protocol, ech) =
                story.spoken.as_ref().map_or((None, false), |(spoken, found)| (Some(*spoken), found.ech));
            epoch.counters.preface(protocol, bytes, seen, begun.elapsed(), ech);
        }
        match decision {
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

    async fn dial(&self, epoch: &Epoch, backend: BackendId, captures: &Captures) -> Result<(), CloseReason> {
        let begun = Instant::now();
        let (client, original_dst, is_quic, worker) = {
            let story = self.story.borrow();
            let is_quic = story.spoken.as_ref().is_some_and(|(protocol, _)| *protocol == Protocol::Quic);
            (story.client, story.original_dst, is_quic, Rc::clone(&story.worker))
        };
        let way = DialWay { epoch, client, original_dst, captures };
        let (id, addresses) = candidates(way, backend).await?;
        let chosen = epoch.config().backends.get(id.0).ok_or(CloseReason::NoRule)?;
        let mut reason = CloseReason::BackendUnreachable;
        for to in addresses {
            let seen = (!worker.locals.same_host(client.ip(), to.ip())).then_some(client);
            match udp_from(seen, chosen.source, to, &worker.udp_endpoints) {
                Ok(found) => {
                    let header = Header::of(chosen.send_proxy_udp, client, original_dst);
                    let upstream =
                        Upstream::open(found, header, is_quic).map_err(|error| CloseReason::IoError(error.kind()))?;
                    epoch.counters.header_out(upstream.form());
                    epoch.counters.backend_connected(id, begun.elapsed());
                    let mut story = self.story.borrow_mut();
                    story.header_out = upstream.form();
                    story.backend = Some(id);
                    story.target = Some((to, upstream.source));
                    story.connect = Some(begun.elapsed());
                    // Nobody else opens this flow's upstream.
                    let _ = self.upstream.set(RefCell::new(upstream));
                    return Ok(());
                }
                Err(error) => reason = crate::tcp::dial::failure(&error).reason,
            }
        }
        epoch.counters.backend_failed(id);
        Err(reason)
    }

    /// Passes on answers until the flow ends.
    async fn answer(&self, epoch: &Epoch) -> CloseReason {
        let Some(upstream) = self.upstream.get() else { return CloseReason::BackendUnreachable };
        let worker = Rc::clone(&self.story.borrow().worker);
        loop {
            let until = self.idle_at(epoch);
            tokio::select! {
                reason = self.ended() => return reason,
                ready = poll_fn(|context| upstream.borrow().poll_readable(context)) => {
                    if ready.is_err() {
                        return CloseReason::BackendReset;
                    }
                    let mut batch = worker.batch.borrow_mut();
                    // An error is what ICMP said of an earlier datagram; the backend may come back.
                    if upstream.borrow().receive(&mut batch).is_ok() {
                        self.last_down.set(Some(Instant::now()));
                        self.pass_on(epoch, &batch);
                    }
                }
                () = sleep_until(until) => {
                    if Instant::now() >= self.idle_at(epoch) {
                        let is_answered = self.is_answered();
                        return if is_answered { CloseReason::IdleTimeout } else { CloseReason::OneWayTimeout };
                    }
                }
            }
        }
    }

    /// When the flow will have been silent for too long.
    fn idle_at(&self, epoch: &Epoch) -> Instant {
        let timeouts = &epoch.config().timeouts;
        let last = self.last_down.get().map_or(self.last_up.get(), |down| down.max(self.last_up.get()));
        last + if self.is_answered() { timeouts.udp_idle } else { timeouts.udp_one_way }
    }

    fn pass_on(&self, epoch: &Epoch, batch: &Batch) {
        let (socket, from) = self.reply.way();
        let way = Way { socket, route: Route { to: Some(self.peer), from, segment: None }, prefix: &self.reply_prefix };
        let mut allowance = self.down_allowance.borrow_mut();
        let mut over_rate = 0;
        let datagrams = batch.messages().flat_map(|(message, bytes)| datagrams_of(bytes, message.segment));
        let within = datagrams.filter(|datagram| {
            let passes = allowance.as_mut().map_or(true, |allowance| allowance.take_now(datagram.len()));
            over_rate += u64::from(!passes);
            passes
        });
        let sent = send_all(&way, within);
        let mut story = self.story.borrow_mut();
        story.bytes_out += sent.bytes;
        count(epoch, story.listener, Sent::default(), sent);
        epoch.counters.datagrams_dropped(UdpDrop::Rate, over_rate);
    }
}

/// The datagrams that the kernel joined into one message; an empty datagram is one too.
pub(crate) fn datagrams_of(bytes: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    let empty = bytes.is_empty().then_some(bytes);
    empty.into_iter().chain(bytes.chunks(segment.max(1)))
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
