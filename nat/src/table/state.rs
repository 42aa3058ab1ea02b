//! What the table knows: mappings, sessions and their indices, kept in step here and nowhere else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::fate::{Counters, Drop};
use super::ports::Ports;
use super::session::{Direction, Owner, Session, SessionKey};
use super::subscriber::Subscribers;
use crate::packet::{Flow, Protocol, Signal};
use crate::settings::{Dependence, Hairpin, Refresh, Settings};

/// The most sessions of all inside hosts together; about 50 MB.
const MOST_SESSIONS: usize = 131_072;

/// An outside endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct OutsideKey(pub(super) Protocol, pub(super) SocketAddrV4);

impl OutsideKey {
    pub(super) fn of(protocol: Protocol, outside: SocketAddrV4) -> Self {
        Self(protocol, outside)
    }
}

/// An inside endpoint and a far one; of a far one, what the mapping behaviour does not look at is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    protocol: Protocol,
    inside: SocketAddrV4,
    remote: SocketAddrV4,
}

impl FlowKey {
    pub(super) fn of(flow: &Flow) -> Self {
        Self::between(flow.protocol, flow.source, flow.destination)
    }

    pub(super) fn between(protocol: Protocol, inside: SocketAddrV4, remote: SocketAddrV4) -> Self {
        Self { protocol, inside, remote }
    }

    fn reduced(mut self, mapping: Dependence) -> Self {
        self.remote = match mapping {
            Dependence::EndpointIndependent => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
            Dependence::AddressDependent => SocketAddrV4::new(*self.remote.ip(), 0),
            Dependence::AddressAndPortDependent => self.remote,
        };
        self
    }
}

#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) inside: SocketAddrV4,
    pub(super) is_forward: bool,
    /// What leads here from inside; None for a forward.
    key: Option<FlowKey>,
    sessions: u32,
    /// The latest deadline of its sessions, kept where only packets from inside extend it.
    until: Duration,
}

/// All state of one NAT.
#[derive(Debug)]
pub struct Table {
    pub(super) settings: Settings,
    pub(super) mappings: HashMap<OutsideKey, Mapping>,
    pub(super) sessions: HashMap<SessionKey, Session>,
    /// Of each pair of inside and far endpoint, the outside endpoint that its session goes by.
    pub(super) flows: HashMap<FlowKey, SocketAddrV4>,
    /// Far addresses that a mapping has sent to, with the number of its sessions that did.
    pub(super) contacts: HashMap<(OutsideKey, Ipv4Addr), u32>,
    /// Sender and receiver of hairpinned packets, with the sender's outside endpoint.
    pub(super) hairpins: HashMap<FlowKey, SocketAddrV4>,
    pub(super) counters: Counters,
    dynamic: HashMap<FlowKey, SocketAddrV4>,
    /// Inside endpoints of forwards, with their first outside port.
    forwarded: HashMap<(Protocol, SocketAddrV4), u16>,
    routers: HashMap<OutsideKey, u32>,
    ports: Ports,
    subscribers: Subscribers,
    deadlines: BinaryHeap<Reverse<(Duration, SessionKey)>>,
    pub(super) most_sessions: usize,
    /// Sessions in which no inside host has spoken: those that strangers began, and the router's own.
    unasked: usize,
    /// The router's addresses on the outside; those of the NAT are of them.
    pub(super) own: Vec<Ipv4Addr>,
    seed: u64,
}

