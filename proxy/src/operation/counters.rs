//! Counters that one worker writes and the control thread reads: no lock, no contended line, no read-modify-write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::close_reason::{CloseReason, ALL_LABELS};
use super::histogram::{Histogram, MICROSECONDS, PREFACE_BYTES, PREFACE_SEGMENTS};
use super::outcomes::{HeaderIn, HeaderOut, Peer, UdpDrop};
use super::protocols;
use crate::config::model::{BackendId, ListenerId, Protocol, RuleId, Transport};
use crate::sniff::Found;

/// A number that only grows. Invariant: one thread adds, any thread reads; so a plain load and store suffice.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; by its one writer.
    pub fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn absorb(&self, other: &Self) {
        self.add(other.get());
    }
}

/// Of one transport (of one listener, or of all).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Traffic {
    /// Connections accepted, flows begun.
    pub opened: Counter,
    /// Those that ended.
    pub closed: Counter,
    /// Payload bytes from clients to backends.
    pub bytes_in: Counter,
    /// Payload bytes from backends to clients.
    pub bytes_out: Counter,
    /// Datagrams from clients.
    pub datagrams_in: Counter,
    /// Datagrams to clients.
    pub datagrams_out: Counter,
}

impl Traffic {
    /// Those that are open.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.opened.get().saturating_sub(self.closed.get())
    }

    pub(super) fn absorb(&self, other: &Self) {
        self.opened.absorb(&other.opened);
        self.closed.absorb(&other.closed);
        self.bytes_in.absorb(&other.bytes_in);
        self.bytes_out.absorb(&other.bytes_out);
        self.datagrams_in.absorb(&other.datagrams_in);
        self.datagrams_out.absorb(&other.datagrams_out);
    }
}

/// Of one listener.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Connections.
    pub tcp: Traffic,
    /// Flows.
    pub udp: Traffic,
    /// Calls to accept that failed (no descriptors, mostly).
    pub accept_errors: Counter,
}

impl ListenerCounters {
    /// Of one transport.
    #[must_use]
    pub const fn of(&self, transport: Transport) -> &Traffic {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Udp => &self.udp,
        }
    }

    pub(super) fn absorb(&self, other: &Self) {
        self.tcp.absorb(&other.tcp);
        self.udp.absorb(&other.udp);
        self.accept_errors.absorb(&other.accept_errors);
    }
}

/// Of one rule.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RuleCounters {
    /// Connections and flows for which it decided.
    pub chosen: Counter,
}

impl RuleCounters {
    pub(super) fn absorb(&self, other: &Self) {
        self.chosen.absorb(&other.chosen);
    }
}

/// Of one backend.
#[derive(Debug)]
#[repr(align(128))]
pub struct BackendCounters {
    /// Connections made, and flows given an upstream socket.
    pub connected: Counter,
    /// Those of them that ended.
    pub closed: Counter,
    /// Candidates that could not be connected to.
    pub failures: Counter,
    /// How long connecting took, in microseconds; of those that succeeded.
    pub connect_time: Histogram,
}

impl Default for BackendCounters {
    fn default() -> Self {
        Self {
            connected: Counter::default(),
            closed: Counter::default(),
            failures: Counter::default(),
            connect_time: Histogram::new(MICROSECONDS),
        }
    }
}

impl BackendCounters {
    /// Connections and flows that it has.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.connected.get().saturating_sub(self.closed.get())
    }

    pub(super) fn absorb(&self, other: &Self) {
        self.connected.absorb(&other.connected);
        self.closed.absorb(&other.closed);
        self.failures.absorb(&other.failures);
        self.connect_time.absorb(&other.connect_time);
    }
}

