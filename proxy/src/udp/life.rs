//! A flow's life: decide, open the way to a backend, send what was held, pass on answers until nobody speaks any more.

use std::future::{poll_fn, Future};
use std::io;
use std::mem;
use std::pin::pin;
use std::rc::Weak;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{timeout_at, Instant};

use crate::config::model::{Arrival, BackendId, Protocol, Transport};
use crate::kernel::BATCH;
use crate::operation::outcomes::{HeaderOut, SourceUsed, UdpDrop};
use crate::operation::CloseReason;
use crate::route::{decide, final_decision, Arrived, Captures, Decision};
use crate::sniff::quic_header::{long_header, PacketType};
use crate::story::Taken;
use crate::tcp::dial::{failure, seen_client, Caller};
use crate::transparent::port_sharing::is_out_of_ports;
use crate::transparent::socket::udp_from;
use crate::upstream::extent::Failed;

use super::absence::Absence;
use super::dial::{Choice, Search};
use super::flow::{Flow, Outlet};
use super::held::Held;
use super::upstream::{Header, Upstream};

/// The shortest datagram with a client's Initial packet (RFC 9000 section 14.1).
const SHORTEST_INITIAL: usize = 1200;

/// A flow in which nobody has spoken for so long is not waited for at the proxy's end.
const IN_USE: Duration = Duration::from_secs(5);

/// Why the first datagrams need not be kept any more, or are needed again.
enum Kept {
    Ended(CloseReason),
    Enough,
    Absent(Absence, Box<Held>),
}

impl Flow {
    /// Lives until it is clear that it stays with its backend; why it ends, if it does.
    pub(super) async fn begin_to_live(&self) -> Result<(), CloseReason> {
        // Boxed: what a flow needs before it runs would be with it while it waits for an answer.
        let decided = Box::pin(self.unless_ended(self.decide())).await;
        let (backend, captures) = decided.map_err(|reason| self.unsent(reason))?;
        let mut search = {
            let story = self.story.borrow();
            Box::new(Search::new(story.client, story.original_dst, captures, backend))
        };
        loop {
            let opened = Box::pin(self.unless_ended(self.open(&mut search))).await;
            self.release(opened.map_err(|reason| self.unsent(reason))?, search.is_over());
            // Nobody has seen the first datagrams where it is said that nobody is there.
            match self.wait_for_answer(Instant::now() + self.patience()).await {
                Kept::Ended(reason) => return Err(reason),
                Kept::Enough => return Ok(()),
                Kept::Absent(absence, first) => {
                    self.candidate_failed(absence, false);
                    *self.outlet.borrow_mut() = Outlet::Held(first);
                    self.worker.udp.queue.push_holding(Weak::clone(&self.me), self.worker.udp.living.get());
                    search.reason = reason(absence);
                }
            }
        }
    }

    /// Does something, unless others end the flow meanwhile.
    async fn unless_ended<T>(&self, doing: impl Future<Output = Result<T, CloseReason>>) -> Result<T, CloseReason> {
        let mut doing = pin!(doing);
        poll_fn(|context| {
            self.watch(context);
            match self.end() {
                Some(reason) => Poll::Ready(Err(reason)),
                None => doing.as_mut().poll(context),
            }
        })
        .await
    }

    /// Ends with datagrams that nobody was sent.
    fn unsent(&self, reason: CloseReason) -> CloseReason {
        let is_refused = matches!(reason, CloseReason::NoRule | CloseReason::RefusedByRule);
        self.discard(if is_refused { UdpDrop::Refused } else { UdpDrop::NoUpstream });
        reason
    }

