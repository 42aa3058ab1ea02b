//! The router's own sockets: never translated, but a port that one of them uses is not given to an inside host, and what
//! comes back to it is not taken for a mapping's.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::session::{Direction, Owner, SessionKey};
use super::state::Table;
use crate::packet::{Flow, Signal};

impl Table {
    /// Whether an address is none of an inside host: the router's own, or not yet any.
    pub(super) fn is_routers_own(&self, address: Ipv4Addr) -> bool {
        self.settings.is_outside(address) || self.own.contains(&address) || address.is_unspecified()
    }

    /// Sessions of the router's own sockets, so that their ports are not given to others.
    pub(super) fn observe_routers_own(&mut self, now: Duration, flow: &Flow, signal: Signal) {
        let key = SessionKey { protocol: flow.protocol, outside: flow.source, remote: flow.destination };
        let begins_none = match signal {
            Signal::Answer => true,
            Signal::Segment(flags) => flags.rst,
            Signal::Datagram | Signal::Query => false,
        };
        let owner = self.sessions.get(&key).map(|session| session.owner);
        if owner.is_none() {
            let is_shared = self.settings.is_outside(*flow.source.ip());
            if begins_none || !is_shared || flow.source.port() == 0 || !self.has_room_for_unasked() {
                return;
            }
            self.begin(key, Owner::Router);
        } else if owner != Some(Owner::Router) {
            return; // an inside host has this very session; nothing outside could tell them apart
        }
        self.observe(now, key, Direction::Outbound, signal);
    }

    /// Whether a packet from outside belongs to a session of the router's own, which it extends.
    pub(super) fn is_routers_session(&mut self, now: Duration, flow: &Flow, signal: Signal) -> bool {
        let key = SessionKey { protocol: flow.protocol, outside: flow.destination, remote: flow.source };
        let is_own = self.sessions.get(&key).is_some_and(|session| session.owner == Owner::Router);
        if is_own {
            self.observe(now, key, Direction::Inbound, signal);
        }
        is_own
    }
}
