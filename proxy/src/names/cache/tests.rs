//! The cache's times and bounds, each with the knob that sets it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;

fn settings() -> Resolver {
    Resolver {
        servers: Vec::<SocketAddr>::new(),
        timeout: Duration::from_secs(2),
        stale: Duration::from_secs(100),
        negative: Duration::from_secs(10),
        min_ttl: Duration::from_secs(2),
        max_ttl: Duration::from_secs(60),
        cache_entries: NonZeroUsize::new(3).unwrap(),
    }
}

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn addresses(last: u8) -> Known {
    Known::Addresses([IpAddr::from([192, 0, 2, last])].into())
}

const SILENT: Known = Known::Unanswered(Fault::Silent);

/// A cache and the moment from which its tests count.
struct Story {
    cache: Cache,
    begin: Instant,
}

impl Story {
    fn new(settings: &Resolver) -> Self {
        Self { cache: Cache::new(settings), begin: Instant::now() }
    }

    fn find(&mut self, millis: u64) -> Found {
        self.cache.find(&host("nas"), self.begin + Duration::from_millis(millis))
    }

    fn learn(&mut self, millis: u64, known: Known, ttl: u64) {
        let now = self.begin + Duration::from_millis(millis);
        self.cache.learn(&host("nas"), known, Duration::from_secs(ttl), now);
    }

    fn is_fresh(&mut self, millis: u64) -> bool {
        matches!(self.find(millis), Found::Fresh(_))
    }
}

#[test]
fn addresses_hold_for_their_ttl() {
    let mut story = Story::new(&settings());
    assert_eq!(story.find(0), Found::Nothing);
    story.learn(0, addresses(1), 5);
    assert_eq!(story.find(4999), Found::Fresh(addresses(1)));
    assert!(!story.is_fresh(5000));
}

#[test]
fn min_ttl_is_the_shortest_time() {
    for (min_ttl, until) in [(2, 2000), (0, 0), (7, 7000)] {
        let mut story = Story::new(&Resolver { min_ttl: Duration::from_secs(min_ttl), ..settings() });
        story.learn(0, addresses(1), 0);
        assert_eq!(until > 0 && story.is_fresh(until - 1), until > 0);
        assert!(!story.is_fresh(until));
    }
}

#[test]
fn max_ttl_is_the_longest_time_even_below_min_ttl() {
    for (max_ttl, until) in [(60, 60_000), (30, 30_000), (1, 1000)] {
        let mut story = Story::new(&Resolver { max_ttl: Duration::from_secs(max_ttl), ..settings() });
        story.learn(0, addresses(1), 86_400);
        assert!(story.is_fresh(until - 1) && !story.is_fresh(until));
    }
}

#[test]
fn negative_answers_hold_for_at_most_negative_and_are_never_stale() {
    for known in [Known::NoSuchName, Known::NoAddresses] {
        for (negative, ttl, until) in [(10, 300, 10_000), (20, 300, 20_000), (10, 4, 4000), (10, 0, 2000)] {
            let mut story = Story::new(&Resolver { negative: Duration::from_secs(negative), ..settings() });
            story.learn(0, known.clone(), ttl);
            assert_eq!(story.find(until - 1), Found::Fresh(known.clone()));
            assert_eq!(story.find(until), Found::Nothing);
        }
    }
    let mut story = Story::new(&Resolver { negative: Duration::ZERO, ..settings() });
    story.learn(0, Known::NoSuchName, 300);
    assert_eq!(story.find(0), Found::Nothing);
}

#[test]
fn stale_is_how_long_addresses_that_ran_out_may_be_used() {
    for stale in [100, 1, 0] {
        let mut story = Story::new(&Resolver { stale: Duration::from_secs(stale), ..settings() });
        story.learn(0, addresses(1), 5);
        let last = 5000 + stale * 1000;
        assert_eq!(matches!(story.find(last.saturating_sub(1)), Found::Stale { .. }), stale > 0);
        assert_eq!(story.find(last), Found::Nothing);
    }
}

#[test]
fn after_a_failure_stale_addresses_stay_and_nobody_asks_for_a_second() {
    let mut story = Story::new(&settings());
    story.learn(0, addresses(1), 5);
    let refresh = |found| match found {
        Found::Stale { refresh, .. } => Some(refresh),
        Found::Nothing | Found::Fresh(_) => None,
    };
    assert_eq!(refresh(story.find(5000)), Some(Refresh::Untried));
    story.learn(6000, SILENT, 0);
    assert_eq!(refresh(story.find(6999)), Some(Refresh::Resting));
    assert_eq!(refresh(story.find(7000)), Some(Refresh::Failing));
    story.learn(7000, addresses(2), 5);
    assert_eq!(story.find(7000), Found::Fresh(addresses(2)));
    assert_eq!(refresh(story.find(12_000)), Some(Refresh::Untried), "a success ends the failing");
}

#[test]
fn a_failure_without_addresses_is_remembered_for_a_second() {
    let mut story = Story::new(&settings());
    story.learn(0, SILENT, 0);
    assert_eq!(story.find(999), Found::Fresh(SILENT));
    assert_eq!(story.find(1000), Found::Nothing);
    story.learn(2000, addresses(1), 5);
    story.learn(2000 + 105_000, SILENT, 0);
    assert_eq!(story.find(2000 + 105_000), Found::Fresh(SILENT), "too old to be used");
}

#[test]
fn that_a_name_is_gone_replaces_its_addresses() {
    let mut story = Story::new(&settings());
    story.learn(0, addresses(1), 5);
    story.learn(6000, Known::NoSuchName, 5);
    assert_eq!(story.find(6000), Found::Fresh(Known::NoSuchName));
    assert_eq!(story.find(11_000), Found::Nothing);
}

#[test]
fn the_name_that_was_used_longest_ago_goes_first() {
    let now = Instant::now();
    for most in [3, 4] {
        let mut cache = Cache::new(&Resolver { cache_entries: NonZeroUsize::new(most).unwrap(), ..settings() });
        for name in ["a", "b", "c"] {
            cache.learn(&host(name), addresses(1), Duration::from_secs(9), now);
        }
        assert_eq!(cache.find(&host("a"), now), Found::Fresh(addresses(1)));
        cache.learn(&host("d"), addresses(1), Duration::from_secs(9), now);
        let kept = ["a", "b", "c", "d"].map(|name| cache.find(&host(name), now) != Found::Nothing);
        assert_eq!(kept, [true, most == 4, true, true]);
    }
}

proptest! {
    #[test]
    fn the_cache_stays_within_its_bound_and_orders_each_entry_once(
        steps in prop::collection::vec((0_u8..8, 0_u8..4, 0_u64..20), 0..200),
    ) {
        let mut cache = Cache::new(&settings());
        let mut now = Instant::now();
        for (name, what, seconds) in steps {
            let host = host(&format!("host{}", char::from(b'a' + name)));
            let known = match what {
                0 => addresses(1),
                1 => Known::NoSuchName,
                2 => SILENT,
                _ => {
                    cache.find(&host, now);
                    continue;
                }
            };
            cache.learn(&host, known, Duration::from_secs(seconds), now);
            now += Duration::from_secs(seconds);
            prop_assert!(cache.entries.len() <= 3);
            let ordered: Vec<_> = cache.order.iter().map(|(used, host)| (cache.entries[host].used, *used)).collect();
            prop_assert_eq!(ordered.len(), cache.entries.len());
            prop_assert!(ordered.iter().all(|(of_entry, of_order)| of_entry == of_order));
        }
    }
}