    async fn decide(&self) -> Result<(BackendId, Captures), CloseReason> {
        let config = self.epoch.config();
        let (arrived, begun) = {
            let story = self.story.borrow();
            let (listener, original_dst, client) = (story.listener, story.original_dst, story.client);
            (Arrived { listener, transport: Transport::Udp, original_dst, client }, story.accepted)
        };
        let mut is_over = false;
        let mut seen = 0;
        let decision = loop {
            let decision = match &mut *self.outlet.borrow_mut() {
                Outlet::Held(held) => {
                    seen = held.preface.datagrams().len();
                    if is_over || held.is_last_word() {
                        final_decision(config, &arrived, &mut held.preface)
                    } else {
                        decide(config, &arrived, &mut held.preface)
                    }
                }
                Outlet::Open(_) | Outlet::Closed => Decision::NoRule,
            };
            if decision != Decision::NeedMore {
                break decision;
            }
            let more = poll_fn(|_| match &*self.outlet.borrow() {
                Outlet::Held(held) if held.preface.datagrams().len() == seen && !held.is_last_word() => Poll::Pending,
                Outlet::Held(_) | Outlet::Open(_) | Outlet::Closed => Poll::Ready(()),
            });
            is_over = timeout_at(begun + config.timeouts.preface, more).await.is_err();
        };
        self.decided(decision, begun)
    }

    fn decided(&self, decision: Decision, begun: Instant) -> Result<(BackendId, Captures), CloseReason> {
        let counters = &self.epoch.counters;
        let mut story = self.story.borrow_mut();
        let took = begun.elapsed();
        story.preface = Some(took);
        if let Outlet::Held(held) = &*self.outlet.borrow() {
            let datagrams = held.preface.datagrams();
            story.spoken = held.preface.found().map(|(protocol, found)| Box::new((protocol, found.clone())));
            let spoken = story.spoken.as_deref();
            counters.preface(spoken, datagrams.iter().map(Vec::len).sum(), datagrams.len(), took);
            let is_known = spoken.is_some_and(|(protocol, _)| *protocol == Protocol::Quic);
            self.is_quic.set(is_known || datagrams.iter().any(|datagram| is_initial(datagram)));
        }
        match decision {
            Decision::Forward { rule, backend, captures } => {
                counters.rule_chosen(rule);
                story.rule = Some(rule);
                Ok((backend, captures))
            }
            Decision::Refuse { rule } => {
                counters.rule_chosen(rule);
                story.rule = Some(rule);
                Err(CloseReason::RefusedByRule)
            }
            Decision::NoRule | Decision::NeedMore => Err(CloseReason::NoRule),
        }
    }

    /// A socket towards the next address that one can be had for.
    async fn open(&self, search: &mut Search) -> Result<Upstream, CloseReason> {
        let begun = Instant::now();
        while let Some(choice) = search.next(&self.epoch).await {
            match self.open_to(choice) {
                Ok(upstream) => {
                    search.served(&self.epoch, Some(choice.backend));
                    self.epoch.counters.header_out(upstream.form());
                    self.epoch.counters.backend_connected(choice.backend, begun.elapsed());
                    let mut story = self.story.borrow_mut();
                    story.header_out = upstream.form();
                    story.backend = Some(choice.backend);
                    story.target = Some(Taken::new(choice.to, upstream.source));
                    story.connect = Some(begun.elapsed());
                    return Ok(upstream);
                }
                Err(why) => search.reason = why,
            }
        }
        search.served(&self.epoch, None);
        Err(search.reason)
    }