/// Of the whole worker.
#[derive(Debug)]
#[repr(align(128))]
pub struct GlobalCounters {
    /// Ends of TCP connections by [`CloseReason::index`].
    pub tcp_closed: [Counter; ALL_LABELS.len()],
    /// Ends of UDP flows.
    pub udp_closed: [Counter; ALL_LABELS.len()],
    /// Decisions by [`protocols::place`].
    pub protocols: [Counter; protocols::LABELS.len()],
    /// Hellos that carry an encrypted inner hello, or GREASE that looks like one.
    pub ech: Counter,
    /// Hellos with a post-quantum key share.
    pub post_quantum: Counter,
    /// Bytes read before a decision.
    pub preface_bytes: Histogram,
    /// Reads (datagrams) that a decision took.
    pub preface_segments: Histogram,
    /// Microseconds from accept (or the end of the PROXY header) to a decision.
    pub preface_time: Histogram,
    /// What became of PROXY headers that peers sent or did not.
    pub headers_in: [Counter; HeaderIn::ALL.len()],
    /// PROXY headers that were sent.
    pub headers_out: [Counter; HeaderOut::ALL.len()],
    /// Connections that could be by Multipath TCP, and are; by [`Peer`].
    pub multipath: [Counter; Peer::ALL.len()],
    /// Those of them that are by plain TCP.
    pub fallen_back: [Counter; Peer::ALL.len()],
    /// Datagrams that went nowhere.
    pub udp_drops: [Counter; UdpDrop::ALL.len()],
}

impl Default for GlobalCounters {
    fn default() -> Self {
        Self {
            tcp_closed: std::array::from_fn(|_| Counter::default()),
            udp_closed: std::array::from_fn(|_| Counter::default()),
            protocols: Default::default(),
            ech: Counter::default(),
            post_quantum: Counter::default(),
            preface_bytes: Histogram::new(PREFACE_BYTES),
            preface_segments: Histogram::new(PREFACE_SEGMENTS),
            preface_time: Histogram::new(MICROSECONDS),
            headers_in: Default::default(),
            headers_out: Default::default(),
            multipath: Default::default(),
            fallen_back: Default::default(),
            udp_drops: Default::default(),
        }
    }
}

impl GlobalCounters {
    pub(super) fn absorb(&self, other: &Self) {
        absorb_each(&self.tcp_closed, &other.tcp_closed);
        absorb_each(&self.udp_closed, &other.udp_closed);
        absorb_each(&self.protocols, &other.protocols);
        self.ech.absorb(&other.ech);
        self.post_quantum.absorb(&other.post_quantum);
        self.preface_bytes.absorb(&other.preface_bytes);
        self.preface_segments.absorb(&other.preface_segments);
        self.preface_time.absorb(&other.preface_time);
        absorb_each(&self.headers_in, &other.headers_in);
        absorb_each(&self.headers_out, &other.headers_out);
        absorb_each(&self.multipath, &other.multipath);
        absorb_each(&self.fallen_back, &other.fallen_back);
        absorb_each(&self.udp_drops, &other.udp_drops);
    }
}

fn absorb_each(mine: &[Counter], theirs: &[Counter]) {
    mine.iter().zip(theirs).for_each(|(mine, theirs)| mine.absorb(theirs));
}

/// All that one worker counts under one configuration. An identifier of another configuration counts nothing.
#[derive(Debug)]
pub struct WorkerCounters {
    pub(super) global: GlobalCounters,
    pub(super) listeners: Box<[ListenerCounters]>,
    pub(super) rules: Box<[RuleCounters]>,
    pub(super) backends: Box<[BackendCounters]>,
}

impl WorkerCounters {
    pub(super) fn new(listeners: usize, rules: usize, backends: usize) -> Self {
        Self {
            global: GlobalCounters::default(),
            listeners: (0..listeners).map(|_| ListenerCounters::default()).collect(),
            rules: (0..rules).map(|_| RuleCounters::default()).collect(),
            backends: (0..backends).map(|_| BackendCounters::default()).collect(),
        }
    }

    /// Of one listener and transport.
    #[must_use]
    pub fn traffic(&self, listener: ListenerId, transport: Transport) -> Option<&Traffic> {
        self.listeners.get(listener.0).map(|counters| counters.of(transport))
    }

    /// Of one backend.
    #[must_use]
    pub fn backend(&self, backend: BackendId) -> Option<&BackendCounters> {
        self.backends.get(backend.0)
    }

