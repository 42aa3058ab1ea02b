//! Failures in a row by one transport, whose they are, and the rest that they earn. Who passes by TCP may not by UDP, as a
//! firewall has it, or the reverse: neither speaks for the other. Times are nanoseconds from an instant that the owner knows.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config::model::Ejection;

/// Failures in a row of nobody yet, and of more than one client's address, or of the proxy's own.
const OF_NOBODY: u64 = 0;
pub(super) const OF_SEVERAL: u64 = u64::MAX;

/// One that is heard is noted so many times within the length of a rest at most.
const NOTES: u64 = 8;

/// See the module.
///
/// Nothing is ordered by these fields: each is a fact of its own, and who reads an old one dials once more.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Failed connects since the last that succeeded.
    failures: AtomicU32,
    /// Whose these are, if the candidate saw one client's address each time.
    failures_of: AtomicU64,
    /// Until when it may not be used; 0: it was never ejected.
    rests_until: AtomicU64,
    /// When it was heard last, where that is asked for; 0: never.
    heard: AtomicU64,
}

impl Row {
    /// The failures are no longer in a row.
    pub(super) fn end(&self) {
        // Most of the time there is nothing to write, and the line stays shared between threads.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.failures_of.store(OF_NOBODY, Relaxed);
        }
    }

    /// Counts a failure; the end of the rest if it ejects. Failures for the same number only say nothing.
    pub(super) fn failed(&self, eject: Ejection, whose: u64, now: u64) -> Option<u64> {
        let is_of_several = self.count_for(whose);
        let more = |failures: u32| Some(failures.saturating_add(1));
        let failures = self.failures.fetch_update(Relaxed, Relaxed, more).unwrap_or_else(|failures| failures);
        let until = self.rests_until.load(Relaxed);
        let rest = nanoseconds(eject.duration);
        let is_row = is_of_several && failures.saturating_add(1) >= eject.failures.get();
        if !is_row || now < until || self.was_heard_lately(now, rest) {
            return None;
        }
        let end = now.saturating_add(rest);
        // Of threads that see the same row only one ejects.
        let ejected = self.rests_until.compare_exchange(until, end, Relaxed, Relaxed).ok().map(|_| end);
        if ejected.is_some() {
            // Whom it bans would else keep it ejected alone, by one failure after each rest.
            self.failures_of.store(OF_NOBODY, Relaxed);
        }
        ejected
    }

    pub(super) fn rests(&self, now: u64) -> bool {
        now < self.rests_until.load(Relaxed)
    }

    /// Notes that it was heard: it is not ejected for the length of a rest.
    pub(super) fn note_heard(&self, eject: Ejection, now: u64) {
        let apart = nanoseconds(eject.duration) / NOTES;
        // Most of the time there is nothing to write, and the line stays shared between threads.
        let before = self.heard.load(Relaxed);
        if before == 0 || now.saturating_sub(before) >= apart {
            self.heard.store(now.max(1), Relaxed);
        }
    }

    fn was_heard_lately(&self, now: u64, within: u64) -> bool {
        let heard = self.heard.load(Relaxed);
        heard != 0 && now.saturating_sub(heard) < within
    }

    /// Notes whose the next failure is; whether those in a row are of more than one.
    fn count_for(&self, whose: u64) -> bool {
        let together = |before| Some(if before == OF_NOBODY || before == whose { whose } else { OF_SEVERAL });
        let before = self.failures_of.fetch_update(Relaxed, Relaxed, together).unwrap_or_else(|before| before);
        together(before) == Some(OF_SEVERAL)
    }
}

/// 64 bits hold 584 years of them.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