    fn open_to(&self, Choice { backend: id, candidate, to }: Choice) -> Result<Upstream, CloseReason> {
        let config = self.epoch.config();
        let chosen = config.backends.get(id.0).ok_or(CloseReason::NoRule)?;
        let (client, original_dst, arrival) = {
            let story = self.story.borrow();
            let arrival = config.listeners.get(story.listener.0).map_or(Arrival::Direct, |listener| listener.arrival);
            (story.client, story.original_dst, arrival)
        };
        let captures = &Captures::default();
        let seen = seen_client(
            &self.worker.locals,
            chosen.source,
            Caller { client, original_dst, arrival, captures, speaks_at_once: true },
            to,
        );
        let found = udp_from(seen, chosen.source, to, &self.worker.udp_endpoints).or_else(|error| {
            let lent = is_out_of_ports(&error).then(|| self.worker.udp.tended.borrow_port(to)).flatten();
            lent.ok_or(failure(&error).reason)
        })?;
        let header = {
            let story = self.story.borrow();
            let id = chosen.send_proxy_udp_id.then(|| story.unique_id.bytes());
            let signer = self.epoch.generation.signs_for(chosen).and_then(|ring| ring.signer());
            Header::of(chosen.send_proxy_udp, client, original_dst, id, signer.as_ref())
        };
        let candidate = self.epoch.generation.candidates(id).get(candidate);
        let opened = Upstream::open(found, header, !self.is_quic.get(), candidate).and_then(|mut upstream| {
            upstream.watch(&self.worker.udp.tended, self.place.get())?;
            Ok(upstream)
        });
        opened.map_err(|error| CloseReason::IoError(error.kind()))
    }

    /// Sends what was held, and all that follows, by a new socket; keeps what was held, unless there will be no other.
    fn release(&self, mut upstream: Upstream, is_last: bool) {
        let held = mem::replace(&mut *self.outlet.borrow_mut(), Outlet::Closed);
        let Outlet::Held(held) = held else { return };
        self.absence.set(None);
        let sent = upstream.send(held.datagrams(), None);
        *self.outlet.borrow_mut() = Outlet::Open(upstream);
        self.sent_up(sent);
        if !is_last {
            self.sent_first.keep(held);
            self.worker.udp.queue.push_keeping(Weak::clone(&self.me), self.worker.udp.living.get());
        }
    }

    /// How long the first datagrams are kept for another candidate.
    fn patience(&self) -> Duration {
        let backend = self.story.borrow().backend.and_then(|id| self.epoch.config().backends.get(id.0));
        backend.map_or(Duration::ZERO, |backend| backend.connect_timeout)
    }

    /// Waits until the backend has answered, or is found not to be there, as is told of the first datagrams, which are kept
    /// until then at the longest.
    async fn wait_for_answer(&self, until: Instant) -> Kept {
        let until = until.min(self.idle_at());
        let answered = poll_fn(|context| {
            self.watch(context);
            if let Some(reason) = self.end() {
                return Poll::Ready(Kept::Ended(reason));
            }
            if self.is_answered() || !self.sent_first.is_some() {
                return Poll::Ready(Kept::Enough);
            }
            let Some(absence) = self.absence.take() else { return Poll::Pending };
            let first = self.sent_first.take();
            Poll::Ready(first.map_or(Kept::Enough, |first| Kept::Absent(absence, first)))
        });
        let kept = timeout_at(until, answered).await.unwrap_or(Kept::Enough);
        self.sent_first.take();
        kept
    }

    /// Whether somebody has spoken just now.
    pub(super) fn is_in_use(&self, now: Instant) -> bool {
        !self.is_ended.get() && now.saturating_duration_since(self.last_spoken()) < IN_USE
    }

    /// Goes on without a task.
    pub(super) fn settle(&self) {
        self.is_settled.set(true);
        self.task.take();
        self.look(Instant::now());
    }

    /// Ends the flow, if it is to end; else it is looked at when its time will be over.
    pub(super) fn look(&self, now: Instant) {
        if !self.is_settled.get() {
            return;
        }
        if let Some(reason) = self.end() {
            return self.finish(reason);
        }
        // A backend that has answered may come back.
        if let Some(absence) = self.absence.take().filter(|_| !self.is_answered()) {
            self.candidate_failed(absence, true);
            return self.finish(reason(absence));
        }
        if now >= self.idle_at() {
            let is_answered = self.is_answered();
            return self.finish(if is_answered { CloseReason::IdleTimeout } else { CloseReason::OneWayTimeout });
        }
        self.set_alarm();
    }

