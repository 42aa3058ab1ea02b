//! ICMP errors: translated where the packet they are about was (RFC 5508 REQ-3 to REQ-6). They extend no session.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::fate::{Drop, Fate, Mark};
use super::session::{Owner, SessionKey};
use super::state::{FlowKey, OutsideKey, Table};
use crate::packet::Flow;
use crate::rewrite::Rewrite;

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

    /// About a hairpinned packet, from its receiver: to its sender, first about the inside endpoints of both, by which
    /// the kernel's tracker knows the flow.
    pub(super) fn hairpin_error(&self, about: &Flow, is_edible: bool) -> Fate {
        let receiver = FlowKey::between(about.protocol, about.destination, about.source);
        let sender = self.mappings.get(&OutsideKey::of(about.protocol, about.source));
        let (Some(mapping), true) = (sender, self.flows.contains_key(&receiver)) else { return Fate::Pass };
        let inside = Some(mapping.inside);
        let rewrite = Rewrite { destination: inside, about_source: inside, ..Rewrite::default() };
        self.unless_eaten(is_edible, rewrite, Mark::Hairpin)
    }

    /// The same on its way in: about the outside endpoint that the sender sent to, and from there.
    pub(super) fn hairpin_error_source(&self, about: &Flow) -> Option<Rewrite> {
        let sender = self.hairpins.get(&FlowKey::of(about))?;
        let outside = *self.flows.get(&FlowKey::between(about.protocol, about.destination, *sender))?;
        Some(Rewrite { source: Some(outside), about_destination: Some(outside), ..Rewrite::default() })
    }

    fn unless_eaten(&self, is_edible: bool, rewrite: Rewrite, mark: Mark) -> Fate {
        if is_edible && !self.settings.icmp_errors {
            Fate::Drop(Drop::IcmpEaten)
        } else {
            Fate::Translate { rewrite, mark }
        }
    }
}
