//! The table under test: packets by their ends as text, fates as text.

mod hairpins;
mod icmp_errors;
mod knobs;
mod lifetimes;
mod properties;
mod tcp;

use std::net::SocketAddrV4;
use std::time::Duration;

use super::{Fate, Mark, Passage, Table};
use crate::config;
use crate::packet::{Flow, Packet, Protocol, Signal, TcpFlags};
use crate::rewrite::Rewrite;
use crate::samples::endpoint;

const ALICE: &str = "192.168.1.10:4000";
const BOB: &str = "192.168.1.20:4000";
const OUTSIDE: &str = "198.51.100.1:4000";
const EAST: &str = "203.0.113.10:7000";
const EAST_OTHER_PORT: &str = "203.0.113.10:7001";
const WEST: &str = "203.0.113.20:7000";

/// A NAT at 198.51.100.1 with these keys of its configuration, at time 0.
struct Nat {
    table: Table,
    now: Duration,
}

fn nat(keys: &str) -> Nat {
    nat_at(r#"["198.51.100.1"]"#, keys)
}

fn nat_at(addresses: &str, keys: &str) -> Nat {
    let comma = if keys.is_empty() { "" } else { "," };
    let text = format!(r#"{{"outside": {{"interface": "wan", "addresses": {addresses}}}{comma} {keys}}}"#);
    Nat { table: Table::new(config::parse(&text).unwrap(), 7), now: Duration::ZERO }
}

impl Nat {
    fn after(&mut self, seconds: f64) -> &mut Self {
        self.now += Duration::from_secs_f64(seconds);
        self
    }

    /// The outside endpoint that a datagram leaves by, or why it does not.
    fn out(&mut self, source: &str, destination: &str) -> String {
        self.pass(Passage::Outbound, udp(source, destination))
    }

    /// The inside endpoint that a datagram reaches, or why it does not.
    fn back(&mut self, source: &str, destination: &str) -> String {
        self.pass(Passage::Inbound, udp(source, destination))
    }

    fn pass(&mut self, passage: Passage, packet: Packet) -> String {
        match self.table.decide(self.now, passage, &packet) {
            Fate::Pass => "pass".to_owned(),
            Fate::Reset => "reset".to_owned(),
            Fate::Drop(reason) => reason.name().to_owned(),
            Fate::Translate { rewrite: Rewrite { source: Some(end), destination: None, .. }, mark: Mark::None } => {
                end.to_string()
            }
            Fate::Translate { rewrite: Rewrite { source: None, destination: Some(end), .. }, mark: Mark::Admitted } => {
                end.to_string()
            }
            Fate::Translate { rewrite: Rewrite { source: None, destination: Some(end), .. }, mark: Mark::Hairpin } => {
                format!("hairpin {end}")
            }
            other => panic!("{other:?}"),
        }
    }
}

fn flow(protocol: Protocol, source: &str, destination: &str) -> Flow {
    Flow { protocol, source: endpoint(source), destination: endpoint(destination) }
}

fn udp(source: &str, destination: &str) -> Packet {
    Packet::Flow { flow: flow(Protocol::Udp, source, destination), signal: Signal::Datagram }
}

/// Flags by their initials.
fn tcp(source: &str, destination: &str, flags: &str) -> Packet {
    let has = |letter| flags.contains(letter);
    let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
    Packet::Flow { flow: flow(Protocol::Tcp, source, destination), signal: Signal::Segment(flags) }
}

fn query(source: &str, destination: &str) -> Packet {
    Packet::Flow { flow: flow(Protocol::Icmp, source, destination), signal: Signal::Query }
}

fn answer(source: &str, destination: &str) -> Packet {
    Packet::Flow { flow: flow(Protocol::Icmp, source, destination), signal: Signal::Answer }
}

/// Destination unreachable, about a packet of this flow.
fn error(from: &str, to: &str, about: Flow) -> Packet {
    let address = |text: &str| *endpoint(text).ip();
    Packet::Error { from: address(from), to: address(to), is_unreachable_or_exceeded: true, about }
}

fn port_of(text: &str) -> u16 {
    text.parse::<SocketAddrV4>().unwrap_or_else(|_| panic!("{text}")).port()
}
