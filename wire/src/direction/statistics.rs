//! What comes out of a direction is what was asked for. Seeds are fixed, bounds are five standard deviations.

use std::convert::Infallible;

use super::*;
use crate::frame::VNET_HEADER_LEN;
use crate::impairment::{Distribution, GilbertElliott, Rate};

const MS: u64 = 1_000_000;
const FRAMES: u64 = 50_000;

/// A frame that left: when, and its bytes.
type Left = (u64, Vec<u8>);

/// The bytes of frame `number`, 60 of them behind the offload header.
pub(super) fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; VNET_HEADER_LEN + length];
    let at = bytes.len() - 8;
    bytes[at..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(super) fn number_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[bytes.len() - 8..].try_into().unwrap())
}

/// Lets everything leave that is due until `until_ns`, each frame at its own moment.
pub(super) fn drain(direction: &mut Direction, until_ns: u64, buffers: &mut Buffers, left: &mut Vec<Left>) {
    while let Some(due_ns) = direction.next_departure_ns().filter(|due_ns| *due_ns <= until_ns) {
        let deliver = |frame: Frame<'_>| {
            left.push((due_ns, frame.as_bytes().to_vec()));
            Ok::<_, Infallible>(Delivery::Taken)
        };
        direction.depart(|| due_ns, 1, buffers, deliver).unwrap();
    }
}

/// Sends `FRAMES` numbered frames of 60 bytes, one every `gap_ns`, and gives what left.
fn pass(direction: &mut Direction, gap_ns: u64) -> Vec<Left> {
    let (mut buffers, mut left) = (Buffers::default(), Vec::new());
    for number in 0..FRAMES {
        let now_ns = number * gap_ns;
        drain(direction, now_ns, &mut buffers, &mut left);
        let bytes = numbered(number, 60);
        if let Some(frame) = direction.arrive(now_ns, Frame::new(&bytes).unwrap(), &mut buffers) {
            direction.delivered(frame, Delivery::Taken);
            left.push((now_ns, frame.as_bytes().to_vec()));
        }
    }
    drain(direction, u64::MAX, &mut buffers, &mut left);
    left
}

fn direction(impairment: Impairment) -> Direction {
    assert_eq!(impairment.check(), Ok(()));
    Direction::new(42, Way::AToB, impairment)
}

fn none() -> Impairment {
    Impairment::default()
}

/// True if `times` of `FRAMES` is what a share of them would give.
fn is_share(times: u64, share: f64) -> bool {
    let expected = share * FRAMES as f64;
    (times as f64 - expected).abs() <= 5.0 * (expected * (1.0 - share)).sqrt()
}

#[test]
fn nothing_asked_is_nothing_done() {
    let mut plain = direction(none());
    let left = pass(&mut plain, 10);
    let sent: Vec<Left> = (0..FRAMES).map(|number| (number * 10, numbered(number, 60))).collect();
    assert_eq!(left, sent);
    let counters = *plain.counters();
    let wanted = Counters {
        frames_in: FRAMES,
        bytes_in: FRAMES * 60,
        frames_out: FRAMES,
        bytes_out: FRAMES * 60,
        ..Counters::default()
    };
    assert_eq!(counters, wanted);
}

#[test]
fn delay_is_exact_and_measured() {
    let mut delayed = direction(Impairment { delay_ns: 40 * MS, ..none() });
    let left = pass(&mut delayed, 1000);
    assert!(left.iter().enumerate().all(|(number, (at_ns, _))| *at_ns == number as u64 * 1000 + 40 * MS));
    let delays = delayed.delays();
    assert_eq!((delays.min_ns(), delays.max_ns(), delays.frames()), (Some(40 * MS), Some(40 * MS), FRAMES));
    assert_eq!(delays.quantile_ns(0.99), Some(40 * MS));
}

