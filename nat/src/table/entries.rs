//! The table as people and programs read it.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use super::state::{OutsideKey, Table};
use crate::packet::Protocol;

/// A mapping as the report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingEntry {
    /// Of both endpoints.
    pub protocol: Protocol,
    /// The inside endpoint.
    pub inside: SocketAddrV4,
    /// The outside endpoint.
    pub outside: SocketAddrV4,
    /// Whether it is a forward, which lives as long as the NAT.
    pub is_forward: bool,
    /// By far endpoint.
    pub sessions: Vec<SessionEntry>,
}

/// A session as the report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    /// The far endpoint.
    pub remote: SocketAddrV4,
    /// Whether the inside has sent to it.
    pub has_sent: bool,
    /// `established` or `transitory` for TCP, else `active`.
    pub state: &'static str,
    /// How long it lives without a further packet.
    pub expires_in: Duration,
}

impl Table {
    /// Every mapping with its sessions, in a fixed order.
    #[must_use]
    pub fn entries(&self, now: Duration) -> Vec<MappingEntry> {
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_unstable_by_key(|(key, _)| **key);
        let mut by_mapping: HashMap<OutsideKey, Vec<SessionEntry>> = HashMap::new();
        for (key, session) in sessions {
            by_mapping.entry(OutsideKey::of(key.protocol, key.outside)).or_default().push(SessionEntry {
                remote: key.remote,
                has_sent: session.has_sent,
                state: session.state(key.protocol),
                expires_in: session.deadline.saturating_sub(now),
            });
        }
        let mut entries: Vec<_> = self
            .mappings
            .iter()
            .map(|(key, mapping)| MappingEntry {
                protocol: key.0,
                inside: mapping.inside,
                outside: key.1,
                is_forward: mapping.is_forward,
                sessions: by_mapping.remove(key).unwrap_or_default(),
            })
            .collect();
        entries.sort_unstable_by_key(|entry| (entry.protocol, entry.inside, entry.outside));
        entries
    }
}
