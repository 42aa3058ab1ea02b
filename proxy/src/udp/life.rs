//! A flow's life: decide, open the way to a backend, send what was held, pass on answers until nobody speaks any more.

use std::future::{poll_fn, Future};
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::{sleep_until, timeout_at, Instant};

use crate::config::model::{Arrival, BackendId, Protocol, Transport};
use crate::operation::outcomes::UdpDrop;
use crate::operation::CloseReason;
use crate::route::{decide, final_decision, Arrived, Captures, Decision};
use crate::sniff::quic_header::{long_header, PacketType};
use crate::tcp::dial::{failure, seen_client, Caller};
use crate::transparent::socket::udp_from;

use super::dial::{Choice, Search};
use super::flow::{Flow, Outlet};
use super::held::Held;
use super::upstream::{news, receive, Header, Upstream};

/// Batches of answers that a flow takes before others have their turn.
const BATCHES_IN_A_ROW: usize = 4;

/// The shortest datagram with a client's Initial packet (RFC 9000 section 14.1).
const SHORTEST_INITIAL: usize = 1200;

/// What is needed to begin anew with another candidate: where a backend's host says that nobody is there, nobody has seen
/// the first datagrams.
struct Retry {
    search: Box<Search>,
    first: Box<Held>,
    until: Instant,
}

/// How the answers ended.
enum Ended {
    Wholly(CloseReason),
    Refused(Option<Box<Retry>>),
}

impl Flow {
    /// Lives; why it ends.
    pub(crate) async fn live(&self) -> CloseReason {
        if matches!(*self.outlet.borrow(), Outlet::Open(_)) {
            return self.live_on().await;
        }
        // Boxed: what a flow needs before it runs would be with it for as long as it lives.
        let mut search = match Box::pin(self.unless_ended(self.decide())).await {
            Ok((backend, captures)) => {
                let story = self.story.borrow();
                Box::new(Search::new(story.client, story.original_dst, captures, backend))
            }
            Err(reason) => return self.unsent(reason),
        };
        loop {
            let opened = Box::pin(self.unless_ended(self.open(&mut search))).await;
            let first = match opened {
                Ok(upstream) => self.release(upstream),
                Err(reason) => return self.unsent(reason),
            };
            let retry = first.filter(|_| !search.is_over()).map(|first| {
                let until = Instant::now() + self.patience();
                Box::new(Retry { search, first, until })
            });
            match self.pass_answers(retry).await {
                Ended::Wholly(reason) => return reason,
                Ended::Refused(retry) => {
                    self.candidate_failed(retry.is_none());
                    let Some(retry) = retry else { return CloseReason::BackendRefused };
                    *self.outlet.borrow_mut() = Outlet::Held(retry.first);
                    search = retry.search;
                    search.reason = CloseReason::BackendRefused;
                }
            }
        }
    }

