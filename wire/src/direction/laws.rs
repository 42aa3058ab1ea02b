//! What holds for every impairment and all traffic, tried on many of both, drawn at random from fixed seeds.

use super::statistics::{drain, number_of, numbered};
use super::*;
use crate::impairment::{Distribution, GilbertElliott, Rate};

const CASES: u64 = 300;
const FRAMES: u64 = 200;

/// Draws of one case.
struct Dice {
    stream: Stream,
    thrown: u64,
}

impl Dice {
    fn new(case: u64) -> Self {
        Self { stream: Stream::new(case, 99), thrown: 0 }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.thrown += 1;
        self.stream.draw(self.thrown, 0) % end
    }

    fn share(&mut self) -> f64 {
        // Often zero or all, for there the corners are.
        match self.below(4) {
            0 => self.below(2) as f64,
            _ => self.below(100) as f64 / 100.0,
        }
    }

    fn impairment(&mut self) -> Impairment {
        let delay_ns = self.below(3) * self.below(20_000);
        let reorder = if delay_ns > 0 && self.below(2) == 0 { self.share() } else { 0.0 };
        let loss = match self.below(3) {
            0 => Loss::None,
            1 => Loss::Random(self.share() / 2.0),
            _ => Loss::GilbertElliott(GilbertElliott {
                p: self.share(),
                r: self.share(),
                loss_good: self.share() / 2.0,
                loss_bad: self.share(),
            }),
        };
        let distribution = match self.below(4) {
            0 => Distribution::Uniform,
            1 => Distribution::Normal,
            2 => Distribution::Pareto,
            _ => Distribution::Paretonormal,
        };
        let rate = (self.below(2) == 0)
            .then(|| Rate { bits_per_second: 1_000_000 + self.below(1 << 34), queue_bytes: 1514 + self.below(20_000) });
        let jitter_ns = if delay_ns > 0 { self.below(delay_ns) } else { 0 };
        let (duplicate, corrupt) = (self.share() / 2.0, if self.below(2) == 0 { 0.0 } else { self.share() });
        let made = Impairment { delay_ns, jitter_ns, distribution, loss, reorder, duplicate, corrupt, rate };
        assert_eq!(made.check(), Ok(()), "{made:?}");
        made
    }
}

/// A case played: what left and when, and the direction after it.
struct Played {
    left: Vec<(u64, Vec<u8>)>,
    lengths: Vec<usize>,
    direction: Direction,
}

/// Traffic of the case through `impairment`, which `change` replaces half-way.
fn play(case: u64, impairment: Impairment, change: Option<Impairment>) -> Played {
    let mut dice = Dice::new(case + 1_000_000);
    let (mut direction, mut buffers) = (Direction::new(case, Way::BToA, impairment), Buffers::default());
    let (mut left, mut lengths, mut now_ns) = (Vec::new(), Vec::new(), 0);
    for number in 0..FRAMES {
        if let Some(change) = change.filter(|_| number == FRAMES / 2) {
            direction.change(now_ns, change);
        }
        now_ns += dice.below(2000);
        drain(&mut direction, now_ns, &mut buffers, &mut left);
        let length = 22 + usize::try_from(dice.below(3) * dice.below(740)).unwrap();
        lengths.push(length);
        let bytes = numbered(number, length);
        if let Some(frame) = direction.arrive(now_ns, Frame::new(&bytes).unwrap(), &mut buffers) {
            direction.delivered(frame, Delivery::Taken);
            left.push((now_ns, bytes.clone()));
        }
    }
    drain(&mut direction, u64::MAX, &mut buffers, &mut left);
    Played { left, lengths, direction }
}

/// Each case with its impairment, and the one that it changes to.
fn cases() -> impl Iterator<Item = (u64, Impairment, Impairment)> {
    (0..CASES).map(|case| {
        let mut dice = Dice::new(case);
        (case, dice.impairment(), dice.impairment())
    })
}

