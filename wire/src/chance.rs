//! Random numbers that belong to a frame, not to a moment: the draw of frame `n` is a function of seed, purpose and `n`.
//! So no decision shifts the draws of another, and none those of a later frame.

use std::f64::consts::TAU;

use crate::impairment::Distribution;

/// The increment of SplitMix64 (Steele, Lea, Flood 2014): 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Draws that one frame may take from one stream.
const DRAWS_PER_FRAME: u64 = 4;
/// No sample lies farther from the mean, in multiples of the jitter.
const FARTHEST: f64 = 8.0;
/// Mean and standard deviation of a Pareto distribution of shape 3 and scale 1.
const PARETO_MEAN: f64 = 1.5;
const PARETO_DEVIATION: f64 = 0.866_025_403_784_438_6;

/// SplitMix64 with random access.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of one purpose; streams of two purposes have nothing in common.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self { key: mix(mix(seed.wrapping_add(GOLDEN)) ^ mix(!purpose)) }
    }

    /// 64 random bits: those of the `position`th draw (below 4) of frame `number`.
    pub(crate) fn draw(self, number: u64, position: u64) -> u64 {
        let index = number.wrapping_mul(DRAWS_PER_FRAME).wrapping_add(position).wrapping_add(1);
        mix(self.key.wrapping_add(index.wrapping_mul(GOLDEN)))
    }

    /// Uniform in [0, 1), in steps of 2^-53.
    pub(crate) fn unit(self, number: u64, position: u64) -> f64 {
        (self.draw(number, position) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub(crate) fn happens(self, number: u64, probability: f64) -> bool {
        probability > 0.0 && self.unit(number, 0) < probability
    }

    /// A sample of the distribution with mean 0, in multiples of the jitter: the uniform one in [-1, 1), the others
    /// scaled to a standard deviation of 1 (`Paretonormal`: 0.8), then cut at 8, which takes something from a long tail.
    pub(crate) fn sample(self, number: u64, distribution: Distribution) -> f64 {
        match distribution {
            Distribution::Uniform => 2.0 * self.unit(number, 0) - 1.0,
            Distribution::Normal => self.normal(number),
            Distribution::Pareto => self.pareto(number),
            // The mixture that tc-netem(8) calls by this name.
            Distribution::Paretonormal => 0.25 * self.normal(number) + 0.75 * self.pareto(number),
        }
    }

    /// By the method of Box and Muller.
    fn normal(self, number: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit(number, 0)).ln()).sqrt();
        (radius * (TAU * self.unit(number, 1)).cos()).clamp(-FARTHEST, FARTHEST)
    }

    /// By inversion.
    fn pareto(self, number: u64) -> f64 {
        let raw = 1.0 / (1.0 - self.unit(number, 2)).cbrt();
        ((raw - PARETO_MEAN) / PARETO_DEVIATION).min(FARTHEST)
    }
}

/// The finaliser of SplitMix64.
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u64 = 200_000;

    fn sorted_samples(distribution: Distribution) -> Vec<f64> {
        let stream = Stream::new(11, 3);
        let mut samples: Vec<f64> = (0..FRAMES).map(|number| stream.sample(number, distribution)).collect();
        samples.sort_by(f64::total_cmp);
        samples
    }

    fn quantile(sorted: &[f64], share: u64) -> f64 {
        sorted[usize::try_from(FRAMES * share / 100).unwrap()]
    }

    fn mean_and_deviation(samples: &[f64]) -> (f64, f64) {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        (mean, (samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt())
    }

    fn near(found: f64, wanted: f64, tolerance: f64) -> bool {
        (found - wanted).abs() < tolerance
    }

    #[test]
    fn the_first_numbers_are_those_of_splitmix64() {
        let stream = Stream { key: 1_234_567 };
        assert_eq!(stream.draw(0, 0), 6_457_827_717_110_365_317);
        assert_eq!(stream.draw(0, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn streams_of_two_purposes_or_two_seeds_are_unlike() {
        let first = |seed, purpose| Stream::new(seed, purpose).draw(0, 0);
        let all = [first(0, 0), first(0, 1), first(1, 0), first(1, 1), first(u64::MAX, 0)];
        for (index, draw) in all.iter().enumerate() {
            assert!(!all[..index].contains(draw));
        }
        let (a, b) = (Stream::new(5, 1), Stream::new(5, 2));
        let covariance = (0..FRAMES).map(|n| (a.unit(n, 0) - 0.5) * (b.unit(n, 0) - 0.5)).sum::<f64>() / FRAMES as f64;
        assert!(covariance.abs() < 0.001, "{covariance}");
    }

    #[test]
    fn a_probability_happens_as_often_as_it_says() {
        let stream = Stream::new(7, 1);
        for probability in [0.001, 0.01, 0.3, 0.9] {
            let times = (0..FRAMES).filter(|&number| stream.happens(number, probability)).count() as f64;
            let expected = probability * FRAMES as f64;
            let tolerance = 5.0 * (expected * (1.0 - probability)).sqrt();
            assert!(near(times, expected, tolerance), "{probability}: {times}");
        }
        assert!((0..FRAMES).all(|number| stream.happens(number, 1.0) && !stream.happens(number, 0.0)));
    }

    #[test]
    fn uniform_is_flat_from_minus_one_to_one() {
        let samples = sorted_samples(Distribution::Uniform);
        for (share, wanted) in [(1, -0.98), (25, -0.5), (50, 0.0), (99, 0.98)] {
            assert!(near(quantile(&samples, share), wanted, 0.02), "{share}");
        }
        assert!(samples[0] >= -1.0 && samples[samples.len() - 1] < 1.0);
    }

    #[test]
    fn normal_has_its_bell() {
        let samples = sorted_samples(Distribution::Normal);
        for (share, wanted) in [(1, -2.326), (16, -0.994), (50, 0.0), (84, 0.994), (99, 2.326)] {
            assert!(near(quantile(&samples, share), wanted, 0.04), "{share}");
        }
        let (mean, deviation) = mean_and_deviation(&samples);
        assert!(near(mean, 0.0, 0.01) && near(deviation, 1.0, 0.01), "{mean} {deviation}");
    }

    #[test]
    fn pareto_has_a_wall_on_the_left_and_a_long_tail() {
        let samples = sorted_samples(Distribution::Pareto);
        for (share, wanted) in [(0, -0.577), (50, -0.277), (90, 0.756), (99, 3.63)] {
            assert!(near(quantile(&samples, share), wanted, 0.1), "{share}: {}", quantile(&samples, share));
        }
        assert!(samples[samples.len() - 1] <= FARTHEST);
        assert!(near(mean_and_deviation(&samples).0, 0.0, 0.02));
    }

    #[test]
    fn paretonormal_lies_between_the_two() {
        let samples = sorted_samples(Distribution::Paretonormal);
        let (mean, deviation) = mean_and_deviation(&samples);
        assert!(near(mean, 0.0, 0.02) && near(deviation, 0.68, 0.05), "{mean} {deviation}");
        assert!(samples[0] < -0.7 && quantile(&samples, 99) > 2.0);
    }
}
