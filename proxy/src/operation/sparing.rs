//! Lines for ends that whoever sends packets can bring about at will: some at once, then one now and then, so that a flood of
//! them does not fill the disk. Pure: the time is an argument.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use super::close_reason::{CloseReason, ALL_LABELS};

/// Lines that may come together: what happens to a few is told of each.
const TOGETHER: u32 = 10;

/// After these, one line in so long a time.
const APART: Duration = Duration::from_secs(1);

/// The lines of ends of one kind.
#[derive(Debug, Default)]
pub(crate) struct Sparing {
    /// When the lines so far would all be due if none had come sooner than it was.
    due: Cell<Option<Instant>>,
    /// Ends without a line since the last one.
    left_out: Cell<u64>,
}

impl Sparing {
    /// Whether an end gets a line; how many before it got none, since the last that did.
    pub(crate) fn line(&self, now: Instant) -> Option<u64> {
        let due = self.due.get().map_or(now, |due| due.max(now));
        if due.duration_since(now) > APART * (TOGETHER - 1) {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.due.set(Some(due + APART));
        Some(self.left_out.take())
    }
}

/// The lines of the ends at one listener, for each reason by itself: a flood that ends in one way hides no other end.
#[derive(Debug)]
pub(crate) struct SparingByReason([Sparing; ALL_LABELS.len()]);

impl Default for SparingByReason {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Sparing::default()))
    }
}

impl SparingByReason {
    /// As [`Sparing::line`], of ends for one reason.
    pub(crate) fn line(&self, reason: CloseReason, now: Instant) -> Option<u64> {
        self.0.get(reason.index()).map_or(Some(0), |sparing| sparing.line(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_reason_are_spared_and_those_of_another_are_not() {
        let (sparing, now) = (SparingByReason::default(), Instant::now());
        assert_eq!((0..20).filter(|_| sparing.line(CloseReason::NoRule, now).is_some()).count(), 10);
        assert_eq!((0..20).filter(|_| sparing.line(CloseReason::RefusedByRule, now).is_some()).count(), 10);
    }

    #[test]
    fn a_few_are_told_each_and_of_many_one_a_second_that_counts_the_others() {
        let (sparing, begun) = (Sparing::default(), Instant::now());
        assert_eq!([(); 12].map(|()| sparing.line(begun)), [[Some(0); 10].as_slice(), &[None; 2]].concat()[..]);
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        assert_eq!((sparing.line(at(999)), sparing.line(at(1001)), sparing.line(at(1999))), (None, Some(3), None));
        assert_eq!((sparing.line(at(2001)), sparing.line(at(2002))), (Some(1), None));
        // After a long rest as at first.
        let lines: Vec<_> = (0..12).map(|_| sparing.line(at(60_000))).collect();
        assert_eq!(lines[..2], [Some(1), Some(0)]);
        assert_eq!(lines.iter().flatten().count(), 10);
    }
}
