//! The NAT itself: what becomes of each packet. Pure: the time is an argument, randomness is seeded, no descriptor.
//!
//! ```text
//! mapping   inside endpoint (+ as much of the far one as `mapping` says)  <->  outside endpoint, of it alone
//! session   outside endpoint + far endpoint: TCP state and deadline; a mapping lives as long as one of its sessions
//! ```
//!
//! A packet from inside goes by its session if there is one, so that answers to a packet that was let in leave by the
//! endpoint it came to, whatever the mapping behaviour; else by a forward, else by a mapping, else by a new one.

mod entries;
mod fate;
mod icmp_errors;
mod ports;
mod routers_own;
mod session;
mod state;
mod subscriber;
#[cfg(test)]
mod tests;

use std::net::SocketAddrV4;
use std::time::Duration;

pub use entries::{MappingEntry, SessionEntry};
pub use fate::{Counters, Drop, Fate, Mark, Passage};
pub use state::Table;

use crate::packet::{Flow, Packet, Signal};
use crate::rewrite::Rewrite;
use crate::settings::{Dependence, Hairpin, TcpUnsolicited, Unmapped};
use session::{Direction, Owner, SessionKey};
use state::{FlowKey, OutsideKey};

/// Why a packet does not get in.
enum Refusal {
    NoMapping,
    Filtered,
    Full(Drop),
}

impl Table {
    /// What becomes of a packet at `now` (since any fixed moment; it never goes back).
    pub fn decide(&mut self, now: Duration, passage: Passage, packet: &Packet) -> Fate {
        self.expire(now);
        let fate = match passage {
            Passage::Outbound => self.outbound(now, packet),
            Passage::Inbound => self.inbound(now, packet),
            Passage::Hairpin => self.hairpin(now, packet),
            Passage::HairpinSource => self.hairpin_source(packet),
        };
        self.counters.count(passage, &fate);
        fate
    }

    fn outbound(&mut self, now: Duration, packet: &Packet) -> Fate {
        match packet {
            Packet::Flow { flow, signal } if self.is_routers_own(*flow.source.ip()) => {
                self.observe_routers_own(now, flow, *signal);
                Fate::Pass
            }
            Packet::Flow { flow, signal } => match self.outside_of(now, flow, *signal) {
                Ok(outside) => {
                    let rewrite = Rewrite { source: Some(outside), ..Rewrite::default() };
                    Fate::Translate { rewrite, mark: Mark::None }
                }
                Err(reason) => Fate::Drop(reason),
            },
            Packet::Error { from, about, is_unreachable_or_exceeded, .. } => {
                self.outbound_error(*from, about, *is_unreachable_or_exceeded)
            }
            Packet::Other { source } if self.is_routers_own(*source) => Fate::Pass,
            Packet::Other { .. } => Fate::Drop(Drop::OtherProtocol),
        }
    }

    fn inbound(&mut self, now: Duration, packet: &Packet) -> Fate {
        let (flow, signal) = match packet {
            Packet::Flow { signal: Signal::Query, .. } | Packet::Other { .. } => return Fate::Pass,
            Packet::Error { about, is_unreachable_or_exceeded, .. } => {
                return self.inbound_error(about, *is_unreachable_or_exceeded)
            }
            Packet::Flow { flow, signal } => (flow, *signal),
        };
        if self.is_routers_session(now, flow, signal) {
            return Fate::Pass;
        }
        match self.admit(now, flow, flow.source, signal) {
            Ok(inside) => {
                let rewrite = Rewrite { destination: Some(inside), ..Rewrite::default() };
                Fate::Translate { rewrite, mark: Mark::Admitted }
            }
            Err(refusal) => self.refused(&refusal, signal),
        }
    }

    /// From inside to an outside address: out by the sender's mapping and in by the receiver's, if there is one.
    fn hairpin(&mut self, now: Duration, packet: &Packet) -> Fate {
        if self.settings.hairpin == Hairpin::None {
            return Fate::Pass;
        }
        let (flow, signal) = match packet {
            Packet::Error { about, is_unreachable_or_exceeded, .. } => {
                return self.hairpin_error(about, *is_unreachable_or_exceeded)
            }
            Packet::Flow { flow, signal: signal @ (Signal::Datagram | Signal::Segment(_)) } => (flow, *signal),
            Packet::Flow { .. } | Packet::Other { .. } => return Fate::Pass,
        };
        let is_mapped = self.mappings.contains_key(&OutsideKey::of(flow.protocol, flow.destination));
        if !is_mapped || self.is_routers_own(*flow.source.ip()) {
            return Fate::Pass;
        }
        let outside = match self.outside_of(now, flow, signal) {
            Ok(outside) => outside,
            Err(reason) => return Fate::Drop(reason),
        };
        match self.admit(now, flow, outside, signal) {
            Ok(inside) => {
                self.pair_hairpin(flow, outside, inside);
                let rewrite = Rewrite { destination: Some(inside), ..Rewrite::default() };
                Fate::Translate { rewrite, mark: Mark::Hairpin }
            }
            Err(refusal) => self.refused(&refusal, signal),
        }
    }

