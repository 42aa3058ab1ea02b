//! Which direction of which wire has something to send next. Pure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A direction, by the number that the caller gives it.
pub(crate) type Key = u64;

/// The next departure of each direction that has one, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    entries: BinaryHeap<Reverse<(u64, Key)>>,
    /// The entry of each that counts; others in the heap are outdated.
    valid: HashMap<Key, u64>,
}

impl Agenda {
    /// Notes when `key` is next due; a later moment than the one noted is of no interest, for it will ask again then.
    pub(crate) fn note(&mut self, key: Key, due_ns: u64) {
        if self.valid.get(&key).is_some_and(|&noted_ns| noted_ns <= due_ns) {
            return;
        }
        self.valid.insert(key, due_ns);
        self.entries.push(Reverse((due_ns, key)));
    }

    /// The earliest moment noted.
    pub(crate) fn next_ns(&mut self) -> Option<u64> {
        while let Some(&Reverse((due_ns, key))) = self.entries.peek() {
            if self.valid.get(&key) == Some(&due_ns) {
                return Some(due_ns);
            }
            self.entries.pop();
        }
        None
    }

    /// Takes the earliest that is due at `now_ns`.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Key> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let Reverse((_, key)) = self.entries.pop()?;
        self.valid.remove(&key);
        Some(key)
    }

    /// Forgets what was noted for `key`.
    pub(crate) fn forget(&mut self, key: Key) {
        self.valid.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_only_when_it_is_due() {
        let mut agenda = Agenda::default();
        [(1, 30), (2, 10), (3, 20)].into_iter().for_each(|(key, due)| agenda.note(key, due));
        assert_eq!((agenda.next_ns(), agenda.take_due(9)), (Some(10), None));
        assert_eq!([agenda.take_due(25), agenda.take_due(25), agenda.take_due(25)], [Some(2), Some(3), None]);
        assert_eq!((agenda.take_due(30), agenda.next_ns()), (Some(1), None));
    }

    #[test]
    fn an_earlier_moment_replaces_a_later_one_but_not_the_reverse() {
        let mut agenda = Agenda::default();
        [40, 20, 30].into_iter().for_each(|due| agenda.note(7, due));
        assert_eq!(agenda.take_due(50), Some(7));
        assert_eq!(agenda.take_due(50), None);
    }

    #[test]
    fn what_is_forgotten_is_not_due() {
        let mut agenda = Agenda::default();
        agenda.note(1, 10);
        agenda.note(2, 20);
        agenda.forget(1);
        assert_eq!(agenda.next_ns(), Some(20));
        assert_eq!((agenda.take_due(99), agenda.take_due(99)), (Some(2), None));
    }
}
