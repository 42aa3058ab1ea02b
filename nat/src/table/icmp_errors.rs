//! ICMP errors: translated where the packet they are about was (RFC 5508 REQ-3 to REQ-6). They extend no session.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::fate::{Drop, Fate, Mark};
use super::session::{Owner, SessionKey};
use super::state::{FlowKey, OutsideKey, Table};
use crate::packet::Flow;
use crate::rewrite::Rewrite;
use crate::settings::Hairpin;

impl Table {
    /// About a packet that was let in. The router's own complaints too: they quote the packet as it was translated.
    pub(super) fn outbound_error(&self, from: Ipv4Addr, about: &Flow, is_edible: bool) -> Fate {
        let key = FlowKey::between(about.protocol, about.destination, about.source);
        let Some(outside) = self.flows.get(&key).copied() else {
            return if self.is_routers_own(from) { Fate::Pass } else { Fate::Drop(Drop::NoSession) };
        };
        let rewrite = Rewrite {
            source: Some(SocketAddrV4::new(*outside.ip(), 0)),
            about_destination: Some(outside),
            ..Rewrite::default()
        };
        self.unless_eaten(is_edible, rewrite, Mark::None)
    }

    /// About a packet that went out. One about none of ours is for the router itself.
    pub(super) fn inbound_error(&self, about: &Flow, is_edible: bool) -> Fate {
        let key = SessionKey { protocol: about.protocol, outside: about.source, remote: about.destination };
        let Some(Owner::Inside(inside)) = self.sessions.get(&key).map(|session| session.owner) else {
            return Fate::Pass;
        };
        let rewrite = Rewrite { destination: Some(inside), about_source: Some(inside), ..Rewrite::default() };
        self.unless_eaten(is_edible, rewrite, Mark::Admitted)
    }

    /// About a hairpinned packet, from its receiver.
    pub(super) fn hairpin_error(&self, about: &Flow, is_edible: bool) -> Fate {
        let receiver = FlowKey::between(about.protocol, about.destination, about.source);
        let sender = self.mappings.get(&OutsideKey::of(about.protocol, about.source));
        let (Some(mapping), Some(addressed)) = (sender, self.received_by(&receiver)) else { return Fate::Pass };
        let rewrite = Rewrite {
            destination: Some(mapping.inside),
            about_source: Some(mapping.inside),
            about_destination: Some(addressed),
            ..Rewrite::default()
        };
        self.unless_eaten(is_edible, rewrite, Mark::Hairpin)
    }

    /// The outside endpoint by which an inside one is known to the far end of a flow.
    fn received_by(&self, receiver: &FlowKey) -> Option<SocketAddrV4> {
        let found = self.flows.get(receiver).copied();
        found.filter(|_| self.settings.hairpin == Hairpin::ExternalSource)
    }

    fn unless_eaten(&self, is_edible: bool, rewrite: Rewrite, mark: Mark) -> Fate {
        if is_edible && !self.settings.icmp_errors {
            Fate::Drop(Drop::IcmpEaten)
        } else {
            Fate::Translate { rewrite, mark }
        }
    }
}
