//! ICMP errors are translated with the packet they are about (RFC 5508).

use super::*;

const HOP: &str = "203.0.113.1:0";

fn translated(nat: &mut Nat, passage: Passage, packet: &Packet) -> Rewrite {
    let fate = nat.table.decide(nat.now, passage, packet);
    let Fate::Translate { rewrite, .. } = fate else { panic!("{fate:?}") };
    rewrite
}

#[test]
fn about_a_packet_that_went_out() {
    for (sent, protocol) in [(udp(ALICE, EAST), Protocol::Udp), (tcp(ALICE, EAST, "S"), Protocol::Tcp)] {
        let mut nat = nat("");
        nat.pass(Passage::Outbound, sent);
        let rewrite = translated(&mut nat, Passage::Inbound, &error(HOP, OUTSIDE, flow(protocol, OUTSIDE, EAST)));
        let alice = Some(endpoint(ALICE));
        assert_eq!(rewrite, Rewrite { destination: alice, about_source: alice, ..Rewrite::default() });
        // About one that was never sent, or of the router's own: for the router.
        let other = error(HOP, OUTSIDE, flow(protocol, OUTSIDE, WEST));
        assert_eq!(nat.pass(Passage::Inbound, other), "pass");
    }
}

#[test]
fn about_a_packet_that_came_in() {
    let mut nat = nat("");
    nat.out(ALICE, EAST);
    // From the host itself, from another one inside, and from the router, which all quote what came to them.
    for from in [ALICE, "192.168.1.254:0", OUTSIDE] {
        let rewrite = translated(&mut nat, Passage::Outbound, &error(from, EAST, flow(Protocol::Udp, EAST, ALICE)));
        assert_eq!(rewrite.source.unwrap().ip(), endpoint(OUTSIDE).ip());
        assert_eq!((rewrite.about_destination, rewrite.about_source), (Some(endpoint(OUTSIDE)), None));
    }
    let other = |from| error(from, EAST, flow(Protocol::Udp, WEST, ALICE));
    assert_eq!(nat.pass(Passage::Outbound, other(ALICE)), "no_session");
    assert_eq!(nat.pass(Passage::Outbound, other(OUTSIDE)), "pass");
}

#[test]
fn about_a_hairpinned_packet() {
    let mut nat = nat(r#""hairpin": "external_source", "filtering": "endpoint_independent""#);
    let of_alice = nat.out(ALICE, EAST);
    nat.pass(Passage::Hairpin, udp(BOB, &of_alice));
    let of_bob = nat.pass(Passage::HairpinSource, udp(BOB, ALICE));
    // Alice has no such socket, and says so to whom she saw as the sender.
    let about = flow(Protocol::Udp, &of_bob, ALICE);
    let rewrite = translated(&mut nat, Passage::Hairpin, &error(ALICE, &of_bob, about));
    let bob = Some(endpoint(BOB));
    assert_eq!(rewrite, Rewrite { destination: bob, about_source: bob, ..Rewrite::default() });
    let about = flow(Protocol::Udp, BOB, ALICE);
    let rewrite = translated(&mut nat, Passage::HairpinSource, &error(ALICE, BOB, about));
    let outside = Some(endpoint(&of_alice));
    assert_eq!(rewrite, Rewrite { source: outside, about_destination: outside, ..Rewrite::default() });
}

#[test]
fn an_eater_eats_unreachable_and_exceeded_and_nothing_else() {
    let mut nat = nat(r#""icmp_errors": false, "hairpin": "external_source""#);
    nat.out(ALICE, EAST);
    let from_outside = error(HOP, OUTSIDE, flow(Protocol::Udp, OUTSIDE, EAST));
    let from_inside = error(ALICE, EAST, flow(Protocol::Udp, EAST, ALICE));
    assert_eq!(nat.pass(Passage::Inbound, from_outside), "icmp_eaten");
    assert_eq!(nat.pass(Passage::Outbound, from_inside), "icmp_eaten");
    let Packet::Error { from, to, about, .. } = from_outside else { panic!() };
    let parameter_problem = Packet::Error { from, to, about, is_unreachable_or_exceeded: false };
    translated(&mut nat, Passage::Inbound, &parameter_problem);
}

#[test]
fn they_extend_nothing() {
    let mut nat = nat(r#""timers": {"udp": 10}"#);
    nat.out(ALICE, EAST);
    let from_outside = error(HOP, OUTSIDE, flow(Protocol::Udp, OUTSIDE, EAST));
    translated(nat.after(9.0), Passage::Inbound, &from_outside);
    assert_eq!(nat.after(1.0).pass(Passage::Inbound, from_outside), "pass");
}
