//! How one candidate fares: connections, failures in a row, and what checks say. Shared by all threads, without a lock; the
//! time is an argument.
//!
//! Whose the failures are, of one place or of a host with all its ports, is in [`super::extent`].

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::SourceKey;
use crate::config::model::{Ejection, HealthCheck};

use super::endpoints::Endpoints;
use super::extent::Extent;

/// Failures in a row of nobody yet, and of more than one client's address, or of the proxy's own.
const OF_NOBODY: u64 = 0;
const OF_SEVERAL: u64 = u64::MAX;

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
    /// Failed connects since the last that succeeded.
    failures: AtomicU32,
    /// Whose these are, if the candidate saw one client's address each time.
    failures_of: AtomicU64,
    /// Nanoseconds from `epoch` until it may be used again; 0: it was never ejected.
    rests_until: AtomicU64,
    /// Nanoseconds from `epoch` until it was heard last, where that is asked for; 0: never.
    pub(super) heard: AtomicU64,
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
        let (connections, failures) = (AtomicUsize::new(0), AtomicU32::new(0));
        let (rests_until, heard) = (AtomicU64::new(0), AtomicU64::new(0));
        let (checks, failures_of) = (AtomicU32::new(Checked::default().packed()), AtomicU64::new(OF_NOBODY));
        let endpoints = eject.filter(|_| extent == Extent::Hosts).map(|eject| Endpoints::new(eject, epoch));
        Arc::new(Self {
            epoch,
            extent,
            eject,
            health,
            connections,
            failures,
            failures_of,
            rests_until,
            heard,
            checks,
            endpoints,
        })
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
    pub fn connected(&self, now: Instant) {
        self.note_heard(self.since_epoch(now));
        // Most of the time there is nothing to write, and the line stays shared between threads.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.failures_of.store(OF_NOBODY, Relaxed);
        }
    }

    /// A client's connection to it failed. After its rest a candidate is still on trial: the next failure is one more in
    /// the row and ejects it again. Failures during the rest do not lengthen it.
    ///
    /// `seen`: the client whose address the candidate saw. Its host may keep out that client alone, by a firewall that bans:
    /// failures of one client's address only say nothing of the candidate.
    pub fn failed(&self, seen: Option<IpAddr>, now: Instant) -> Option<Change> {
        self.failed_for(seen.map_or(OF_SEVERAL, |client| SourceKey::of(client).number()), now)
    }

    /// The same; failures for the same number only say nothing.
    pub(super) fn failed_for(&self, whose: u64, now: Instant) -> Option<Change> {
        let eject = self.eject?;
        let is_of_several = self.count_for(whose);
        let more = |failures: u32| Some(failures.saturating_add(1));
        let failures = self.failures.fetch_update(Relaxed, Relaxed, more).unwrap_or_else(|failures| failures);
        let until = self.rests_until.load(Relaxed);
        let now = self.since_epoch(now);
        let is_row = is_of_several && failures.saturating_add(1) >= eject.failures.get();
        if !is_row || now < until || self.was_heard_lately(now, nanoseconds(eject.duration)) {
            return None;
        }
        let end = now.saturating_add(nanoseconds(eject.duration));
        // Of threads that see the same row only one ejects.
        let ejected = self.rests_until.compare_exchange(until, end, Relaxed, Relaxed).ok().map(|_| Change::Ejected);
        if ejected.is_some() {
            // Whom it bans would else keep it ejected alone, by one failure after each rest.
            self.failures_of.store(OF_NOBODY, Relaxed);
        }
        ejected
    }

    /// Notes whose the next failure is; whether those in a row are of more than one.
    fn count_for(&self, whose: u64) -> bool {
        let together = |before| Some(if before == OF_NOBODY || before == whose { whose } else { OF_SEVERAL });
        let before = self.failures_of.fetch_update(Relaxed, Relaxed, together).unwrap_or_else(|before| before);
        together(before) == Some(OF_SEVERAL)
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

    /// Whether to prefer it to candidates that are not.
    #[must_use]
    pub fn is_usable(&self, now: Instant) -> bool {
        self.standing(now) == Standing::Usable
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        if !Checked::unpacked(self.checks.load(Relaxed)).is_up {
            Standing::Down
        } else if self.since_epoch(now) < self.rests_until.load(Relaxed) {
            Standing::Ejected
        } else {
            Standing::Usable
        }
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.epoch))
    }
}

/// Nanoseconds; 64 bits hold 584 years of them.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
