//! How one candidate fares: connections, failures in a row, and what checks say. Shared by all threads, without a lock; the
//! time is an argument.
//!
//! It belongs to one host and port. A target whose name or port clients choose is many: its failures are nobody's.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::SourceKey;
use crate::config::model::{Ejection, HealthCheck};

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
    eject: Option<Ejection>,
    health: Option<HealthCheck>,
    connections: AtomicUsize,
    /// Failed connects since the last that succeeded.
    failures: AtomicU32,
    /// Whose these are, if the candidate saw one client's address each time.
    failures_of: AtomicU64,
    /// Nanoseconds from `epoch` until it may be used again; 0: it was never ejected.
    rests_until: AtomicU64,
    checks: AtomicU32,
}

impl Condition {
    /// A candidate that nothing bad is known of. Times before `epoch` count as `epoch`.
    #[must_use]
    pub fn new(eject: Option<Ejection>, health: Option<HealthCheck>, epoch: Instant) -> Arc<Self> {
        let (connections, failures, rests_until) = (AtomicUsize::new(0), AtomicU32::new(0), AtomicU64::new(0));
        let (checks, failures_of) = (AtomicU32::new(Checked::default().packed()), AtomicU64::new(OF_NOBODY));
        Arc::new(Self { epoch, eject, health, connections, failures, failures_of, rests_until, checks })
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
    pub fn connected(&self) {
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
        let eject = self.eject?;
        let is_of_several = self.count_for(seen.map_or(OF_SEVERAL, |client| SourceKey::of(client).number()));
        let more = |failures: u32| Some(failures.saturating_add(1));
        let failures = self.failures.fetch_update(Relaxed, Relaxed, more).unwrap_or_else(|failures| failures);
        let until = self.rests_until.load(Relaxed);
        let now = self.since_epoch(now);
        if !is_of_several || failures.saturating_add(1) < eject.failures.get() || now < until {
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
mod tests {
    use std::num::NonZeroU32;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn ejection(failures: u32, duration: u64) -> Option<Ejection> {
        Some(Ejection { failures: count(failures), duration: seconds(duration) })
    }

    fn health(rise: u32, fall: u32) -> Option<HealthCheck> {
        Some(HealthCheck { interval: seconds(10), timeout: seconds(1), rise: count(rise), fall: count(fall) })
    }

    #[test]
    fn connections_are_counted_while_their_guards_live() {
        let condition = Condition::new(None, None, Instant::now());
        let (one, other) = (condition.begin(), condition.begin());
        assert_eq!(condition.connections(), 2);
        drop(one);
        assert_eq!(condition.connections(), 1);
        drop(other);
        assert_eq!(condition.connections(), 0);
    }

    #[test]
    fn failures_is_how_many_in_a_row_eject() {
        for failures in [1, 3] {
            let now = Instant::now();
            let condition = Condition::new(ejection(failures, 30), None, now);
            for _ in 1..failures {
                assert_eq!(condition.failed(None, now), None);
                assert!(condition.is_usable(now));
            }
            assert_eq!(condition.failed(None, now), Some(Change::Ejected));
            assert_eq!(condition.standing(now), Standing::Ejected);
        }
    }

    #[test]
    fn a_success_ends_the_row() {
        let now = Instant::now();
        let condition = Condition::new(ejection(2, 30), None, now);
        for _ in 0..5 {
            assert_eq!(condition.failed(None, now), None);
            condition.connected();
        }
        assert!(condition.is_usable(now));
    }

    #[test]
    fn duration_is_how_long_it_rests_whatever_fails_meanwhile() {
        for duration in [1, 30] {
            let begin = Instant::now();
            let condition = Condition::new(ejection(1, duration), None, begin);
            assert_eq!(condition.failed(None, begin), Some(Change::Ejected));
            let last = begin + seconds(duration) - Duration::from_nanos(1);
            assert_eq!(condition.failed(None, last), None);
            assert!(!condition.is_usable(last));
            assert!(condition.is_usable(begin + seconds(duration)));
        }
    }

    #[test]
    fn after_its_rest_one_failure_ejects_it_again_and_one_success_frees_it() {
        let begin = Instant::now();
        let condition = Condition::new(ejection(3, 30), None, begin);
        let changes = [(); 3].map(|()| condition.failed(None, begin));
        assert_eq!(changes, [None, None, Some(Change::Ejected)]);
        let after = begin + seconds(30);
        assert_eq!(condition.failed(None, after), Some(Change::Ejected));
        let later = after + seconds(30);
        condition.connected();
        assert_eq!(condition.failed(None, later), None);
    }

    #[test]
    fn failures_of_one_clients_address_alone_eject_nobody() {
        let now = Instant::now();
        let [one, same_household, other] = ["2001:db8::1", "2001:db8::2", "203.0.113.1"].map(|text| text.parse().ok());
        let condition = Condition::new(ejection(3, 30), None, now);
        for _ in 0..50 {
            assert_eq!([one, same_household].map(|client| condition.failed(client, now)), [None, None]);
        }
        assert!(condition.is_usable(now));
        assert_eq!(condition.failed(other, now), Some(Change::Ejected), "it fails others too");
        let after = now + seconds(30);
        assert_eq!([one; 5].map(|client| condition.failed(client, after)), [None; 5], "nor is it kept so by one alone");
        assert_eq!(condition.failed(other, after), Some(Change::Ejected));
        condition.connected();
        let after = after + seconds(30);
        assert_eq!([other; 5].map(|client| condition.failed(client, after)), [None; 5], "another row");
        assert_eq!(condition.failed(None, after), Some(Change::Ejected), "the proxy itself is not let in");
    }

    #[test]
    fn without_ejection_failures_change_nothing() {
        let now = Instant::now();
        let condition = Condition::new(None, None, now);
        assert!((0..100).all(|_| condition.failed(None, now).is_none()) && condition.is_usable(now));
    }

    #[test]
    fn of_many_threads_one_ejects() {
        let now = Instant::now();
        let condition = Condition::new(ejection(50, 30), None, now);
        let fail = || (0..100).filter(|_| condition.failed(None, now).is_some()).count();
        let ejections: usize = thread::scope(|scope| {
            let threads = [scope.spawn(fail), scope.spawn(fail), scope.spawn(fail)];
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(ejections, 1);
    }

    #[test]
    fn fall_is_how_many_failed_checks_in_a_row_take_it_down_and_rise_how_many_bring_it_back() {
        for (rise, fall) in [(1, 1), (2, 3), (3, 2)] {
            let now = Instant::now();
            let condition = Condition::new(None, health(rise, fall), now);
            for _ in 1..fall {
                assert_eq!(condition.checked(false), None);
            }
            assert_eq!(condition.checked(true), None);
            for _ in 1..fall {
                assert_eq!(condition.checked(false), None);
                assert!(condition.is_usable(now));
            }
            assert_eq!(condition.checked(false), Some(Change::Down));
            assert_eq!(condition.standing(now), Standing::Down);
            for _ in 1..rise {
                assert_eq!(condition.checked(true), None);
            }
            assert_eq!(condition.checked(false), None);
            for _ in 1..rise {
                assert_eq!(condition.checked(true), None);
                assert!(!condition.is_usable(now));
            }
            assert_eq!(condition.checked(true), Some(Change::Up));
            assert!(condition.is_usable(now));
        }
    }

    #[test]
    fn a_check_frees_nobody_from_its_rest_and_says_nothing_without_health() {
        let now = Instant::now();
        let condition = Condition::new(ejection(1, 30), health(1, 1), now);
        condition.failed(None, now);
        condition.checked(true);
        assert_eq!(condition.standing(now), Standing::Ejected);
        let unchecked = Condition::new(None, None, now);
        assert_eq!(unchecked.checked(false), None);
        assert!(unchecked.is_usable(now));
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(is_up: bool, otherwise in 0_u32..1 << 31) {
            let checked = Checked { is_up, otherwise };
            prop_assert_eq!(Checked::unpacked(checked.packed()), checked);
        }
    }
}