    /// The life of a flow that has its way to a backend from an earlier process. Its first datagrams are not known here.
    async fn live_on(&self) -> CloseReason {
        match self.pass_answers(None).await {
            Ended::Wholly(reason) => reason,
            Ended::Refused(_) => {
                self.candidate_failed(true);
                CloseReason::BackendRefused
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
            let (protocol, ech) =
                story.spoken.as_deref().map_or((None, false), |(spoken, found)| (Some(*spoken), found.ech));
            counters.preface(protocol, datagrams.iter().map(Vec::len).sum(), datagrams.len(), took, ech);
            self.is_quic.set(protocol == Some(Protocol::Quic) || datagrams.iter().any(|datagram| is_initial(datagram)));
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
                    story.target = Some((choice.to, upstream.source));
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
            Caller { client, original_dst, arrival, captures, speaks_at_once: true },
            to,
        );
        let found =
            udp_from(seen, chosen.source, to, &self.worker.udp_endpoints).map_err(|error| failure(&error).reason)?;
        let header = Header::of(chosen.send_proxy_udp, client, original_dst);
        let candidate = self.epoch.generation.candidates(id).get(candidate);
        Upstream::open(found, header, !self.is_quic.get(), candidate)
            .map_err(|error| CloseReason::IoError(error.kind()))
    }

    /// Sends what was held, and all that follows, by a new socket; gives what was held.
    fn release(&self, mut upstream: Upstream) -> Option<Box<Held>> {
        let held = mem::replace(&mut *self.outlet.borrow_mut(), Outlet::Closed);
        let Outlet::Held(held) = held else { return None };
        self.is_refused.set(false);
        let sent = upstream.send(held.datagrams());
        *self.outlet.borrow_mut() = Outlet::Open(upstream);
        self.sent_up(sent);
        Some(held)
    }

    /// How long the first datagrams are kept for another candidate.
    fn patience(&self) -> std::time::Duration {
        let backend = self.story.borrow().backend.and_then(|id| self.epoch.config().backends.get(id.0));
        backend.map_or(std::time::Duration::ZERO, |backend| backend.connect_timeout)
    }

    /// Passes on answers until the flow ends, or the backend is found not to be there before it has answered.
    async fn pass_answers(&self, mut retry: Option<Box<Retry>>) -> Ended {
        let socket = match &*self.outlet.borrow() {
            Outlet::Open(upstream) => Rc::clone(&upstream.socket),
            Outlet::Held(_) | Outlet::Closed => return Ended::Wholly(CloseReason::BackendUnreachable),
        };
        let mut heard = pin!(news(&socket));
        let mut clock = pin!(sleep_until(self.idle_at()));
        let mut was_answered = false;
        poll_fn(|context| {
            self.watch(context);
            for _ in 0..BATCHES_IN_A_ROW {
                if let Some(reason) = self.end() {
                    return Poll::Ready(Ended::Wholly(reason));
                }
                match heard.as_mut().poll(context) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Ended::Wholly(CloseReason::IoError(error.kind()))),
                    Poll::Ready(Ok(what)) => {
                        heard.set(news(&socket));
                        let mut batch = self.worker.batch.borrow_mut();
                        let received = receive(&socket, what, &mut batch);
                        if received.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
                            self.is_refused.set(true);
                        }
                        if !batch.is_empty() {
                            self.answer(&batch, Instant::now());
                        }
                        continue;
                    }
                    Poll::Pending => {}
                }
                // A backend that has answered may come back.
                if self.is_refused.take() && !self.is_answered() {
                    return Poll::Ready(Ended::Refused(retry.take()));
                }
                if self.is_answered() && !was_answered {
                    (was_answered, retry) = (true, None);
                    self.candidate_answered();
                    clock.as_mut().reset(self.idle_at());
                }
                let until = retry.as_ref().map_or(self.idle_at(), |retry| retry.until.min(self.idle_at()));
                if clock.deadline() > until {
                    clock.as_mut().reset(until);
                }
                if clock.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                if now >= self.idle_at() {
                    let is_answered = self.is_answered();
                    let reason = if is_answered { CloseReason::IdleTimeout } else { CloseReason::OneWayTimeout };
                    return Poll::Ready(Ended::Wholly(reason));
                }
                retry = retry.take().filter(|retry| now < retry.until);
                clock.as_mut().reset(retry.as_ref().map_or(self.idle_at(), |retry| retry.until.min(self.idle_at())));
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    fn candidate_answered(&self) {
        if let Outlet::Open(Upstream { condition: Some(condition), .. }) = &*self.outlet.borrow() {
            condition.connected();
        }
    }

    /// Nobody is at the candidate. `is_last`: there is no other of its backend.
    fn candidate_failed(&self, is_last: bool) {
        if let Outlet::Open(Upstream { condition: Some(condition), .. }) = &*self.outlet.borrow() {
            condition.failed(Instant::now().into_std());
        }
        let counters = &self.epoch.counters;
        if let Some(backend) = self.story.borrow().backend {
            if is_last {
                counters.backend_failed(backend);
            } else {
                // Its story goes on with another one.
                counters.backend_closed(backend);
            }
        }
    }
}

/// Whether a datagram begins a QUIC connection, as far as its header says.
fn is_initial(datagram: &[u8]) -> bool {
    datagram.len() >= SHORTEST_INITIAL
        && long_header(datagram).is_some_and(|header| header.packet_type == PacketType::Initial)
}
