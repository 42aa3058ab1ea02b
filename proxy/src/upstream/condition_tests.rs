//! What failures, checks and time make of a candidate.

use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::model::Transport::Tcp;

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn ejection(failures: u32, duration: u64) -> Option<Ejection> {
    Some(Ejection { failures: count(failures), duration: seconds(duration) })
}

fn health(rise: u32, fall: u32) -> Option<HealthCheck> {
    Some(HealthCheck { interval: seconds(10), timeout: seconds(1), rise: count(rise), fall: count(fall) })
}

#[test]
fn connections_are_counted_while_their_guards_live() {
    let condition = Condition::new(None, None, Instant::now());
    let (one, other) = (condition.begin(), condition.begin());
    assert_eq!(condition.connections(), 2);
    drop(one);
    assert_eq!(condition.connections(), 1);
    drop(other);
    assert_eq!(condition.connections(), 0);
}

#[test]
fn failures_is_how_many_in_a_row_eject() {
    for failures in [1, 3] {
        let now = Instant::now();
        let condition = Condition::new(ejection(failures, 30), None, now);
        for _ in 1..failures {
            assert_eq!(condition.failed(Tcp, None, now), None);
            assert!(condition.is_usable(Tcp, now));
        }
        assert_eq!(condition.failed(Tcp, None, now), Some(Change::Ejected));
        assert_eq!(condition.standing(now), Standing::Ejected);
    }
}

#[test]
fn a_success_ends_the_row() {
    let now = Instant::now();
    let condition = Condition::new(ejection(2, 30), None, now);
    for _ in 0..5 {
        assert_eq!(condition.failed(Tcp, None, now), None);
        condition.connected(Tcp, now);
    }
    assert!(condition.is_usable(Tcp, now));
}

#[test]
fn duration_is_how_long_it_rests_whatever_fails_meanwhile() {
    for duration in [1, 30] {
        let begin = Instant::now();
        let condition = Condition::new(ejection(1, duration), None, begin);
        assert_eq!(condition.failed(Tcp, None, begin), Some(Change::Ejected));
        let last = begin + seconds(duration) - Duration::from_nanos(1);
        assert_eq!(condition.failed(Tcp, None, last), None);
        assert!(!condition.is_usable(Tcp, last));
        assert!(condition.is_usable(Tcp, begin + seconds(duration)));
    }
}

#[test]
fn after_its_rest_one_failure_ejects_it_again_and_one_success_frees_it() {
    let begin = Instant::now();
    let condition = Condition::new(ejection(3, 30), None, begin);
    let changes = [(); 3].map(|()| condition.failed(Tcp, None, begin));
    assert_eq!(changes, [None, None, Some(Change::Ejected)]);
    let after = begin + seconds(30);
    assert_eq!(condition.failed(Tcp, None, after), Some(Change::Ejected));
    let later = after + seconds(30);
    condition.connected(Tcp, later);
    assert_eq!(condition.failed(Tcp, None, later), None);
}

#[test]
fn failures_of_one_clients_address_alone_eject_nobody() {
    let now = Instant::now();
    let [one, same_household, other] = ["2001:db8::1", "2001:db8::2", "203.0.113.1"].map(|text| text.parse().ok());
    let condition = Condition::new(ejection(3, 30), None, now);
    for _ in 0..50 {
        assert_eq!([one, same_household].map(|client| condition.failed(Tcp, client, now)), [None, None]);
    }
    assert!(condition.is_usable(Tcp, now));
    assert_eq!(condition.failed(Tcp, other, now), Some(Change::Ejected), "it fails others too");
    let after = now + seconds(30);
    assert_eq!(
        [one; 5].map(|client| condition.failed(Tcp, client, after)),
        [None; 5],
        "nor is it kept so by one alone"
    );
    assert_eq!(condition.failed(Tcp, other, after), Some(Change::Ejected));
    condition.connected(Tcp, after);
    let after = after + seconds(30);
    assert_eq!([other; 5].map(|client| condition.failed(Tcp, client, after)), [None; 5], "another row");
    assert_eq!(condition.failed(Tcp, None, after), Some(Change::Ejected), "the proxy itself is not let in");
}

#[test]
fn without_ejection_failures_change_nothing() {
    let now = Instant::now();
    let condition = Condition::new(None, None, now);
    assert!((0..100).all(|_| condition.failed(Tcp, None, now).is_none()) && condition.is_usable(Tcp, now));
}

#[test]
fn of_many_threads_one_ejects() {
    let now = Instant::now();
    let condition = Condition::new(ejection(50, 30), None, now);
    let fail = || (0..100).filter(|_| condition.failed(Tcp, None, now).is_some()).count();
    let ejections: usize = thread::scope(|scope| {
        let threads = [scope.spawn(fail), scope.spawn(fail), scope.spawn(fail)];
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    assert_eq!(ejections, 1);
}

#[test]
fn fall_is_how_many_failed_checks_in_a_row_take_it_down_and_rise_how_many_bring_it_back() {
    for (rise, fall) in [(1, 1), (2, 3), (3, 2)] {
        let now = Instant::now();
        let condition = Condition::new(None, health(rise, fall), now);
        for _ in 1..fall {
            assert_eq!(condition.checked(false), None);
        }
        assert_eq!(condition.checked(true), None);
        for _ in 1..fall {
            assert_eq!(condition.checked(false), None);
            assert!(condition.is_usable(Tcp, now));
        }
        assert_eq!(condition.checked(false), Some(Change::Down));
        assert_eq!(condition.standing(now), Standing::Down);
        for _ in 1..rise {
            assert_eq!(condition.checked(true), None);
        }
        assert_eq!(condition.checked(false), None);
        for _ in 1..rise {
            assert_eq!(condition.checked(true), None);
            assert!(!condition.is_usable(Tcp, now));
        }
        assert_eq!(condition.checked(true), Some(Change::Up));
        assert!(condition.is_usable(Tcp, now));
    }
}

#[test]
fn a_check_frees_nobody_from_its_rest_and_says_nothing_without_health() {
    let now = Instant::now();
    let condition = Condition::new(ejection(1, 30), health(1, 1), now);
    condition.failed(Tcp, None, now);
    condition.checked(true);
    assert_eq!(condition.standing(now), Standing::Ejected);
    let unchecked = Condition::new(None, None, now);
    assert_eq!(unchecked.checked(false), None);
    assert!(unchecked.is_usable(Tcp, now));
}

proptest! {
    #[test]
    fn packing_loses_nothing(is_up: bool, otherwise in 0_u32..1 << 31) {
        let checked = Checked { is_up, otherwise };
        prop_assert_eq!(Checked::unpacked(checked.packed()), checked);
    }
}