#[test]
fn jitter_has_its_width_and_shape_and_keeps_the_order() {
    for (distribution, median, p99) in [
        (Distribution::Uniform, 0.0, 0.98),
        (Distribution::Normal, 0.0, 2.326),
        (Distribution::Pareto, -0.277, 3.63),
        (Distribution::Paretonormal, -0.17, 2.75),
    ] {
        let values = Impairment { delay_ns: 50 * MS, jitter_ns: 5 * MS, distribution, ..none() };
        // A frame each 200 ms: none is held back by the one before.
        let left = pass(&mut direction(values), 200 * MS);
        let mut offsets: Vec<f64> =
            left.iter().map(|(at_ns, bytes)| ((*at_ns - number_of(bytes) * 200 * MS) as f64 - 50e6) / 5e6).collect();
        offsets.sort_by(f64::total_cmp);
        let quantile = |share: usize| offsets[offsets.len() * share / 100];
        assert!((quantile(50) - median).abs() < 0.05, "{distribution:?}: {}", quantile(50));
        assert!((quantile(99) - p99).abs() < 0.25, "{distribution:?}: {}", quantile(99));
        let crowded = pass(&mut direction(values), 100_000);
        assert!(crowded.iter().enumerate().all(|(place, (_, bytes))| number_of(bytes) == place as u64));
        assert!(crowded.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }
}

#[test]
fn random_loss_takes_its_share_and_each_frame_alone() {
    for share in [0.01, 0.2, 1.0] {
        let mut lossy = direction(Impairment { loss: Loss::Random(share), ..none() });
        let left = pass(&mut lossy, 10);
        assert!(is_share(lossy.counters().dropped_loss, share));
        assert_eq!(left.len() as u64 + lossy.counters().dropped_loss, FRAMES);
        let pairs = left.windows(2).filter(|pair| number_of(&pair[1].1) == number_of(&pair[0].1) + 2).count() as f64;
        let expected = FRAMES as f64 * share * (1.0 - share).powi(2);
        assert!((pairs - expected).abs() <= 5.0 * expected.sqrt() + 1.0, "{share}: {pairs} gaps of one");
    }
}

#[test]
fn gilbert_elliott_loses_its_share_in_bursts_of_its_length() {
    let (p, r) = (0.02, 0.25);
    let line = GilbertElliott { p, r, loss_good: 0.0, loss_bad: 1.0 };
    let mut lossy = direction(Impairment { loss: Loss::GilbertElliott(line), ..none() });
    let left = pass(&mut lossy, 10);
    let share = lossy.counters().dropped_loss as f64 / FRAMES as f64;
    assert!((share - p / (p + r)).abs() < 0.01, "{share}");
    let gaps: Vec<u64> =
        left.windows(2).map(|pair| number_of(&pair[1].1) - number_of(&pair[0].1) - 1).filter(|gap| *gap > 0).collect();
    let burst = gaps.iter().sum::<u64>() as f64 / gaps.len() as f64;
    assert!((burst - 1.0 / r).abs() < 0.4, "{burst}");
}

#[test]
fn gilbert_elliott_loses_in_each_state_what_is_said_of_it() {
    for (p, r, loss_good, loss_bad, share) in
        [(0.0, 1.0, 0.1, 1.0, 0.1), (1.0, 0.0, 0.0, 0.3, 0.3), (0.5, 0.5, 0.2, 0.6, 0.4)]
    {
        let line = GilbertElliott { p, r, loss_good, loss_bad };
        let mut lossy = direction(Impairment { loss: Loss::GilbertElliott(line), ..none() });
        pass(&mut lossy, 10);
        assert!(is_share(lossy.counters().dropped_loss, share), "{line:?}: {}", lossy.counters().dropped_loss);
    }
}

#[test]
fn reorder_lets_its_share_overtake_by_the_whole_delay() {
    let mut swapping = direction(Impairment { delay_ns: 10 * MS, reorder: 0.1, ..none() });
    let left = pass(&mut swapping, MS);
    let early = left.iter().filter(|(at_ns, bytes)| *at_ns == number_of(bytes) * MS).count() as u64;
    let late = left.iter().filter(|(at_ns, bytes)| *at_ns == (number_of(bytes) + 10) * MS).count() as u64;
    assert_eq!(early + late, FRAMES);
    assert!(is_share(early, 0.1), "{early}");
    assert!(swapping.counters().reordered.abs_diff(early) <= 1, "only the very first has none to overtake");
}

#[test]
fn duplicate_makes_its_share_arrive_twice_and_alike() {
    let mut doubling = direction(Impairment { duplicate: 0.05, corrupt: 0.5, delay_ns: MS, ..none() });
    let left = pass(&mut doubling, 10);
    let counters = doubling.counters();
    assert!(is_share(counters.duplicated, 0.05));
    assert_eq!(left.len() as u64, FRAMES + counters.duplicated);
    assert_eq!(left.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64, counters.duplicated);
}

#[test]
fn corrupt_flips_one_bit_in_its_share_anywhere_behind_the_header() {
    let mut spoiling = direction(Impairment { corrupt: 0.2, ..none() });
    let left = pass(&mut spoiling, 10);
    let mut places = [0_u32; VNET_HEADER_LEN + 60];
    for (number, (_, bytes)) in left.iter().enumerate() {
        let flipped: Vec<(usize, u8)> = bytes
            .iter()
            .zip(numbered(number as u64, 60))
            .map(|(a, b)| a ^ b)
            .enumerate()
            .filter(|x| x.1 != 0)
            .collect();
        assert!(flipped.len() <= 1 && flipped.iter().all(|(_, bits)| bits.is_power_of_two()));
        flipped.iter().for_each(|(place, _)| places[*place] += 1);
    }
    let spoilt: u32 = places.iter().sum();
    assert_eq!(u64::from(spoilt), spoiling.counters().corrupted);
    assert!(is_share(u64::from(spoilt), 0.2));
    assert!(places[..VNET_HEADER_LEN + 14].iter().all(|times| *times == 0));
    assert!(places[VNET_HEADER_LEN + 14..].iter().all(|times| (120..330).contains(times)), "{places:?}");
}

#[test]
fn rate_spaces_frames_and_its_queue_drops_what_is_too_much() {
    // 60 bytes at 48 kbit/s take 10 ms; a frame each 5 ms is twice too much; the queue holds 50 frames.
    let rate = Rate { bits_per_second: 48_000, queue_bytes: 3000 };
    let mut slow = direction(Impairment { rate: Some(rate), delay_ns: 3 * MS, ..none() });
    let left = pass(&mut slow, 5 * MS);
    assert!(left.windows(2).all(|pair| pair[1].0 - pair[0].0 == 10 * MS));
    assert_eq!(left[0].0, 13 * MS);
    let dropped = slow.counters().dropped_queue;
    assert!(dropped.abs_diff(FRAMES / 2) <= 60, "{dropped}");
    assert_eq!(slow.delays().max_ns(), Some((50 * 10 + 3) * MS));
}

#[test]
fn a_direction_does_not_take_more_memory_than_its_limit() {
    let mut hoarding = direction(Impairment { delay_ns: 60_000 * MS, ..none() });
    let (mut buffers, whole) = (Buffers::default(), numbered(0, 60_000));
    for now_ns in 0..2000 {
        assert!(hoarding.arrive(now_ns, Frame::new(&whole).unwrap(), &mut buffers).is_none());
    }
    let reading = hoarding.reading();
    let kept = MEMORY_LIMIT / Buffers::occupied(whole.len());
    assert_eq!((reading.queued_frames, reading.counters.dropped_memory), (kept, 2000 - kept as u64));
    assert!(reading.queued_bytes <= MEMORY_LIMIT);
}