impl Table {
    /// An empty table with its forwards. The seed is for random ports.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut table = Self {
            ports: Ports::new(settings.ports, seed),
            settings,
            mappings: HashMap::new(),
            sessions: HashMap::new(),
            flows: HashMap::new(),
            contacts: HashMap::new(),
            hairpins: HashMap::new(),
            counters: Counters::default(),
            dynamic: HashMap::new(),
            forwarded: HashMap::new(),
            routers: HashMap::new(),
            subscribers: Subscribers::new(),
            deadlines: BinaryHeap::new(),
            most_sessions: MOST_SESSIONS,
            unasked: 0,
            own: Vec::new(),
            seed,
        };
        table.lay_forwards();
        table
    }

    /// The same with another limit on all sessions together.
    #[must_use]
    pub fn with_most_sessions(mut self, most: usize) -> Self {
        self.most_sessions = most;
        self
    }

    /// The same for a router with these addresses on the outside: what it sends from them is its own.
    #[must_use]
    pub fn with_own(mut self, addresses: Vec<Ipv4Addr>) -> Self {
        self.own = addresses;
        self
    }

    /// Forgets every mapping and session, as a NAT that restarts does; forwards and counters stay.
    pub fn flush(&mut self) {
        let counters = std::mem::take(&mut self.counters);
        // Random ports go on where they were, for a restart does not give the same ones again.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let own = std::mem::take(&mut self.own);
        let fresh = Self::new(self.settings.clone(), self.seed).with_most_sessions(self.most_sessions);
        *self = fresh.with_own(own);
        self.counters = counters;
    }

    /// Ends every session whose deadline is not after `now`.
    pub fn expire(&mut self, now: Duration) {
        while let Some(Reverse((at, key))) = self.deadlines.peek().copied() {
            if at > now {
                return;
            }
            self.deadlines.pop();
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            if session.looked_at != at {
                continue; // an entry of a session that has another, or of one that ended
            }
            if session.deadline > now {
                session.looked_at = session.deadline;
                self.deadlines.push(Reverse((session.deadline, key)));
            } else {
                self.end(key);
            }
        }
    }

    /// What happened to packets so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Notes a packet that could not be read and was dropped.
    pub fn count_unreadable(&mut self) {
        *self.counters.dropped.entry(Drop::Unreadable).or_default() += 1;
    }

    pub(super) fn check_room(&self, inside: Ipv4Addr) -> Result<(), Drop> {
        if self.sessions.len() >= self.most_sessions {
            return Err(Drop::TableFull);
        }
        match self.settings.sessions_per_subscriber {
            Some(most) if self.subscribers.sessions_of(inside) >= most => Err(Drop::SubscriberFull),
            _ => Ok(()),
        }
    }

    /// Whether a session may begin in which no inside host has spoken yet. Such take half of the room at most: anybody
    /// outside can begin them, without end.
    pub(super) fn has_room_for_unasked(&self) -> bool {
        self.sessions.len() < self.most_sessions && self.unasked < self.most_sessions / 2
    }

    /// The outside endpoint of an inside one towards a far one: a forward's, a mapping's, or a new one.
    pub(super) fn mapped(&mut self, flow: &Flow) -> Result<SocketAddrV4, Drop> {
        let inside = flow.source;
        if let Some(port) = self.forwarded.get(&(flow.protocol, inside)).copied() {
            let address = self.subscribers.address_of_forward(*inside.ip(), &self.settings);
            return address.map(|address| SocketAddrV4::new(address, port)).ok_or(Drop::NoPort);
        }
        let key = FlowKey::of(flow).reduced(self.settings.mapping);
        if let Some(outside) = self.dynamic.get(&key) {
            return Ok(*outside);
        }
        let Some(outside) = self.take_port(flow.protocol, inside) else {
            self.subscribers.forget_idle(*inside.ip());
            return Err(Drop::NoPort);
        };
        let mapping = Mapping { inside, is_forward: false, key: Some(key), sessions: 0, until: Duration::ZERO };
        self.mappings.insert(OutsideKey::of(flow.protocol, outside), mapping);
        self.dynamic.insert(key, outside);
        Ok(outside)
    }

    pub(super) fn begin(&mut self, key: SessionKey, owner: Owner) {
        let outside = OutsideKey::of(key.protocol, key.outside);
        match owner {
            Owner::Inside(inside) => {
                self.subscribers.add_session(*inside.ip());
                let flow = FlowKey::between(key.protocol, inside, key.remote);
                self.flows.entry(flow).or_insert(key.outside);
                if let Some(mapping) = self.mappings.get_mut(&outside) {
                    mapping.sessions += 1;
                }
            }
            Owner::Router => {
                *self.routers.entry(outside).or_default() += 1;
                self.ports.set(key.protocol, key.outside, true);
            }
        }
        self.unasked += 1;
        self.sessions.insert(key, Session::new(owner));
    }

    /// Takes a packet of a session into account.
    pub(super) fn observe(&mut self, now: Duration, key: SessionKey, direction: Direction, signal: Signal) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let outside = OutsideKey::of(key.protocol, key.outside);
        let timers = &self.settings.timers;
        let extended = session.observe(now, direction, signal, key.remote, timers, self.settings.refresh);
        if session.deadline < session.looked_at {
            session.looked_at = session.deadline;
            self.deadlines.push(Reverse((session.deadline, key)));
        }
        if direction == Direction::Outbound && !session.has_sent && session.owner != Owner::Router {
            session.has_sent = true;
            self.unasked = self.unasked.saturating_sub(1);
            *self.contacts.entry((outside, *key.remote.ip())).or_default() += 1;
        }
        if self.settings.refresh == Refresh::Outbound {
            if let (Some(deadline), Some(mapping)) = (extended, self.mappings.get_mut(&outside)) {
                mapping.until = mapping.until.max(deadline);
            }
        }
    }

    /// Where packets from outside extend nothing, a session that one of them begins ends with the mapping's others.
    pub(super) fn grant_rest_of_mapping(&mut self, now: Duration, key: SessionKey) {
        let Some(mapping) = self.mappings.get(&OutsideKey::of(key.protocol, key.outside)) else { return };
        let lifetime = match key.protocol {
            Protocol::Tcp => return,
            Protocol::Udp => self.settings.timers.udp,
            Protocol::Icmp => self.settings.timers.icmp,
        };
        let whole = now.saturating_add(lifetime);
        let granted = if mapping.is_forward { whole } else { whole.min(mapping.until) };
        if let Some(session) = self.sessions.get_mut(&key) {
            session.deadline = granted;
        }
    }

    /// Remembers by which outside endpoint the sender of a hairpinned flow is known to its receiver.
    pub(super) fn pair_hairpin(&mut self, flow: &Flow, outside: SocketAddrV4, receiver: SocketAddrV4) {
        if self.settings.hairpin != Hairpin::ExternalSource {
            return;
        }
        let key = SessionKey { protocol: flow.protocol, outside, remote: flow.destination };
        if let Some(session) = self.sessions.get_mut(&key) {
            session.hairpin = Some(receiver);
            self.hairpins.insert(FlowKey::between(flow.protocol, flow.source, receiver), outside);
        }
    }

    /// Whether nothing is left of any session.
    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        let is_empty = self.dynamic.is_empty() && self.routers.is_empty() && self.deadlines.is_empty();
        is_empty && self.subscribers.is_empty() && self.unasked == 0
    }

    #[cfg(test)]
    pub(super) fn deadlines_held(&self) -> usize {
        self.deadlines.len()
    }

    fn lay_forwards(&mut self) {
        for forward in self.settings.forwards.clone() {
            self.forwarded.entry((forward.protocol, forward.to)).or_insert(forward.port);
            for address in self.settings.addresses.clone() {
                let outside = SocketAddrV4::new(address, forward.port);
                self.ports.set(forward.protocol, outside, true);
                let mapping =
                    Mapping { inside: forward.to, is_forward: true, key: None, sessions: 0, until: Duration::ZERO };
                self.mappings.insert(OutsideKey::of(forward.protocol, outside), mapping);
            }
        }
    }

    fn take_port(&mut self, protocol: Protocol, inside: SocketAddrV4) -> Option<SocketAddrV4> {
        if let Some(size) = self.settings.block_size {
            let block = self.subscribers.block_of(*inside.ip(), size, &self.settings)?;
            let port = self.ports.take(protocol, block.address, Some(block.span), inside.port())?;
            return Some(SocketAddrV4::new(block.address, port));
        }
        let addresses = self.subscribers.addresses_for(*inside.ip(), &self.settings);
        addresses.into_iter().find_map(|address| {
            let port = self.ports.take(protocol, address, None, inside.port())?;
            Some(SocketAddrV4::new(address, port))
        })
    }

    fn end(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.remove(&key) else { return };
        let outside = OutsideKey::of(key.protocol, key.outside);
        if session.has_sent {
            decrement(&mut self.contacts, &(outside, *key.remote.ip()));
        } else {
            self.unasked = self.unasked.saturating_sub(1);
        }
        match session.owner {
            Owner::Router => {
                let is_free = decrement(&mut self.routers, &outside) && !self.mappings.contains_key(&outside);
                if is_free {
                    self.ports.set(key.protocol, key.outside, false);
                }
            }
            Owner::Inside(inside) => {
                remove_if(&mut self.flows, &FlowKey::between(key.protocol, inside, key.remote), key.outside);
                if let Some(receiver) = session.hairpin {
                    remove_if(&mut self.hairpins, &FlowKey::between(key.protocol, inside, receiver), key.outside);
                }
                self.subscribers.remove_session(*inside.ip());
                self.leave(outside);
            }
        }
    }

    /// One session less; a mapping ends with its last.
    fn leave(&mut self, outside: OutsideKey) {
        let Some(mapping) = self.mappings.get_mut(&outside) else { return };
        mapping.sessions = mapping.sessions.saturating_sub(1);
        let (0, Some(key)) = (mapping.sessions, mapping.key) else { return };
        self.mappings.remove(&outside);
        self.dynamic.remove(&key);
        if !self.routers.contains_key(&outside) {
            self.ports.set(outside.0, outside.1, false);
        }
    }
}

/// Counts down; true when it was the last.
fn decrement<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        counts.remove(key);
    }
    is_last
}

fn remove_if(map: &mut HashMap<FlowKey, SocketAddrV4>, key: &FlowKey, value: SocketAddrV4) {
    if map.get(key) == Some(&value) {
        map.remove(key);
    }
}
