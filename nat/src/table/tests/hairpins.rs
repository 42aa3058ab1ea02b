//! From inside to an outside address (RFC 4787 REQ-9).

use super::*;

fn hairpinning(how: &str, more: &str) -> Nat {
    let mut nat = nat(&format!(r#""hairpin": "{how}"{more}"#));
    nat.out(ALICE, EAST);
    nat
}

const INDEPENDENT: &str = r#", "filtering": "endpoint_independent""#;

#[test]
fn without_hairpinning_it_is_for_the_router() {
    let mut nat = hairpinning("none", INDEPENDENT);
    assert_eq!(nat.pass(Passage::Hairpin, udp(BOB, OUTSIDE)), "pass");
    assert_eq!(nat.table.entries(nat.now).len(), 1);
}

#[test]
fn the_receiver_sees_the_senders_outside_endpoint() {
    let mut nat = hairpinning("external_source", INDEPENDENT);
    assert_eq!(nat.pass(Passage::Hairpin, udp(BOB, OUTSIDE)), format!("hairpin {ALICE}"));
    assert_eq!(nat.pass(Passage::HairpinSource, udp(BOB, ALICE)), "198.51.100.1:1024");
    // And back the same way.
    let back = udp(ALICE, "198.51.100.1:1024");
    assert_eq!(nat.pass(Passage::Hairpin, back), format!("hairpin {BOB}"));
    assert_eq!(nat.pass(Passage::HairpinSource, udp(ALICE, BOB)), OUTSIDE);
}

#[test]
fn or_the_senders_inside_endpoint() {
    let mut nat = hairpinning("internal_source", INDEPENDENT);
    assert_eq!(nat.pass(Passage::Hairpin, udp(BOB, OUTSIDE)), format!("hairpin {ALICE}"));
    assert_eq!(nat.pass(Passage::HairpinSource, udp(BOB, ALICE)), "pass");
}

#[test]
fn the_filter_holds_for_hairpins_too() {
    let mut nat = hairpinning("external_source", "");
    assert_eq!(nat.pass(Passage::Hairpin, udp(BOB, OUTSIDE)), "filtered");
    // Alice sends to Bob's outside endpoint first.
    let mapped = nat.out(BOB, EAST);
    assert_eq!(nat.pass(Passage::Hairpin, udp(ALICE, &mapped)), format!("hairpin {BOB}"));
    assert_eq!(nat.pass(Passage::Hairpin, udp(BOB, OUTSIDE)), format!("hairpin {ALICE}"));
}

#[test]
fn to_no_mapping_it_is_for_the_router_and_makes_none() {
    let mut nat = hairpinning("external_source", "");
    assert_eq!(nat.pass(Passage::Hairpin, udp(BOB, "198.51.100.1:5")), "pass");
    assert_eq!(nat.pass(Passage::Hairpin, query(BOB, "198.51.100.1:0")), "pass");
    assert_eq!(nat.pass(Passage::Hairpin, udp(OUTSIDE, OUTSIDE)), "pass");
    assert_eq!(nat.table.entries(nat.now).len(), 1);
}

#[test]
fn forwards_are_reached_from_inside() {
    let forward = r#", "forwards": [{"protocol": "tcp", "port": 443, "to": "192.168.1.10", "to_port": 8443}]"#;
    let mut nat = hairpinning("external_source", forward);
    let fate = nat.pass(Passage::Hairpin, tcp(BOB, "198.51.100.1:443", "S"));
    assert_eq!(fate, "hairpin 192.168.1.10:8443");
    let fate = nat.pass(Passage::HairpinSource, tcp(BOB, "192.168.1.10:8443", "S"));
    assert_eq!(fate, "198.51.100.1:4000");
}

#[test]
fn each_far_endpoint_has_its_own_mapping_for_hairpins_too() {
    let mut nat = hairpinning("external_source", &format!(r#"{INDEPENDENT}, "mapping": "address_and_port_dependent""#));
    let other = nat.out(ALICE, WEST);
    assert_eq!(nat.pass(Passage::Hairpin, udp(BOB, OUTSIDE)), format!("hairpin {ALICE}"));
    let first = nat.pass(Passage::HairpinSource, udp(BOB, ALICE));
    assert_eq!(nat.pass(Passage::Hairpin, udp(BOB, &other)), format!("hairpin {ALICE}"));
    assert_ne!(nat.pass(Passage::HairpinSource, udp(BOB, ALICE)), first);
}
