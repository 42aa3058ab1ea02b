//! Timers: exact to the nanosecond, each of its own kind, extended by what `refresh` says.

use super::*;

const JUST_BEFORE: Duration = Duration::from_nanos(1);

/// Whether the far end still reaches Alice just before and at so many seconds from now.
fn reaches(nat: &mut Nat, packet: Packet, seconds: f64) -> [bool; 2] {
    let at = nat.now + Duration::from_secs_f64(seconds);
    [at - JUST_BEFORE, at].map(|moment| {
        nat.table.expire(moment);
        let Packet::Flow { flow, .. } = packet else { panic!() };
        nat.table.entries(moment).iter().any(|entry| entry.outside == flow.destination)
    })
}

#[test]
fn each_protocol_has_its_own_timer() {
    let timers = r#""timers": {"udp": 10, "udp_dns": 3.5, "tcp_established": 30, "tcp_transitory": 5, "icmp": 7}"#;
    let dns = "203.0.113.10:53";
    for (sent, seconds) in [
        (udp(ALICE, EAST), 10.0),
        (udp(ALICE, dns), 3.5),
        (tcp(ALICE, EAST, "S"), 5.0),
        (tcp(ALICE, dns, "S"), 5.0),
        (query(ALICE, "203.0.113.10:0"), 7.0),
    ] {
        let mut nat = nat(timers);
        assert_eq!(nat.pass(Passage::Outbound, sent), OUTSIDE);
        assert_eq!(reaches(&mut nat, udp(EAST, OUTSIDE), seconds), [true, false], "{sent:?}");
    }
}