    fn set_alarm(&self) {
        let at = self.idle_at();
        self.worker.udp.tended.set_alarm(self.place.get(), self.alarm.replace(Some(at)), at);
    }

    /// Has ended.
    pub(super) fn finish(&self, reason: CloseReason) {
        let Some(me) = self.worker.udp.tended.let_go(self.place.get(), self.alarm.take()) else { return };
        self.story.borrow_mut().close = reason;
        if let Some(table) = self.table.upgrade() {
            table.remove(&me);
        }
    }

    /// Passes on what the backend has said, and hears what is said of it (`has_errors`); whether there may be more.
    pub(super) fn hear(&self, has_errors: bool) -> bool {
        // What comes now is for another process, or for nobody.
        if self.is_ended.get() {
            return false;
        }
        let mut batch = self.worker.batch.borrow_mut();
        let (received, told) = match &*self.outlet.borrow() {
            Outlet::Open(upstream) => {
                let received = upstream.receive(&mut batch);
                (received, has_errors.then(|| upstream.take_errors()).flatten())
            }
            Outlet::Held(_) | Outlet::Closed => return false,
        };
        if let Some(absence) = told {
            self.is_absent(absence);
        }
        match received {
            Ok(count) => {
                self.answer(&batch, Instant::now());
                count == BATCH
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                if let Some(absence) = Absence::told_by(&error) {
                    self.is_absent(absence);
                }
                true
            }
        }
    }

    /// The backend has said its first.
    pub(super) fn answered_first(&self) {
        // A task waits for that; without one, its time may be over sooner now.
        if !self.is_settled.get() {
            self.wake();
        } else if self.alarm.get().is_some_and(|alarm| self.idle_at() < alarm) {
            self.set_alarm();
        }
        if let Outlet::Open(Upstream { condition: Some(condition), .. }) = &*self.outlet.borrow() {
            let Some(Taken { at: to, .. }) = self.story.borrow().target else { return };
            condition.connected_at(Transport::Udp, to, Instant::now().into_std());
        }
    }

    /// Nobody is at the candidate. `is_last`: there is no other of its backend.
    fn candidate_failed(&self, absence: Absence, is_last: bool) {
        let counters = &self.epoch.counters;
        let mut story = self.story.borrow_mut();
        let outlet = self.outlet.borrow();
        let upstream = if let Outlet::Open(upstream) = &*outlet { Some(upstream) } else { None };
        let upstream = upstream.filter(|_| absence.is_of_candidate());
        if let (Some(Upstream { condition: Some(condition), source, .. }), Some(Taken { at: to, .. })) =
            (upstream, story.target)
        {
            let client = story.client.ip();
            let failed = Failed {
                by: Transport::Udp,
                seen: (*source != SourceUsed::Own).then_some(client),
                client,
                to,
                is_refusal: absence == Absence::Refused,
            };
            condition.failed_at(failed, Instant::now().into_std());
        }
        let Some(backend) = story.backend else { return };
        if is_last {
            counters.backend_failed(backend);
        } else {
            // Its story goes on as if it had not been there; what it was sent is sent again.
            counters.backend_closed(backend);
            (story.target, story.connect, story.header_out, story.bytes_in) = (None, None, HeaderOut::None, 0);
        }
    }
}

/// Why a flow ends where nobody was there.
fn reason(absence: Absence) -> CloseReason {
    match absence {
        Absence::Refused => CloseReason::BackendRefused,
        Absence::Unreachable | Absence::Barred => CloseReason::BackendUnreachable,
    }
}

/// Whether a datagram begins a QUIC connection, as far as its header says.
fn is_initial(datagram: &[u8]) -> bool {
    datagram.len() >= SHORTEST_INITIAL
        && long_header(datagram).is_some_and(|header| header.packet_type == PacketType::Initial)
}