    /// A connection was accepted, or a flow begun.
    pub fn opened(&self, listener: ListenerId, transport: Transport) {
        if let Some(traffic) = self.traffic(listener, transport) {
            traffic.opened.add(1);
        }
    }

    /// It ended; once for each that was opened.
    pub fn closed(&self, listener: ListenerId, transport: Transport, reason: CloseReason) {
        if let Some(traffic) = self.traffic(listener, transport) {
            traffic.closed.add(1);
        }
        let reasons = match transport {
            Transport::Tcp => &self.global.tcp_closed,
            Transport::Udp => &self.global.udp_closed,
        };
        add(reasons, reason.index(), 1);
    }

    /// Payload went to the backend (`to_backend`) and to the client (`to_client`).
    pub fn carried(&self, listener: ListenerId, transport: Transport, to_backend: u64, to_client: u64) {
        if let Some(traffic) = self.traffic(listener, transport) {
            traffic.bytes_in.add(to_backend);
            traffic.bytes_out.add(to_client);
        }
    }

    /// Datagrams came from clients (`from_clients`) and went to them; their bytes are told by [`Self::carried`].
    pub fn datagrams(&self, listener: ListenerId, from_clients: u64, to_clients: u64) {
        if let Some(traffic) = self.traffic(listener, Transport::Udp) {
            traffic.datagrams_in.add(from_clients);
            traffic.datagrams_out.add(to_clients);
        }
    }

    /// Datagrams went nowhere.
    pub fn datagrams_dropped(&self, why: UdpDrop, datagrams: u64) {
        add(&self.global.udp_drops, why as usize, datagrams);
    }

    /// Accept failed.
    pub fn accept_failed(&self, listener: ListenerId) {
        if let Some(counters) = self.listeners.get(listener.0) {
            counters.accept_errors.add(1);
        }
    }

    /// What became of the PROXY header at the beginning of a connection, or of a datagram.
    pub fn header_in(&self, outcome: HeaderIn) {
        add(&self.global.headers_in, outcome as usize, 1);
    }

    /// A PROXY header was sent.
    pub fn header_out(&self, form: HeaderOut) {
        add(&self.global.headers_out, form as usize, 1);
    }

    /// A connection where Multipath TCP is asked for began; whether it is by that.
    pub fn multipath(&self, peer: Peer, is_multipath: bool) {
        let counters = if is_multipath { &self.global.multipath } else { &self.global.fallen_back };
        add(counters, peer as usize, 1);
    }

    /// It was decided what is spoken, from so many bytes in so many reads (datagrams), after so long.
    pub fn preface(&self, spoken: Option<&(Protocol, Found)>, bytes: usize, segments: usize, after: Duration) {
        add(&self.global.protocols, protocols::place(spoken.map(|(protocol, _)| *protocol)), 1);
        if let Some((_, found)) = spoken {
            self.global.ech.add(u64::from(found.ech));
            self.global.post_quantum.add(u64::from(found.post_quantum));
        }
        self.global.preface_bytes.observe(number(bytes));
        self.global.preface_segments.observe(number(segments));
        self.global.preface_time.observe(microseconds(after));
    }

    /// A rule decided.
    pub fn rule_chosen(&self, rule: RuleId) {
        if let Some(counters) = self.rules.get(rule.0) {
            counters.chosen.add(1);
        }
    }

    /// A candidate of a backend was connected to.
    pub fn backend_connected(&self, backend: BackendId, after: Duration) {
        if let Some(counters) = self.backend(backend) {
            counters.connected.add(1);
            counters.connect_time.observe(microseconds(after));
        }
    }

    /// A candidate of a backend could not be connected to.
    pub fn backend_failed(&self, backend: BackendId) {
        if let Some(counters) = self.backend(backend) {
            counters.failures.add(1);
        }
    }

    /// A connection that [`Self::backend_connected`] told of ended.
    pub fn backend_closed(&self, backend: BackendId) {
        if let Some(counters) = self.backend(backend) {
            counters.closed.add(1);
        }
    }
}

fn add(counters: &[Counter], place: usize, amount: u64) {
    if let Some(counter) = counters.get(place) {
        counter.add(amount);
    }
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
