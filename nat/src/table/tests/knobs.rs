//! Each key of the configuration has its effect.

use super::*;
use std::collections::BTreeSet;
use std::time::Instant;

const BEHAVIOURS: [&str; 3] = ["endpoint_independent", "address_dependent", "address_and_port_dependent"];

const FORWARD_TO_ALICE: &str = r#""forwards": [{"protocol": "udp", "port": 4000, "to": "192.168.1.10"}]"#;

#[test]
fn mapping_depends_on_what_it_says() {
    for (mapping, expected) in BEHAVIOURS.into_iter().zip([[true, true], [true, false], [false, false]]) {
        let mut nat = nat(&format!(r#""mapping": "{mapping}""#));
        let first = nat.out(ALICE, EAST);
        assert_eq!(first, OUTSIDE);
        assert_eq!([EAST_OTHER_PORT, WEST].map(|far| nat.out(ALICE, far) == first), expected, "{mapping}");
        assert_eq!(nat.out(ALICE, EAST), first);
    }
}

#[test]
fn filtering_depends_on_what_it_says() {
    for (filtering, expected) in BEHAVIOURS.into_iter().zip([[true, true], [true, false], [false, false]]) {
        let mut nat = nat(&format!(r#""filtering": "{filtering}""#));
        nat.out(ALICE, EAST);
        assert_eq!(nat.back(EAST, OUTSIDE), ALICE);
        let admitted = [EAST_OTHER_PORT, WEST].map(|far| nat.back(far, OUTSIDE) == ALICE);
        assert_eq!(admitted, expected, "{filtering}");
        assert_eq!(nat.table.counters().inbound, 1 + expected.iter().filter(|is_in| **is_in).count() as u64);
    }
}

/// With a mapping of its own for each far endpoint, a filter asks what was sent by that very mapping.
#[test]
fn filtering_is_of_each_mapping() {
    let mut nat = nat(r#""mapping": "address_and_port_dependent", "filtering": "address_dependent""#);
    let (to_east, to_west) = (nat.out(ALICE, EAST), nat.out(ALICE, WEST));
    assert_eq!(nat.back(EAST_OTHER_PORT, &to_east), ALICE);
    assert_eq!(nat.back(EAST_OTHER_PORT, &to_west), "filtered");
}

#[test]
fn what_comes_in_by_another_mapping_does_not_move_a_conversation() {
    let mut nat = nat(r#""mapping": "address_and_port_dependent", "filtering": "address_dependent""#);
    let (first, second) = (nat.out(ALICE, EAST), nat.out(ALICE, EAST_OTHER_PORT));
    assert_eq!(nat.back(EAST_OTHER_PORT, &first), ALICE);
    assert_eq!(nat.out(ALICE, EAST_OTHER_PORT), second);
}

#[test]
fn a_reply_leaves_by_the_endpoint_its_question_came_to() {
    let mut nat = nat(r#""mapping": "address_and_port_dependent", "filtering": "endpoint_independent""#);
    let mapped = nat.out(ALICE, EAST);
    assert_eq!(nat.back(WEST, &mapped), ALICE);
    assert_eq!(nat.out(ALICE, WEST), mapped);
}

#[test]
fn one_source_port_of_two_hosts_is_two_outside_ports() {
    for protocol in [tcp(BOB, EAST, "S"), udp(BOB, EAST), query(BOB, "203.0.113.10:0")] {
        let mut nat = nat("");
        let Packet::Flow { flow, signal } = protocol else { panic!() };
        let of_alice = Packet::Flow { flow: Flow { source: endpoint(ALICE), ..flow }, signal };
        assert_eq!(nat.pass(Passage::Outbound, of_alice), OUTSIDE);
        assert_eq!(nat.pass(Passage::Outbound, protocol), "198.51.100.1:1024");
    }
}

#[test]
fn ports_are_of_the_range_and_run_out() {
    let mut nat = nat(r#""ports": {"first": 2000, "last": 2001, "allocation": "sequential"}"#);
    let given = [4000, 4001, 4002].map(|port| nat.out(&format!("192.168.1.10:{port}"), EAST));
    assert_eq!(given, ["198.51.100.1:2000", "198.51.100.1:2001", "no_port"]);
    nat.after(300.0);
    assert_eq!(nat.out("192.168.1.10:4002", EAST), "198.51.100.1:2000");
}

#[test]
fn parity_is_kept_or_not() {
    for (parity, expected) in [(true, 1025), (false, 1024)] {
        let mut nat = nat(&format!(r#""ports": {{"allocation": "sequential", "parity": {parity}}}"#));
        assert_eq!(port_of(&nat.out("192.168.1.10:5001", EAST)), expected);
    }
}

#[test]
fn random_ports_come_from_the_seed() {
    let draw = |seed| {
        let settings = nat(r#""ports": {"allocation": "random"}"#).table.settings;
        let mut nat = Nat { table: Table::new(settings, seed), now: Duration::ZERO };
        (1..20).map(|port| nat.out(&format!("192.168.1.10:{port}"), EAST)).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn each_subscriber_has_a_block_and_no_more() {
    let mut nat = nat(r#""block_size": 10, "ports": {"first": 2000, "last": 2029, "allocation": "random"}"#);
    let mut blocks = BTreeSet::new();
    for host in 1..=3 {
        let given: Vec<_> = (0..11).map(|port| nat.out(&format!("192.168.1.{host}:{}", 5000 + port), EAST)).collect();
        let ports: BTreeSet<_> = given[..10].iter().map(|end| port_of(end)).collect();
        let (first, last) = (*ports.first().unwrap(), *ports.last().unwrap());
        assert_eq!((ports.len(), last - first, first % 10), (10, 9, 0), "{ports:?}");
        assert_eq!(given[10], "no_port");
        blocks.insert(first);
    }
    assert_eq!(blocks.len(), 3);
    assert_eq!(nat.out("192.168.1.4:5000", EAST), "no_port");
    // All blocks come back with their last session, each to the host whose address it follows from.
    nat.after(300.0);
    let first_of = |nat: &mut Nat, host| port_of(&nat.out(&format!("192.168.1.{host}:5000"), EAST)) / 10;
    let again: Vec<_> = [4, 2, 3].map(|host| first_of(&mut nat, host)).to_vec();
    assert_eq!(again.iter().collect::<BTreeSet<_>>().len(), 3);
    nat.after(300.0);
    assert_eq!([3, 2, 4].map(|host| first_of(&mut nat, host)), [again[2], again[1], again[0]]);
}

#[test]
fn a_block_without_a_free_port_is_given_back() {
    let forward = |port| format!(r#"{{"protocol": "udp", "port": {port}, "to": "192.168.1.99"}}"#);
    let (ports, forwards) = (r#""ports": {"first": 2000, "last": 2001}"#, [forward(2000), forward(2001)].join(", "));
    let mut nat = nat(&format!(r#""block_size": 2, {ports}, "forwards": [{forwards}]"#));
    assert_eq!(nat.out(ALICE, EAST), "no_port");
    assert!(nat.table.is_clean());
    assert_eq!(nat.pass(Passage::Outbound, tcp(BOB, EAST, "S")), "198.51.100.1:2000");
}

/// A flood of hosts that get no block must not cost a walk over all blocks for each packet.
#[test]
fn where_all_blocks_are_held_that_is_found_at_once() {
    let mut nat = nat(r#""block_size": 1, "ports": {"first": 1}"#);
    let host = |number: u32| format!("{}:4000", std::net::Ipv4Addr::from(0x0a00_0000 + number));
    let begun = Instant::now();
    for number in 0..65_535 {
        assert_ne!(nat.out(&host(number), EAST), "no_port");
    }
    let to_take_all = begun.elapsed();
    // The quickest of some: a busy machine may hold up any one of them.
    let to_refuse = (0..10).map(|_| {
        let begun = Instant::now();
        for number in 0..2000 {
            assert_eq!(nat.out(&host(200_000 + number), EAST), "no_port");
        }
        begun.elapsed()
    });
    let to_refuse = to_refuse.min().unwrap();
    assert!(to_refuse < to_take_all, "{to_refuse:?} to refuse 2000, {to_take_all:?} to give 65535");
}

#[test]
fn blocks_spread_over_the_outside_addresses() {
    let keys = r#""block_size": 100, "ports": {"first": 2000, "last": 2199}"#;
    let mut nat = nat_at(r#"["198.51.100.1", "198.51.100.2"]"#, keys);
    let hosts: BTreeSet<_> = (1..=4).map(|host| nat.out(&format!("192.168.1.{host}:2000"), EAST)).collect();
    assert_eq!(hosts.len(), 4);
    assert_eq!(hosts.iter().filter(|end| end.starts_with("198.51.100.2:")).count(), 2);
}

/// RFC 4787 REQ-1: what a forward leads to has one outside endpoint too, however addresses are chosen for others.
#[test]
fn a_forwarded_endpoint_leaves_by_one_address() {
    let forward = r#""forwards": [{"protocol": "udp", "port": 4000, "to": "192.168.1.10"}]"#;
    let mut nat = nat_at(r#"["198.51.100.1", "198.51.100.2"]"#, &format!(r#""pooling": "arbitrary", {forward}"#));
    let first = nat.out(ALICE, EAST);
    assert_eq!([nat.out(ALICE, EAST_OTHER_PORT), nat.out(ALICE, WEST)], [first.clone(), first]);
}

/// RFC 4787 REQ-2: with blocks each host is paired with the address of its block.
#[test]
fn a_forwarded_endpoint_leaves_by_the_address_of_its_hosts_block() {
    let forward = r#""forwards": [{"protocol": "udp", "port": 4000, "to": "192.168.1.20"}]"#;
    let keys = format!(r#""block_size": 10, "ports": {{"first": 2000, "last": 2039}}, {forward}"#);
    let mut nat = nat_at(r#"["198.51.100.1", "198.51.100.2"]"#, &keys);
    assert_eq!(nat.out(BOB, EAST), "198.51.100.2:4000");
    assert_eq!(nat.out("192.168.1.20:2021", EAST), "198.51.100.2:2000");
    nat.after(300.0).table.expire(Duration::from_secs(300));
    assert!(nat.table.is_clean());
}

#[test]
fn pooling_is_paired_or_arbitrary() {
    for (pooling, expected) in [("paired", 1), ("arbitrary", 2)] {
        let mut nat = nat_at(r#"["198.51.100.1", "198.51.100.2"]"#, &format!(r#""pooling": "{pooling}""#));
        let mut addresses_of = |host| -> BTreeSet<String> {
            let ends = (4000..4010).map(|port| nat.out(&format!("192.168.1.{host}:{port}"), EAST));
            ends.map(|end| end.split(':').next().unwrap().to_owned()).collect()
        };
        let (alice, bob) = (addresses_of(10), addresses_of(11));
        assert_eq!((alice.len(), bob.len()), (expected, expected), "{pooling}");
        assert_eq!(alice.union(&bob).count(), 2, "{pooling}: both addresses are in use");
    }
}

#[test]
fn a_subscriber_has_at_most_so_many_sessions() {
    let mut nat = nat(r#""sessions_per_subscriber": 2, "filtering": "endpoint_independent""#);
    assert_eq!([EAST, WEST, EAST_OTHER_PORT].map(|far| nat.out(ALICE, far)), [OUTSIDE, OUTSIDE, "subscriber_full"]);
    assert_eq!(nat.back(EAST_OTHER_PORT, OUTSIDE), "subscriber_full");
    assert_eq!(nat.back(WEST, OUTSIDE), ALICE);
    assert_ne!(nat.out(BOB, EAST), "subscriber_full");
    nat.after(300.0);
    assert_eq!(nat.out(ALICE, EAST_OTHER_PORT), OUTSIDE);
}

#[test]
fn all_sessions_together_have_a_limit() {
    let mut nat = nat("");
    nat.table = nat.table.with_most_sessions(2);
    assert_eq!([EAST, WEST, EAST_OTHER_PORT].map(|far| nat.out(ALICE, far)), [OUTSIDE, OUTSIDE, "table_full"]);
    assert_eq!(nat.table.counters().dropped[&crate::table::Drop::TableFull], 1);
}

/// A flood from outside, from any number of senders, must not keep the inside from talking.
#[test]
fn strangers_take_half_of_the_room_at_most() {
    let stranger = |number: u8| format!("203.0.113.{number}:9");
    for mapped in [r#""filtering": "endpoint_independent""#, FORWARD_TO_ALICE] {
        let mut nat = nat(mapped);
        nat.table = nat.table.with_most_sessions(20);
        nat.out(ALICE, EAST);
        let let_in = (1..=40).filter(|number| nat.back(&stranger(*number), OUTSIDE) == ALICE).count();
        assert_eq!(let_in, 10);
        assert_eq!(nat.table.counters().dropped[&crate::table::Drop::TableFull], 30);
        // Whom the inside answers is no stranger and makes room for one; so does one who stays away.
        assert_eq!(nat.out(ALICE, &stranger(1)), OUTSIDE);
        assert_eq!(nat.back(&stranger(100), OUTSIDE), ALICE);
        assert_ne!(nat.out(BOB, EAST), "table_full");
        nat.after(300.0);
        assert_eq!(nat.out(ALICE, EAST), OUTSIDE);
        assert_eq!((1..=40).filter(|number| nat.back(&stranger(*number), OUTSIDE) == ALICE).count(), 10);
    }
}

/// So must what the router itself answers to each of many senders.
#[test]
fn the_routers_own_take_half_of_the_room_at_most() {
    let mut nat = nat("");
    nat.table = nat.table.with_most_sessions(20);
    for number in 1..=40 {
        assert_eq!(nat.out(OUTSIDE, &format!("203.0.113.{number}:9")), "pass");
    }
    assert_eq!(nat.table.sessions.len(), 10);
    assert_ne!(nat.out(ALICE, EAST), "table_full");
}

#[test]
fn a_forward_leads_inside_whoever_sends_and_back_by_its_port() {
    let mut nat = nat(r#""forwards": [{"protocol": "udp", "port": 53, "to": "192.168.1.10", "to_port": 4000}]"#);
    assert_eq!(nat.back(WEST, "198.51.100.1:53"), ALICE);
    assert_eq!(nat.out(ALICE, WEST), "198.51.100.1:53");
    assert_eq!(nat.out(ALICE, EAST), "198.51.100.1:53");
    nat.after(1e6);
    assert_eq!(nat.back(WEST, "198.51.100.1:53"), ALICE);
    let of_tcp = nat.pass(Passage::Inbound, tcp(WEST, "198.51.100.1:53", "S"));
    assert_eq!(of_tcp, "pass");
}

#[test]
fn the_port_of_a_forward_is_given_to_nobody() {
    let mut nat = nat(r#""forwards": [{"protocol": "udp", "port": 4000, "to": "192.168.1.20"}]"#);
    assert_eq!(nat.out(ALICE, EAST), "198.51.100.1:1024");
}

#[test]
fn what_has_no_mapping_passes_or_is_dropped() {
    assert_eq!(nat("").back(EAST, OUTSIDE), "pass");
    assert_eq!(nat(r#""unmapped": "drop""#).back(EAST, OUTSIDE), "unmapped");
    // The router's own conversations go on.
    let mut nat = nat(r#""unmapped": "drop""#);
    assert_eq!(nat.out(OUTSIDE, EAST), "pass");
    assert_eq!(nat.back(EAST, OUTSIDE), "pass");
}

#[test]
fn a_port_of_the_routers_own_is_given_to_nobody() {
    let mut nat = nat(r#""filtering": "endpoint_independent""#);
    assert_eq!(nat.out(OUTSIDE, EAST), "pass");
    assert_eq!(nat.out(ALICE, EAST), "198.51.100.1:1024");
    assert_eq!(nat.back(EAST, OUTSIDE), "pass");
    nat.after(300.0);
    assert_eq!(nat.out(ALICE, EAST), OUTSIDE);
}

#[test]
fn the_routers_own_port_stays_its_own_beside_a_mapping() {
    let mut nat = nat(r#""filtering": "endpoint_independent""#);
    assert_eq!(nat.out(ALICE, EAST), OUTSIDE);
    assert_eq!(nat.out(OUTSIDE, WEST), "pass");
    assert_eq!([nat.back(WEST, OUTSIDE), nat.back(EAST, OUTSIDE)], ["pass", ALICE]);
}

#[test]
fn whom_the_router_sent_to_is_not_whom_an_inside_host_did() {
    let mut nat = nat(r#""filtering": "address_dependent""#);
    nat.out(ALICE, EAST);
    assert_eq!(nat.out(OUTSIDE, WEST), "pass");
    assert_eq!(nat.back("203.0.113.20:9", OUTSIDE), "filtered");
}

#[test]
fn each_outside_address_is_the_routers_own() {
    let mut nat = nat_at(r#"["198.51.100.1", "198.51.100.2"]"#, "");
    assert_eq!(nat.out("198.51.100.2:4000", EAST), "pass");
}

/// Nothing outside could tell the two apart: the router sends, and what comes back is the inside host's.
#[test]
fn the_very_session_of_an_inside_host_stays_its_own() {
    let mut nat = nat("");
    nat.out(ALICE, EAST);
    assert_eq!(nat.out(OUTSIDE, EAST), "pass");
    assert_eq!(nat.back(EAST, OUTSIDE), ALICE);
    nat.after(200.0).out(OUTSIDE, EAST);
    assert_eq!(nat.after(100.0).back(EAST, OUTSIDE), "pass");
}

#[test]
fn identifiers_of_pings_have_no_parity() {
    let mut nat = nat(r#""ports": {"allocation": "sequential", "parity": true}"#);
    assert_eq!(nat.pass(Passage::Outbound, query("192.168.1.10:77", "203.0.113.10:0")), "198.51.100.1:1024");
}

#[test]
fn a_router_without_an_address_yet_is_left_alone() {
    assert_eq!(nat("").out("0.0.0.0:68", "255.255.255.255:67"), "pass");
}

#[test]
fn what_cannot_be_translated_does_not_leave() {
    let mut nat = nat("");
    let gre = |source: &str| Packet::Other { source: *endpoint(source).ip() };
    assert_eq!(nat.pass(Passage::Outbound, gre(ALICE)), "other_protocol");
    assert_eq!(nat.pass(Passage::Outbound, gre(OUTSIDE)), "pass");
    assert_eq!(nat.pass(Passage::Inbound, gre(EAST)), "pass");
    assert_eq!(nat.pass(Passage::Outbound, answer(ALICE, EAST)), "no_session");
}

#[test]
fn a_ping_is_answered_by_whom_it_asked() {
    let mut nat = nat("");
    assert_eq!(nat.pass(Passage::Outbound, query("192.168.1.10:77", "203.0.113.10:0")), "198.51.100.1:1024");
    let reply = |from| answer(from, "198.51.100.1:1024");
    assert_eq!(nat.pass(Passage::Inbound, reply("203.0.113.10:0")), "192.168.1.10:77");
    assert_eq!(nat.pass(Passage::Inbound, reply("203.0.113.20:0")), "filtered");
    assert_eq!(nat.pass(Passage::Inbound, query("203.0.113.10:1024", "198.51.100.1:0")), "pass");
}

#[test]
fn what_the_router_sends_from_another_outside_address_is_its_own() {
    let mut nat = nat("");
    nat.table = nat.table.with_own(vec!["198.51.100.9".parse().unwrap()]);
    for _ in 0..2 {
        assert_eq!(nat.out("198.51.100.9:4000", EAST), "pass");
        assert_eq!(nat.out(ALICE, EAST), OUTSIDE);
        nat.table.flush();
    }
}
