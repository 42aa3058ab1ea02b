use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn target(name: &str) -> Target {
    Target { host: Host::Name(vec![NamePart::Literal(name.to_owned())]), port: TargetPort::Fixed(80) }
}

fn candidates(connections: &[usize]) -> Vec<Candidate> {
    let numbered = connections.iter().enumerate();
    numbered
        .map(|(index, &connections)| Candidate { healthy: true, connections, key: key(&target(&format!("t{index}"))) })
        .collect()
}

fn client() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

#[test]
fn in_order_is_the_order_of_the_file_at_every_turn() {
    for turn in 0..4 {
        assert_eq!(order(Balance::InOrder, &candidates(&[3, 2, 1]), turn, client()), [0, 1, 2]);
    }
}

#[test]
fn round_robin_begins_with_each_in_turn() {
    let turns: Vec<_> = (0..4).map(|turn| order(Balance::RoundRobin, &candidates(&[0; 3]), turn, client())).collect();
    assert_eq!(turns, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    assert_eq!(order(Balance::RoundRobin, &candidates(&[0; 3]), u64::MAX, client()).len(), 3);
}

#[test]
fn one_that_is_down_leaves_its_turns_to_all_others_alike() {
    let mut three = candidates(&[0; 3]);
    three[1].healthy = false;
    let turns: Vec<_> = (0..4).map(|turn| order(Balance::RoundRobin, &three, turn, client())).collect();
    assert_eq!(turns, [[0, 2, 1], [2, 0, 1], [0, 2, 1], [2, 0, 1]]);
}

#[test]
fn least_connections_comes_first_and_equals_take_turns() {
    assert_eq!(order(Balance::LeastConnections, &candidates(&[2, 0, 1]), 0, client()), [1, 2, 0]);
    let firsts: Vec<_> =
        (0..3).map(|turn| order(Balance::LeastConnections, &candidates(&[1, 5, 1]), turn, client())[0]).collect();
    assert_eq!(firsts, [0, 2, 2]);
}

#[test]
fn a_client_stays_where_it_was() {
    let five = candidates(&[0; 5]);
    let at = |client: &str, turn| order(Balance::SourceHash, &five, turn, client.parse().unwrap());
    assert_eq!(at("192.0.2.1", 0), at("192.0.2.1", 7));
    assert_eq!(at("192.0.2.1", 0), at("::ffff:192.0.2.1", 0));
    assert_eq!(at("2001:db8::1", 0), at("2001:db8::ffff", 0));
    let firsts: std::collections::BTreeSet<_> =
        (0..64).map(|net| at(&format!("2001:db8:0:{net:x}::1"), 0)[0]).collect();
    assert_eq!(firsts.len(), 5);
}

#[test]
fn a_target_that_goes_moves_only_its_own_clients() {
    let five = candidates(&[0; 5]);
    let four: Vec<_> = five.iter().copied().enumerate().filter(|(index, _)| *index != 2).map(|(_, it)| it).collect();
    let mut counts = [0_usize; 5];
    for number in 0..5000_u32 {
        let client = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
        let before = order(Balance::SourceHash, &five, 0, client);
        counts[before[0]] += 1;
        let after = order(Balance::SourceHash, &four, 0, client);
        let renamed: Vec<_> = after.into_iter().map(|index| if index >= 2 { index + 1 } else { index }).collect();
        let without: Vec<_> = before.into_iter().filter(|index| *index != 2).collect();
        assert_eq!(renamed, without, "{client}");
    }
    assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
}

/// These numbers may not change: clients would move at an upgrade.
#[test]
fn keys_are_the_same_in_every_process() {
    let keys = [target("a"), target("b")].map(|it| key(&it));
    let again = Target { port: TargetPort::Fixed(81), ..target("a") };
    let original = Target { port: TargetPort::Original, ..target("a") };
    let capture = Target { host: Host::Name(vec![NamePart::Capture("a".to_owned())]), ..target("a") };
    let address = Target { host: Host::Address(client()), ..target("a") };
    let all: std::collections::BTreeSet<_> =
        keys.into_iter().chain([again, original, capture, address].iter().map(key)).collect();
    assert_eq!(all.len(), 6);
    assert_eq!(keys[0], KEY_OF_A);
}

const KEY_OF_A: u64 = 7_487_233_075_864_661_806;

proptest! {
    #[test]
    fn all_are_tried_and_the_healthy_first(
        parts in proptest::collection::vec((any::<bool>(), 0..5_usize, any::<u64>()), 0..8),
        turn: u64,
        client: u32,
        balance in prop_oneof![
            Just(Balance::InOrder), Just(Balance::RoundRobin), Just(Balance::LeastConnections), Just(Balance::SourceHash)
        ],
    ) {
        let candidates: Vec<_> =
            parts.iter().map(|&(healthy, connections, key)| Candidate { healthy, connections, key }).collect();
        let order = order(balance, &candidates, turn, IpAddr::V4(Ipv4Addr::from(client)));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..candidates.len()).collect::<Vec<_>>());
        prop_assert!(order.windows(2).all(|pair| candidates[pair[0]].healthy || !candidates[pair[1]].healthy));
    }
}
