//! Measured delays: sum, extremes and a histogram whose places grow with the delay, good for quantiles within 1.6 %.

/// Places for each doubling of the delay.
const PLACES_BITS: u32 = 6;
/// Delays from 2^40 ns (18 minutes) on share the last place.
const LARGEST_BITS: u32 = 40;
const PLACES: usize = ((LARGEST_BITS - PLACES_BITS + 1) as usize) << PLACES_BITS;

/// The delays of many frames, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Delays {
    frames: u64,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
    places: Box<[u32; PLACES]>,
}

impl Default for Delays {
    fn default() -> Self {
        Self { frames: 0, sum_ns: 0, min_ns: u64::MAX, max_ns: 0, places: Box::new([0; PLACES]) }
    }
}

impl Delays {
    pub(crate) fn count(&mut self, delay_ns: u64) {
        self.frames += 1;
        self.sum_ns = self.sum_ns.saturating_add(delay_ns);
        self.min_ns = self.min_ns.min(delay_ns);
        self.max_ns = self.max_ns.max(delay_ns);
        if let Some(place) = self.places.get_mut(place_of(delay_ns)) {
            *place = place.saturating_add(1);
        }
    }

    /// How many.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// All together.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The shortest; None before the first.
    #[must_use]
    pub fn min_ns(&self) -> Option<u64> {
        (self.frames > 0).then_some(self.min_ns)
    }

    /// The longest; None before the first.
    #[must_use]
    pub fn max_ns(&self) -> Option<u64> {
        (self.frames > 0).then_some(self.max_ns)
    }

    /// The delay that this share of frames does not exceed (0.5: the median); None before the first.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let counted: u64 = self.places.iter().copied().map(u64::from).sum();
        let mut below = 0;
        for (place, &count) in self.places.iter().enumerate() {
            below += u64::from(count);
            if count > 0 && below as f64 >= share * counted as f64 {
                return Some(middle_of(place).clamp(self.min_ns, self.max_ns));
            }
        }
        None
    }
}

/// Below 64 ns each delay has its own place; above, the place is told by the seven highest bits.
fn place_of(delay_ns: u64) -> usize {
    let bits = u64::BITS - delay_ns.leading_zeros();
    let shift = bits.saturating_sub(PLACES_BITS + 1);
    let place = (u64::from(shift) << PLACES_BITS) + (delay_ns >> shift);
    usize::try_from(place).map_or(PLACES - 1, |place| place.min(PLACES - 1))
}

fn middle_of(place: usize) -> u64 {
    let shift = (place >> PLACES_BITS).saturating_sub(1);
    let highest = (place - (shift << PLACES_BITS)) as u64;
    (highest << shift) + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_never_farther_off_than_its_width() {
        for exponent in 0..39 {
            for around in [0, 1, 12_345] {
                let delay = (1_u64 << exponent) + around % (1 << exponent);
                let told = middle_of(place_of(delay));
                assert!(told.abs_diff(delay) * 64 <= delay, "{delay} is told as {told}");
            }
        }
        assert_eq!(place_of(u64::MAX), PLACES - 1);
    }

    #[test]
    fn places_are_in_the_order_of_delays() {
        let places: Vec<usize> = (0..100_000).map(place_of).collect();
        assert!(places.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= 1));
    }

    #[test]
    fn quantiles_sum_and_extremes_are_those_of_what_was_counted() {
        let mut delays = Delays::default();
        assert_eq!((delays.quantile_ns(0.5), delays.min_ns(), delays.max_ns()), (None, None, None));
        (1..=1000).for_each(|ms| delays.count(ms * 1_000_000));
        for (share, wanted) in [(0.5, 500_000_000_u64), (0.99, 990_000_000), (1.0, 1_000_000_000)] {
            let told = delays.quantile_ns(share).unwrap();
            assert!(told.abs_diff(wanted) * 64 <= wanted, "{share}: {told}");
        }
        assert_eq!((delays.frames(), delays.sum_ns()), (1000, 500_500_000_000));
        assert_eq!((delays.min_ns(), delays.max_ns()), (Some(1_000_000), Some(1_000_000_000)));
    }
}
