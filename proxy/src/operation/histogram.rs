//! How often values fell between bounds, counted by one worker and read by others.

use super::counters::Counter;

/// Upper bounds of durations, in microseconds.
pub(super) const MICROSECONDS: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];
/// Upper bounds of what was read before a decision. A hello with a post-quantum key share has about 1,800 bytes.
pub(super) const PREFACE_BYTES: &[u64] = &[0, 16, 64, 256, 512, 1_024, 1_460, 2_048, 4_096, 8_192, 16_384];
/// Upper bounds of the reads that it took.
pub(super) const PREFACE_SEGMENTS: &[u64] = &[0, 1, 2, 3, 4, 6, 8, 16, 64];

/// How often values fell between bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: [Counter; 16],
    sum: Counter,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.len() < 16);
        Self { bounds, counts: Default::default(), sum: Counter::default() }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let place = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        if let Some(count) = self.counts.get(place) {
            count.add(1);
        }
        self.sum.add(value);
    }

    /// Each upper bound (`None`: infinity) with how many values were at most so high.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(&self.counts).scan(0, |below, (bound, count)| {
            *below += count.get();
            Some((bound, *below))
        })
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    pub(super) fn absorb(&self, other: &Self) {
        self.counts.iter().zip(&other.counts).for_each(|(mine, theirs)| mine.absorb(theirs));
        self.sum.absorb(&other.sum);
    }
}
