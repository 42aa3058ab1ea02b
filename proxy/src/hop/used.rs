//! Signatures that were taken, so that none is taken twice: all workers, and all configurations, share those of one key.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{millis, WINDOW};
use crate::wire::signature::Stamp;

/// Signatures that are remembered at most: some ten megabytes. As many fit into the whole window at nine thousand connections a
/// second; of more, the window becomes shorter.
const MOST: usize = 262_144;

/// Those that are over are forgotten by so many at a time: all workers wait for whoever forgets.
const FORGOTTEN_AT_ONCE: usize = 16;

/// Why a right signature is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is so old that nobody knows whether it was taken before.
    Stale,
    Replayed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Used(Mutex<Memory>);

#[derive(Debug)]
struct Memory {
    /// The oldest first.
    taken: BTreeSet<Stamp>,
    /// Nothing that was signed before is taken: it may have been here, and was forgotten.
    since: u64,
    most: usize,
}

impl Used {
    /// Nothing was taken; what was signed before this moment may have been, by a process before this one.
    pub(super) fn since(since: u64) -> Self {
        Self(Mutex::new(Memory { taken: BTreeSet::new(), since, most: MOST }))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a signature that is in time. Only who has the key can fill this memory: where it is full, the oldest are forgotten,
    /// and all that are as old as these are refused from then on.
    ///
    /// # Errors
    ///
    /// It was taken, or nobody knows.
    pub(super) fn take(&self, stamp: Stamp, now: u64) -> Result<(), Refused> {
        let memory = &mut *self.memory();
        let over = now.saturating_sub(millis(WINDOW));
        for _ in 0..FORGOTTEN_AT_ONCE {
            if memory.taken.first().is_some_and(|oldest| oldest.time < over) {
                memory.forget_oldest();
            }
        }
        // Where this host's clock was set back by more, it is waited for as long as for any, and not until it is there again.
        memory.since = memory.since.min(now.saturating_add(millis(WINDOW)));
        if stamp.time < memory.since {
            return Err(Refused::Stale);
        }
        if !memory.taken.insert(stamp) {
            return Err(Refused::Replayed);
        }
        if memory.taken.len() > memory.most {
            memory.forget_oldest();
        }
        Ok(())
    }

    /// The latest, and from when on they are all.
    pub(super) fn latest(&self, most: usize) -> (u64, Vec<Stamp>) {
        let memory = self.memory();
        let mut latest = memory.taken.iter().rev();
        let kept: Vec<_> = latest.by_ref().take(most).copied().collect();
        let since = latest.next().map_or(memory.since, |left_out| left_out.time.saturating_add(1));
        (since.max(memory.since), kept)
    }

    /// Goes on with what another process has taken.
    pub(super) fn inherit(&self, since: u64, taken: impl Iterator<Item = Stamp>) {
        let mut memory = self.memory();
        memory.taken.extend(taken);
        memory.since = since;
        while memory.taken.len() > memory.most {
            memory.forget_oldest();
        }
    }
}

impl Memory {
    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.taken.pop_first() {
            self.since = self.since.max(oldest.time.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn at(time: u64, number: u8) -> Stamp {
        Stamp { time, nonce: [number; 16] }
    }

    #[test]
    fn each_is_taken_once() {
        let used = Used::since(0);
        for number in 0..3 {
            assert_eq!(used.take(at(NOW, number), NOW), Ok(()));
        }
        for number in 0..3 {
            assert_eq!(used.take(at(NOW, number), NOW + millis(WINDOW)), Err(Refused::Replayed));
        }
    }

    #[test]
    fn what_is_forgotten_because_it_is_old_is_refused_also_when_the_clock_is_set_back() {
        let used = Used::since(0);
        assert_eq!(used.take(at(NOW, 1), NOW), Ok(()));
        let later = NOW + millis(WINDOW) + 1;
        assert_eq!(used.take(at(later, 2), later), Ok(()));
        assert_eq!(used.memory().taken.len(), 1, "it takes no room");
        assert_eq!(used.take(at(NOW, 1), NOW), Err(Refused::Stale));
    }

    #[test]
    fn whoever_comes_after_many_waits_for_the_forgetting_of_few() {
        let used = Used::since(0);
        for time in 0..100 {
            assert_eq!(used.take(at(NOW + time, 0), NOW), Ok(()));
        }
        let later = NOW + 100 + millis(WINDOW);
        for number in 1..=10 {
            assert_eq!(used.take(at(later, number), later), Ok(()));
            let left = used.memory().taken.len();
            assert!(if number == 1 { left > 50 } else { left < 100 }, "{number}: {left}");
            assert!(used.take(at(NOW + 99, 0), NOW + 99).is_err(), "be it forgotten or not");
        }
        assert_eq!(used.memory().taken.len(), 10, "all that is over has gone");
    }

    #[test]
    fn a_clock_that_was_far_ahead_at_the_beginning_and_is_set_right_shuts_nobody_out_for_long() {
        let used = Used::since(NOW + 3_600_000);
        assert_eq!(used.take(at(NOW, 1), NOW), Err(Refused::Stale));
        let later = NOW + millis(WINDOW);
        assert_eq!(used.take(at(later - 1, 2), later), Err(Refused::Stale));
        assert_eq!(used.take(at(later, 3), later), Ok(()));
    }

    #[test]
    fn what_was_signed_before_its_beginning_is_refused() {
        let used = Used::since(NOW);
        assert_eq!(used.take(at(NOW - 1, 1), NOW), Err(Refused::Stale));
        assert_eq!(used.take(at(NOW, 1), NOW), Ok(()));
    }

    #[test]
    fn a_full_memory_takes_the_new_and_refuses_all_that_are_as_old_as_what_it_has_forgotten() {
        let used = Used::since(0);
        used.memory().most = 3;
        for time in 0..10 {
            assert_eq!(used.take(at(NOW + time, 0), NOW + 10), Ok(()), "{time}");
            assert!(used.memory().taken.len() <= 3);
        }
        for time in 0..7 {
            assert_eq!(used.take(at(NOW + time, 0), NOW + 10), Err(Refused::Stale), "{time}");
            assert_eq!(used.take(at(NOW + time, 1), NOW + 10), Err(Refused::Stale), "nobody knows of {time}");
        }
        for time in 7..10 {
            assert_eq!(used.take(at(NOW + time, 0), NOW + 10), Err(Refused::Replayed), "{time}");
        }
    }

    #[test]
    fn another_process_knows_the_latest_and_refuses_what_is_older() {
        let used = Used::since(NOW - 5);
        for time in 0..4 {
            assert_eq!(used.take(at(NOW + time, 0), NOW + 10), Ok(()));
        }
        let (since, all) = used.latest(10);
        assert_eq!((since, all.len()), (NOW - 5, 4));
        let (since, some) = used.latest(2);
        let heir = Used::since(NOW + 10);
        heir.inherit(since, some.into_iter());
        assert_eq!(heir.take(at(NOW + 1, 9), NOW + 10), Err(Refused::Stale));
        assert_eq!(heir.take(at(NOW + 2, 0), NOW + 10), Err(Refused::Replayed));
        assert_eq!(heir.take(at(NOW + 2, 9), NOW + 10), Ok(()), "it waited in the socket's queue meanwhile");
    }
}
