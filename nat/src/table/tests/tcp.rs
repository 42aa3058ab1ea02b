//! TCP: who may open, and what a refused SYN gets (RFC 5382).

use super::*;

fn syn_from_outside(nat: &mut Nat) -> String {
    nat.pass(Passage::Inbound, tcp(WEST, OUTSIDE, "S"))
}

#[test]
fn a_refused_syn_meets_silence_a_reset_or_the_router() {
    for (answer, expected) in [("drop", "filtered"), ("reset", "reset"), ("pass", "pass")] {
        let mut nat = nat(&format!(r#""tcp_unsolicited": "{answer}""#));
        nat.pass(Passage::Outbound, tcp(ALICE, EAST, "S"));
        assert_eq!(syn_from_outside(&mut nat), expected);
        // Of what is no SYN nothing is said, and of UDP neither.
        assert_eq!(nat.pass(Passage::Inbound, tcp(WEST, OUTSIDE, "A")), "filtered");
        nat.out(ALICE, EAST);
        assert_eq!(nat.back(WEST, OUTSIDE), "filtered");
    }
}

#[test]
fn a_simultaneous_open_gets_through() {
    let mut nat = nat("");
    assert_eq!(nat.pass(Passage::Outbound, tcp(ALICE, WEST, "S")), OUTSIDE);
    assert_eq!(syn_from_outside(&mut nat), ALICE);
    assert_eq!(nat.pass(Passage::Outbound, tcp(ALICE, WEST, "SA")), OUTSIDE);
}

#[test]
fn a_stranger_opens_where_the_filter_lets_him_and_only_by_a_syn() {
    let mut nat = nat(r#""filtering": "endpoint_independent""#);
    nat.pass(Passage::Outbound, tcp(ALICE, EAST, "S"));
    for flags in ["A", "SA", "F", "R"] {
        assert_eq!(nat.pass(Passage::Inbound, tcp(WEST, OUTSIDE, flags)), "filtered", "{flags}");
    }
    assert_eq!(syn_from_outside(&mut nat), ALICE);
    assert_eq!(nat.pass(Passage::Inbound, tcp(WEST, OUTSIDE, "A")), ALICE);
}

#[test]
fn a_reset_begins_nothing() {
    assert_eq!(nat("").pass(Passage::Outbound, tcp(ALICE, EAST, "RA")), "no_session");
}

/// As after a restart of the NAT: the inside goes on, and is taken up.
#[test]
fn a_connection_met_halfway_is_taken_up_from_inside() {
    let mut nat = nat("");
    assert_eq!(nat.pass(Passage::Inbound, tcp(EAST, OUTSIDE, "A")), "pass");
    assert_eq!(nat.pass(Passage::Outbound, tcp(ALICE, EAST, "A")), OUTSIDE);
    assert_eq!(nat.pass(Passage::Inbound, tcp(EAST, OUTSIDE, "A")), ALICE);
    assert_eq!(nat.table.entries(nat.now)[0].sessions[0].state, "established");
}

/// And by a forward from outside: it leads inside whoever sends, and the host there knows its own connections.
#[test]
fn a_connection_met_halfway_at_a_forward_is_taken_up_from_outside() {
    let mut nat = nat(r#""forwards": [{"protocol": "tcp", "port": 4000, "to": "192.168.1.10"}]"#);
    assert_eq!(nat.pass(Passage::Inbound, tcp(EAST, OUTSIDE, "RA")), "filtered");
    assert_eq!(nat.pass(Passage::Inbound, tcp(EAST, OUTSIDE, "A")), ALICE);
    assert_eq!(nat.pass(Passage::Outbound, tcp(ALICE, EAST, "A")), OUTSIDE);
    assert_eq!(nat.table.entries(nat.now)[0].sessions[0].state, "established");
}
