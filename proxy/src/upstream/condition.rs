//! How one candidate fares: connections, failures in a row by each transport, and what checks say. Shared by all threads,
//! without a lock; the time is an argument.
//!
//! Whose the failures are, of one place or of a host with all its ports, is in [`super::extent`].

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Instant;

use crate::admission::SourceKey;
use crate::config::model::{Ejection, HealthCheck, Transport};

use super::endpoints::Endpoints;
use super::extent::Extent;
use super::row::{nanoseconds, Row, OF_SEVERAL};

/// What changed for a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Too many connections failed in a row: it rests.
    Ejected,
    /// So many checks failed that it is down.
    Down,
    /// So many checks succeeded that it is up again.
    Up,
}

/// How a candidate stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be used.
    Usable,
    /// It rests after failures in a row.
    Ejected,
    /// Checks say that it is down.
    Down,
}

impl Standing {
    /// Its name in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Ejected => "ejected",
            Self::Down => "down",
        }
    }
}

/// The condition of one candidate.
///
/// Nothing is ordered by these fields: each is a fact of its own, and who reads an old one dials a candidate once more.
#[derive(Debug)]
pub struct Condition {
    epoch: Instant,
    pub(super) extent: Extent,
    pub(super) eject: Option<Ejection>,
    health: Option<HealthCheck>,
    connections: AtomicUsize,
    /// What became of clients by TCP.
    by_tcp: Row,
    /// And by UDP.
    by_udp: Row,
    checks: AtomicU32,
    /// What is known of the hosts that clients choose, where it is more than one and any may rest.
    pub(super) endpoints: Option<Endpoints>,
}

impl Condition {
    /// A candidate that nothing bad is known of. Times before `epoch` count as `epoch`.
    #[must_use]
    pub fn new(eject: Option<Ejection>, health: Option<HealthCheck>, epoch: Instant) -> Arc<Self> {
        Self::of(Extent::Place, eject, health, epoch)
    }

    /// The same, of a candidate that may be more than one place.
    #[must_use]
    pub fn of(extent: Extent, eject: Option<Ejection>, health: Option<HealthCheck>, epoch: Instant) -> Arc<Self> {
        let (connections, checks) = (AtomicUsize::new(0), AtomicU32::new(Checked::default().packed()));
        let (by_tcp, by_udp) = (Row::default(), Row::default());
        let endpoints = eject.filter(|_| extent == Extent::Hosts).map(|eject| Endpoints::new(eject, epoch));
        Arc::new(Self { epoch, extent, eject, health, connections, by_tcp, by_udp, checks, endpoints })
    }

    /// Counts a connection or flow until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Active {
        self.connections.fetch_add(1, Relaxed);
        Active(Arc::clone(self))
    }

    /// Connections and flows of this proxy to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// A client's connection to it stands: the failures are no longer in a row.
    pub fn connected(&self, by: Transport, now: Instant) {
        let row = self.row(by);
        if let Some(eject) = self.eject.filter(|_| self.extent == Extent::Host) {
            row.note_heard(eject, self.since_epoch(now));
        }
        row.end();
    }

    /// A client's connection to it failed. After its rest a candidate is still on trial: the next failure is one more in
    /// the row and ejects it again. Failures during the rest do not lengthen it.
    ///
    /// `seen`: the client whose address the candidate saw. Its host may keep out that client alone, by a firewall that bans:
    /// failures of one client's address only say nothing of the candidate.
    pub fn failed(&self, by: Transport, seen: Option<IpAddr>, now: Instant) -> Option<Change> {
        self.failed_for(by, number_of(seen), now)
    }

    /// The same; failures for the same number only say nothing.
    pub(super) fn failed_for(&self, by: Transport, whose: u64, now: Instant) -> Option<Change> {
        self.row(by).failed(self.eject?, whose, self.since_epoch(now)).map(|_| Change::Ejected)
    }

    /// A check succeeded, or failed. Without health checks this says nothing.
    pub fn checked(&self, succeeded: bool) -> Option<Change> {
        let health = self.health?;
        let next = |packed| Some(Checked::unpacked(packed).after(succeeded, health).packed());
        let before = self.checks.fetch_update(Relaxed, Relaxed, next).unwrap_or_else(|packed| packed);
        let before = Checked::unpacked(before);
        match (before.is_up, before.after(succeeded, health).is_up) {
            (true, false) => Some(Change::Down),
            (false, true) => Some(Change::Up),
            (true, true) | (false, false) => None,
        }
    }

    /// Whether to prefer it, for a client by this transport, to candidates that are not.
    #[must_use]
    pub fn is_usable(&self, by: Transport, now: Instant) -> bool {
        self.is_up() && !self.row(by).rests(self.since_epoch(now))
    }

    /// How it stands; ejected, if it rests for either transport.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        match self.standing_by(Transport::Tcp, now) {
            Standing::Usable => self.standing_by(Transport::Udp, now),
            worse @ (Standing::Ejected | Standing::Down) => worse,
        }
    }

    /// How it stands for clients by this transport.
    #[must_use]
    pub fn standing_by(&self, by: Transport, now: Instant) -> Standing {
        if !self.is_up() {
            Standing::Down
        } else if self.is_usable(by, now) {
            Standing::Usable
        } else {
            Standing::Ejected
        }
    }

    fn is_up(&self) -> bool {
        Checked::unpacked(self.checks.load(Relaxed)).is_up
    }

    fn row(&self, by: Transport) -> &Row {
        match by {
            Transport::Tcp => &self.by_tcp,
            Transport::Udp => &self.by_udp,
        }
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.epoch))
    }
}

/// Whose a failure is, if the candidate saw this client.
pub(super) fn number_of(seen: Option<IpAddr>) -> u64 {
    seen.map_or(OF_SEVERAL, |client| SourceKey::of(client).number())
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub struct Active(Arc<Condition>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// What checks say so far: whether it is up, and how many in a row since say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checked {
    is_up: bool,
    otherwise: u32,
}

impl Default for Checked {
    fn default() -> Self {
        Self { is_up: true, otherwise: 0 }
    }
}

impl Checked {
    fn after(self, succeeded: bool, health: HealthCheck) -> Self {
        if succeeded == self.is_up {
            return Self { otherwise: 0, ..self };
        }
        let enough = if self.is_up { health.fall } else { health.rise };
        if self.otherwise.saturating_add(1) >= enough.get() {
            return Self { is_up: succeeded, otherwise: 0 };
        }
        Self { otherwise: self.otherwise + 1, ..self }
    }

    /// In 32 bits: the count is below 2^31, else it stands still there.
    fn packed(self) -> u32 {
        self.otherwise.min(u32::MAX >> 1) << 1 | u32::from(self.is_up)
    }

    fn unpacked(packed: u32) -> Self {
        Self { is_up: packed & 1 == 1, otherwise: packed >> 1 }
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
