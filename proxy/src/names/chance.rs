//! Numbers that nobody outside can foretell: ids and the case of queries, the moment of a check.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// SipHash of a counter under a key that the standard library draws from the kernel; no two calls share an input.
#[derive(Debug, Default)]
pub(crate) struct Chance {
    key: RandomState,
    drawn: Cell<u64>,
}

impl Chance {
    /// 64 bits.
    pub(crate) fn draw(&self) -> u64 {
        self.drawn.set(self.drawn.get().wrapping_add(1));
        self.key.hash_one(self.drawn.get())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn draws_differ_within_a_source_and_between_sources() {
        let (one, other) = (Chance::default(), Chance::default());
        let drawn: HashSet<u64> = (0..1000).flat_map(|_| [one.draw(), other.draw()]).collect();
        assert_eq!(drawn.len(), 2000);
    }
}