#[test]
fn every_frame_is_accounted_for() {
    for (case, first, second) in cases() {
        let Played { left, direction, .. } = play(case, first, Some(second));
        let counters = direction.counters();
        let dropped = counters.dropped_loss + counters.dropped_queue + counters.dropped_memory;
        assert_eq!(left.len() as u64, counters.frames_out, "case {case}");
        assert_eq!(counters.frames_in + counters.duplicated, counters.frames_out + dropped, "case {case}");
        assert_eq!(direction.delays().frames(), counters.frames_out, "case {case}");
        assert_eq!(direction.queued_bytes, 0, "case {case}");
    }
}

#[test]
fn order_is_kept_unless_reorder_is_asked_for_even_through_a_change() {
    let mut swapped = 0;
    for (case, first, second) in cases() {
        let untouched = |values| Impairment { corrupt: 0.0, ..values };
        let Played { left, direction, .. } = play(case, untouched(first), Some(untouched(second)));
        let is_in_order = left.windows(2).all(|pair| number_of(&pair[0].1) <= number_of(&pair[1].1));
        swapped += u64::from(!is_in_order);
        assert!(is_in_order || first.reorder > 0.0 || second.reorder > 0.0, "case {case}");
        assert!(is_in_order || direction.counters().reordered > 0, "case {case}");
        assert!(left.windows(2).all(|pair| pair[0].0 <= pair[1].0), "case {case}");
    }
    assert!(swapped > CASES / 10, "reorder was hardly tried: {swapped}");
}

#[test]
fn bytes_are_unchanged_unless_corrupt_is_asked_for() {
    for (case, first, second) in cases() {
        let untouched = |values| Impairment { corrupt: 0.0, ..values };
        let Played { left, lengths, .. } = play(case, untouched(first), Some(untouched(second)));
        for (_, bytes) in left {
            let number = number_of(&bytes);
            assert_eq!(bytes, numbered(number, lengths[usize::try_from(number).unwrap()]), "case {case}");
        }
    }
}

#[test]
fn a_seed_and_its_arrivals_have_one_outcome_and_another_seed_another() {
    let mut differing = 0;
    for (case, first, second) in cases() {
        let played = play(case, first, Some(second));
        assert_eq!(played.left, play(case, first, Some(second)).left, "case {case}");
        let mut other = Direction::new(case + 1, Way::BToA, first);
        let mut same = Direction::new(case, Way::BToA, first);
        differing += u64::from((0..FRAMES).any(|number| other.is_lost(number) != same.is_lost(number)));
    }
    assert!(differing > CASES / 4, "{differing}");
}

#[test]
fn one_decision_does_not_shift_the_draws_of_another() {
    let jitter = Impairment { delay_ns: 900_000, jitter_ns: 900_000, ..Impairment::default() };
    // Frames far enough apart that order does not hold them.
    let departures = |impairment: Impairment| {
        let (mut direction, mut buffers, mut left) =
            (Direction::new(3, Way::AToB, impairment), Buffers::default(), Vec::new());
        for number in 0..FRAMES {
            let bytes = numbered(number, 60);
            assert!(direction.arrive(number << 24, Frame::new(&bytes).unwrap(), &mut buffers).is_none());
            drain(&mut direction, (number + 1) << 24, &mut buffers, &mut left);
        }
        left
    };
    let alone: Vec<u64> = departures(jitter).into_iter().map(|(at_ns, _)| at_ns).collect();
    let doubled = departures(Impairment { duplicate: 0.5, loss: Loss::Random(0.3), ..jitter });
    assert!(doubled.iter().all(|(at_ns, bytes)| alone[usize::try_from(number_of(bytes)).unwrap()] == *at_ns));
    assert!(doubled.len() as u64 != FRAMES);
}

#[test]
fn the_two_ways_of_a_wire_have_fates_of_their_own() {
    let lossy = Impairment { loss: Loss::Random(0.5), ..Impairment::default() };
    let (mut there, mut back) = (Direction::new(1, Way::AToB, lossy), Direction::new(1, Way::BToA, lossy));
    let alike = (0..1000).filter(|&number| there.is_lost(number) == back.is_lost(number)).count();
    assert!((400..600).contains(&alike), "{alike}");
}