#[test]
fn without_a_timer_for_dns_it_is_udp() {
    let mut nat = nat(r#""timers": {"udp": 10}"#);
    nat.out(ALICE, "203.0.113.10:53");
    assert_eq!(reaches(&mut nat, udp(EAST, OUTSIDE), 10.0), [true, false]);
}

#[test]
fn an_established_connection_has_the_long_timer_and_a_closed_one_the_short() {
    let timers = r#""timers": {"tcp_established": 30, "tcp_transitory": 5}"#;
    let open = |nat: &mut Nat| {
        nat.pass(Passage::Outbound, tcp(ALICE, EAST, "S"));
        nat.pass(Passage::Inbound, tcp(EAST, OUTSIDE, "SA"));
        nat.pass(Passage::Outbound, tcp(ALICE, EAST, "A"));
    };
    let mut opened = nat(timers);
    open(&mut opened);
    assert_eq!(reaches(&mut opened, tcp(EAST, OUTSIDE, "A"), 30.0), [true, false]);
    for closing in ["R", "F"] {
        let mut closed = nat(timers);
        open(&mut closed);
        closed.after(6.0).pass(Passage::Outbound, tcp(ALICE, EAST, "A"));
        closed.after(1.0).pass(Passage::Outbound, tcp(ALICE, EAST, closing));
        closed.pass(Passage::Inbound, tcp(EAST, OUTSIDE, closing));
        assert_eq!(reaches(&mut closed, tcp(EAST, OUTSIDE, "A"), 5.0), [true, false], "{closing}");
    }
}

#[test]
fn refresh_by_both_or_by_the_inside_alone() {
    for (refresh, lives_after_inbound) in [("both", true), ("outbound", false)] {
        let mut nat = nat(&format!(r#""refresh": "{refresh}", "timers": {{"udp": 10}}"#));
        nat.out(ALICE, EAST);
        nat.after(9.0).back(EAST, OUTSIDE);
        assert_eq!(nat.after(2.0).back(EAST, OUTSIDE) == ALICE, lives_after_inbound, "{refresh}");
        nat.out(ALICE, EAST);
        nat.after(9.0).out(ALICE, EAST);
        assert_eq!(nat.after(9.0).back(EAST, OUTSIDE), ALICE, "{refresh}");
    }
}

/// Nor does a stranger extend it, whom an endpoint-independent filter lets in.
#[test]
fn a_stranger_does_not_extend_what_only_the_inside_extends() {
    let mut nat = nat(r#""refresh": "outbound", "filtering": "endpoint_independent", "timers": {"udp": 10}"#);
    nat.out(ALICE, EAST);
    assert_eq!(nat.after(6.0).back(WEST, OUTSIDE), ALICE);
    assert_eq!(reaches(&mut nat, udp(EAST, OUTSIDE), 4.0), [true, false]);
}

/// Nor does he become one of those that the inside has sent to.
#[test]
fn whom_the_inside_sent_to_is_not_whom_it_heard_of() {
    let mut nat = nat(r#""filtering": "address_dependent", "timers": {"udp": 10}"#);
    nat.out(ALICE, EAST);
    assert_eq!(nat.after(9.0).back(EAST_OTHER_PORT, OUTSIDE), ALICE);
    nat.out(ALICE, WEST);
    assert_eq!(nat.after(3.0).back(EAST_OTHER_PORT, OUTSIDE), "filtered");
}

#[test]
fn an_address_is_sent_to_until_the_last_session_with_it_ends() {
    let mut nat = nat(r#""filtering": "address_dependent", "timers": {"udp": 10}"#);
    nat.out(ALICE, EAST);
    nat.after(6.0).out(ALICE, EAST_OTHER_PORT);
    assert_eq!(nat.after(6.0).back("203.0.113.10:9", OUTSIDE), ALICE);
}

#[test]
fn a_conversation_keeps_its_endpoint_when_another_way_to_it_ends() {
    let keys = r#""mapping": "address_and_port_dependent", "filtering": "endpoint_independent", "timers": {"udp": 10}"#;
    let mut nat = nat(keys);
    let (first, second) = (nat.out(ALICE, EAST), nat.out(ALICE, EAST_OTHER_PORT));
    assert_eq!([nat.back(WEST, &first), nat.back(WEST, &second)], [ALICE, ALICE]);
    assert_eq!(nat.after(6.0).out(ALICE, WEST), first);
    assert_eq!(nat.after(6.0).back(WEST, &second), "pass");
    assert_eq!(nat.out(ALICE, WEST), first);
}

#[test]
fn a_conversation_goes_on_by_a_way_that_the_far_end_took() {
    let keys = r#""mapping": "address_dependent", "filtering": "endpoint_independent", "timers": {"udp": 10}"#;
    let mut nat = nat(keys);
    let first = nat.out(ALICE, EAST);
    assert_eq!(nat.back(WEST, &first), ALICE);
    let second = nat.after(6.0).out(ALICE, "203.0.113.20:7001");
    assert_eq!(nat.back(WEST, &second), ALICE);
    assert_eq!(nat.after(5.0).out(ALICE, WEST), second);
    let now = nat.after(1e6).now;
    nat.table.expire(now);
    assert!(nat.table.is_clean());
}

#[test]
fn deadlines_do_not_pile_up() {
    let mut nat = nat(r#""timers": {"tcp_established": 30, "tcp_transitory": 5}"#);
    nat.pass(Passage::Outbound, tcp(ALICE, EAST, "A"));
    nat.pass(Passage::Inbound, tcp(EAST, OUTSIDE, "A"));
    for _ in 0..100 {
        nat.after(5.0).pass(Passage::Outbound, tcp(ALICE, EAST, "R"));
        nat.after(1.0).pass(Passage::Outbound, tcp(ALICE, EAST, "A"));
    }
    assert_eq!(nat.table.entries(nat.now).len(), 1);
    assert!(nat.table.deadlines_held() <= 8, "{}", nat.table.deadlines_held());
}

/// A forward has no end, so its sessions have all of their time.
#[test]
fn a_strangers_session_by_a_forward_lives_its_time() {
    let forward = |port| format!(r#"{{"protocol": "udp", "port": {port}, "to": "192.168.1.10", "to_port": 4000}}"#);
    let forwards = format!("[{}, {}]", forward(53), forward(54));
    let mut nat = nat(&format!(r#""refresh": "outbound", "timers": {{"udp": 10}}, "forwards": {forwards}"#));
    assert_eq!(nat.back(WEST, "198.51.100.1:54"), ALICE);
    assert_eq!(nat.after(9.0).out(ALICE, WEST), "198.51.100.1:54");
    assert_eq!(nat.after(10.0).out(ALICE, WEST), "198.51.100.1:53");
}

#[test]
fn a_port_is_free_when_neither_mapping_nor_router_has_it() {
    let keys = r#""filtering": "endpoint_independent", "timers": {"udp": 10}"#;
    for (outlives, ends) in [(OUTSIDE, ALICE), (ALICE, OUTSIDE)] {
        let mut nat = nat(keys);
        nat.out(ALICE, EAST);
        nat.out(OUTSIDE, WEST);
        let far = |source| if source == ALICE { EAST } else { WEST };
        nat.after(6.0).out(outlives, far(outlives));
        assert_eq!(nat.after(6.0).out(BOB, EAST), "198.51.100.1:1024", "{outlives} has the port, {ends} no more");
        assert_eq!(nat.after(10.0).out(BOB, WEST), OUTSIDE);
    }
}

/// RFC 4787 REQ-6 is of UDP: the segments of both sides keep a connection alive.
#[test]
fn both_sides_of_a_connection_extend_it() {
    let mut nat = nat(r#""refresh": "outbound", "timers": {"tcp_transitory": 10}"#);
    nat.pass(Passage::Outbound, tcp(ALICE, EAST, "S"));
    nat.after(9.0).pass(Passage::Inbound, tcp(EAST, OUTSIDE, "SA"));
    assert_eq!(reaches(&mut nat, tcp(EAST, OUTSIDE, "SA"), 10.0), [true, false]);
}

#[test]
fn a_mapping_lives_as_long_as_one_of_its_sessions() {
    let mut nat = nat(r#""timers": {"udp": 10}"#);
    nat.out(ALICE, EAST);
    nat.after(6.0).out(ALICE, WEST);
    assert_eq!(nat.after(6.0).back(EAST, OUTSIDE), "filtered");
    assert_eq!(nat.back(WEST, OUTSIDE), ALICE);
}

#[test]
fn what_has_ended_leaves_nothing_behind() {
    let mut nat = nat(r#""filtering": "address_dependent", "hairpin": "external_source", "block_size": 100"#);
    for port in 1..=50 {
        nat.out(&format!("192.168.1.10:{port}"), EAST);
        nat.pass(Passage::Outbound, tcp(&format!("192.168.1.20:{port}"), WEST, "S"));
        nat.out(&format!("198.51.100.1:{}", 60000 + port), EAST);
    }
    let mapped = nat.out(BOB, EAST);
    assert_eq!(nat.out(ALICE, EAST), nat.out(ALICE, EAST));
    nat.pass(Passage::Hairpin, udp(ALICE, &mapped));
    nat.after(1e6);
    nat.table.expire(nat.now);
    let table = &nat.table;
    let left =
        [table.mappings.len(), table.sessions.len(), table.flows.len(), table.contacts.len(), table.hairpins.len()];
    assert_eq!(left, [0; 5]);
    assert!(table.is_clean(), "{table:?}");
}

#[test]
fn flushing_forgets_mappings_and_keeps_forwards_and_counters() {
    let mut nat = nat(r#""forwards": [{"protocol": "udp", "port": 53, "to": "192.168.1.20"}]"#);
    nat.out(ALICE, EAST);
    nat.table.flush();
    assert_eq!(nat.back(EAST, OUTSIDE), "pass");
    assert_eq!(nat.back(EAST, "198.51.100.1:53"), "192.168.1.20:53");
    assert_eq!(nat.table.counters().outbound, 1);
}

#[test]
fn flushing_does_not_give_the_same_random_ports_again() {
    let mut nat = nat(r#""ports": {"allocation": "random"}"#);
    let before = nat.out(ALICE, EAST);
    nat.table.flush();
    assert_ne!(nat.out(ALICE, EAST), before);
}