    /// A hairpinned packet once more, on its way in: its source becomes the sender's outside endpoint.
    fn hairpin_source(&mut self, packet: &Packet) -> Fate {
        if self.settings.hairpin != Hairpin::ExternalSource {
            return Fate::Pass;
        }
        let rewrite = match packet {
            Packet::Flow { flow, .. } => {
                let outside = self.hairpins.get(&FlowKey::of(flow)).copied();
                outside.map(|outside| Rewrite { source: Some(outside), ..Rewrite::default() })
            }
            Packet::Error { about, .. } => self.hairpin_error_source(about),
            Packet::Other { .. } => return Fate::Pass,
        };
        rewrite.map_or(Fate::Drop(Drop::NoSession), |rewrite| Fate::Translate { rewrite, mark: Mark::None })
    }

    /// The outside endpoint that a packet from inside leaves by; made if need be.
    fn outside_of(&mut self, now: Duration, flow: &Flow, signal: Signal) -> Result<SocketAddrV4, Drop> {
        let (inside, remote) = (flow.source, flow.destination);
        if let Some(outside) = self.flows.get(&FlowKey::of(flow)).copied() {
            let key = SessionKey { protocol: flow.protocol, outside, remote };
            self.observe(now, key, Direction::Outbound, signal);
            return Ok(outside);
        }
        let cannot_begin = match signal {
            Signal::Answer => true,
            Signal::Segment(flags) => flags.rst,
            Signal::Datagram | Signal::Query => false,
        };
        if cannot_begin {
            return Err(Drop::NoSession);
        }
        self.check_room(*inside.ip())?;
        let outside = self.mapped(flow)?;
        let key = SessionKey { protocol: flow.protocol, outside, remote };
        if !self.sessions.contains_key(&key) {
            self.begin(key, Owner::Inside(inside));
        }
        self.observe(now, key, Direction::Outbound, signal);
        Ok(outside)
    }

    /// Whether a packet may go in to the outside endpoint `flow.destination`. Its sender, as that is seen from there,
    /// is `remote`.
    fn admit(
        &mut self,
        now: Duration,
        flow: &Flow,
        remote: SocketAddrV4,
        signal: Signal,
    ) -> Result<SocketAddrV4, Refusal> {
        let mapped = OutsideKey::of(flow.protocol, flow.destination);
        let Some(mapping) = self.mappings.get(&mapped) else { return Err(Refusal::NoMapping) };
        let (inside, is_forward) = (mapping.inside, mapping.is_forward);
        let key = SessionKey { protocol: flow.protocol, outside: flow.destination, remote };
        let found = self.sessions.get(&key);
        let is_known = found.is_some();
        let has_sent = found.is_some_and(|session| session.has_sent);
        if !(is_forward || has_sent || self.filter_admits(mapped, remote)) {
            return Err(Refusal::Filtered);
        }
        if !is_known {
            let can_begin = match signal {
                // A forward leads inside whoever sends, so it takes up connections that a restart made it forget.
                Signal::Segment(flags) => flags.is_opening() || (is_forward && !flags.rst),
                Signal::Datagram | Signal::Query | Signal::Answer => true,
            };
            if !can_begin {
                return Err(Refusal::Filtered);
            }
            self.check_room(*inside.ip()).map_err(Refusal::Full)?;
            if !self.has_room_for_unasked() {
                return Err(Refusal::Full(Drop::TableFull));
            }
            self.begin(key, Owner::Inside(inside));
            self.grant_rest_of_mapping(now, key);
        }
        self.observe(now, key, Direction::Inbound, signal);
        Ok(inside)
    }

    /// For an endpoint that the inside has not sent to by this very mapping and session.
    fn filter_admits(&self, mapped: OutsideKey, remote: SocketAddrV4) -> bool {
        match self.settings.filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => self.contacts.contains_key(&(mapped, *remote.ip())),
            Dependence::AddressAndPortDependent => false,
        }
    }

    fn refused(&self, refusal: &Refusal, signal: Signal) -> Fate {
        let is_opening = matches!(signal, Signal::Segment(flags) if flags.is_opening());
        match (refusal, self.settings.tcp_unsolicited) {
            (Refusal::Full(reason), _) => Fate::Drop(*reason),
            (Refusal::NoMapping, _) if self.settings.unmapped == Unmapped::Drop => Fate::Drop(Drop::Unmapped),
            (Refusal::NoMapping, _) => Fate::Pass,
            (Refusal::Filtered, TcpUnsolicited::Reset) if is_opening => Fate::Reset,
            (Refusal::Filtered, TcpUnsolicited::Pass) if is_opening => Fate::Pass,
            (Refusal::Filtered, _) => Fate::Drop(Drop::Filtered),
        }
    }
}