#[test]
fn a_queue_holds_no_more_than_it_may() {
    for (case, first, _) in cases() {
        let Some(rate) = first.rate else {
            continue;
        };
        let plain = Impairment { rate: first.rate, ..Impairment::default() };
        let Played { direction, .. } = play(case, plain, None);
        // A full queue takes this long to be sent; no frame waits longer.
        let longest_ns = u128::from(rate.queue_bytes) * 8_000_000_000 / u128::from(rate.bits_per_second);
        let found = direction.delays().max_ns().unwrap_or(0);
        assert!(u128::from(found) <= longest_ns + 1, "case {case}: {found} > {longest_ns}");
    }
}

#[test]
fn a_change_rules_what_comes_and_leaves_alone_what_has_come() {
    let (mut buffers, mut left) = (Buffers::default(), Vec::new());
    let delayed = |delay_ns| Impairment { delay_ns, ..Impairment::default() };
    let mut direction = Direction::new(1, Way::AToB, delayed(100));
    let mut send = |direction: &mut Direction, number: u64| {
        let bytes = numbered(number, 60);
        assert!(direction.arrive(number, Frame::new(&bytes).unwrap(), &mut buffers).is_none());
    };
    send(&mut direction, 0);
    direction.change(0, delayed(1000));
    send(&mut direction, 1);
    direction.change(1, delayed(10));
    send(&mut direction, 2);
    drain(&mut direction, u64::MAX, &mut Buffers::default(), &mut left);
    let seen: Vec<(u64, u64)> = left.iter().map(|(at_ns, bytes)| (number_of(bytes), *at_ns)).collect();
    assert_eq!(seen, [(0, 100), (1, 1001), (2, 1001)]);
}

/// Three frames at a moment, the rate changed at another, and a frame that comes then: when each leaves.
fn left_around_a_change_of_rate(before: u64, after: Option<u64>, at_ns: u64) -> Vec<(u64, u64)> {
    let (mut buffers, mut left) = (Buffers::default(), Vec::new());
    let line = |bits_per_second| Rate { bits_per_second, queue_bytes: 10_000 };
    let values = |rate: Option<u64>| Impairment { delay_ns: 5000, rate: rate.map(line), ..Impairment::default() };
    let mut direction = Direction::new(1, Way::AToB, values(Some(before)));
    for (number, now_ns) in [(0, 0), (1, 0), (2, 0), (3, at_ns)] {
        if number == 3 {
            drain(&mut direction, now_ns, &mut buffers, &mut left);
            direction.change(now_ns, values(after));
        }
        let bytes = numbered(number, 125);
        assert!(direction.arrive(now_ns, Frame::new(&bytes).unwrap(), &mut buffers).is_none());
    }
    drain(&mut direction, u64::MAX, &mut buffers, &mut left);
    assert_eq!(direction.queued_bytes, 0);
    left.iter().map(|(at_ns, bytes)| (number_of(bytes), *at_ns)).collect()
}

#[test]
fn what_waits_for_the_line_is_sent_at_its_new_rate() {
    const MS: u64 = 1_000_000;
    const NOW: u64 = 1000 * MS;
    let faster = left_around_a_change_of_rate(1, Some(1_000_000), NOW);
    assert_eq!(faster, [1, 2, 3, 4].map(|nth| (nth - 1, NOW + nth * MS + 5000)));
    let endless = left_around_a_change_of_rate(1, None, NOW);
    assert_eq!(endless, [0, 1, 2, 3].map(|number| (number, NOW + 5000)));
    // The first has left, the second is being sent and is sent as it began.
    let slower = left_around_a_change_of_rate(1_000_000, Some(1000), MS + MS / 2);
    assert_eq!(slower, [(0, MS), (1, 2 * MS), (2, 1002 * MS), (3, 2002 * MS)].map(|(number, at)| (number, at + 5000)));
}

#[test]
fn a_far_end_that_is_gone_stops_the_departures_and_counts_nothing() {
    let mut buffers = Buffers::default();
    let mut direction = Direction::new(1, Way::AToB, Impairment { delay_ns: 1, ..Impairment::default() });
    assert!(direction.arrive(0, Frame::new(&[0; 64]).unwrap(), &mut buffers).is_none());
    assert_eq!(direction.depart(|| 1, 9, &mut buffers, |_| Err("gone")), Err("gone"));
    assert_eq!(direction.counters().frames_out, 0);
}
