//! What can become of a packet, and the count of it.

use std::collections::BTreeMap;

use crate::rewrite::Rewrite;

/// Where a packet is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// On its way out.
    Outbound,
    /// From outside, to an outside address.
    Inbound,
    /// From inside, to an outside address.
    Hairpin,
    /// A hairpinned packet, on its way in.
    HairpinSource,
}

/// What the kernel's firewall is told of a translated packet, as its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    None,
    /// It came from inside and goes back inside.
    Hairpin,
    /// It came from outside and the NAT lets it in.
    Admitted,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on unchanged.
    Pass,
    /// It goes on with other ends.
    Translate {
        /// Which.
        rewrite: Rewrite,
        /// What the firewall is told.
        mark: Mark,
    },
    /// It goes no further.
    Drop(Drop),
    /// Nor does this one, and its sender gets a TCP reset.
    Reset,
}

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drop {
    /// The filter of the mapping it was sent to.
    Filtered,
    /// It belongs to no session and cannot begin one.
    NoSession,
    /// No mapping, and the configuration wants these dropped.
    Unmapped,
    /// No outside port is free.
    NoPort,
    /// The inside host has as many sessions as it may.
    SubscriberFull,
    /// There are as many sessions as there may be at all.
    TableFull,
    /// A protocol without ports: its answers could not be told apart.
    OtherProtocol,
    /// An ICMP error, and the configuration wants these eaten.
    IcmpEaten,
    /// No whole IPv4 packet.
    Unreadable,
}

impl Drop {
    /// Its name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::NoSession => "no_session",
            Self::Unmapped => "unmapped",
            Self::NoPort => "no_port",
            Self::SubscriberFull => "subscriber_full",
            Self::TableFull => "table_full",
            Self::OtherProtocol => "other_protocol",
            Self::IcmpEaten => "icmp_eaten",
            Self::Unreadable => "unreadable",
        }
    }
}

/// How many packets went which way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Translated on their way out, first passes of hairpins included.
    pub outbound: u64,
    /// Translated on their way in.
    pub inbound: u64,
    /// Left unchanged.
    pub passed: u64,
    /// SYNs answered by a reset.
    pub reset: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<Drop, u64>,
}

impl Counters {
    pub(crate) fn count(&mut self, passage: Passage, fate: &Fate) {
        match (fate, passage) {
            (Fate::Pass, _) => self.passed += 1,
            (Fate::Translate { .. }, Passage::Outbound | Passage::Hairpin) => self.outbound += 1,
            (Fate::Translate { .. }, Passage::Inbound | Passage::HairpinSource) => self.inbound += 1,
            (Fate::Drop(reason), _) => *self.dropped.entry(*reason).or_default() += 1,
            (Fate::Reset, _) => self.reset += 1,
        }
    }
}
