//! The configuration file, as written: JSON to [`Settings`], or every fault of it at once.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use crate::packet::Protocol;
use crate::settings::{
    Allocation, Dependence, Forward, Hairpin, Pooling, PortRules, Refresh, Settings, TcpUnsolicited, Timers, Unmapped,
};

/// The longest name of an interface, in bytes (IFNAMSIZ less its final zero).
const LONGEST_NAME: usize = 15;
/// What a timer may be, in seconds: with less, what was sent is forgotten before its answer can come; a year at most.
const TIMERS: RangeInclusive<f64> = 0.001..=31_536_000.0;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    outside: OutsideFile,
    #[serde(default = "independent")]
    mapping: Dependence,
    #[serde(default = "dependent")]
    filtering: Dependence,
    #[serde(default)]
    ports: PortsFile,
    #[serde(default)]
    block_size: Option<u16>,
    #[serde(default = "paired")]
    pooling: Pooling,
    #[serde(default)]
    sessions_per_subscriber: Option<u32>,
    #[serde(default)]
    timers: TimersFile,
    #[serde(default = "both")]
    refresh: Refresh,
    #[serde(default = "no_hairpin")]
    hairpin: Hairpin,
    #[serde(default = "yes")]
    icmp_errors: bool,
    #[serde(default = "silence")]
    tcp_unsolicited: TcpUnsolicited,
    #[serde(default = "pass")]
    unmapped: Unmapped,
    #[serde(default)]
    forwards: Vec<ForwardFile>,
    #[serde(default)]
    seed: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutsideFile {
    interface: String,
    addresses: Vec<Ipv4Addr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PortsFile {
    first: u16,
    last: u16,
    allocation: Allocation,
    parity: bool,
}

impl Default for PortsFile {
    fn default() -> Self {
        Self { first: 1024, last: 65535, allocation: Allocation::Preserve, parity: false }
    }
}

/// In seconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TimersFile {
    udp: f64,
    udp_dns: Option<f64>,
    tcp_established: f64,
    tcp_transitory: f64,
    icmp: f64,
}

impl Default for TimersFile {
    fn default() -> Self {
        Self { udp: 300.0, udp_dns: None, tcp_established: 7440.0, tcp_transitory: 240.0, icmp: 60.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ForwardProtocol {
    Tcp,
    Udp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForwardFile {
    protocol: ForwardProtocol,
    port: u16,
    to: Ipv4Addr,
    #[serde(default)]
    to_port: Option<u16>,
}

fn independent() -> Dependence {
    Dependence::EndpointIndependent
}

fn dependent() -> Dependence {
    Dependence::AddressAndPortDependent
}

fn paired() -> Pooling {
    Pooling::Paired
}

fn both() -> Refresh {
    Refresh::Both
}

fn no_hairpin() -> Hairpin {
    Hairpin::None
}

fn yes() -> bool {
    true
}

fn silence() -> TcpUnsolicited {
    TcpUnsolicited::Drop
}

fn pass() -> Unmapped {
    Unmapped::Pass
}

/// What the text means.
///
/// # Errors
/// One line for each fault: what was found, where, what is allowed.
pub fn parse(text: &str) -> Result<Settings, Vec<String>> {
    let file: ConfigFile = serde_json::from_str(text).map_err(|error| vec![error.to_string()])?;
    let mut faults = Faults::default();
    let settings = file.settings(&mut faults);
    if faults.0.is_empty() {
        Ok(settings)
    } else {
        Err(faults.0)
    }
}

#[derive(Debug, Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, allowed: bool, place: &str, found: impl Display, rule: &str) {
        if !allowed {
            self.0.push(format!("{place}: {found} is not allowed; {rule}"));
        }
    }
}

impl ConfigFile {
    fn settings(self, faults: &mut Faults) -> Settings {
        self.outside.examine(faults);
        self.ports.examine(faults);
        self.examine_blocks(faults);
        faults.unless(
            self.sessions_per_subscriber != Some(0),
            "sessions_per_subscriber",
            0,
            "it is at least 1, or null for no limit",
        );
        let timers = self.timers.as_meant(faults);
        let forwards = self.forwards_as_meant(faults);
        Settings {
            interface: self.outside.interface,
            addresses: self.outside.addresses,
            mapping: self.mapping,
            filtering: self.filtering,
            ports: PortRules {
                first: self.ports.first,
                last: self.ports.last,
                allocation: self.ports.allocation,
                parity: self.ports.parity,
            },
            block_size: self.block_size,
            pooling: self.pooling,
            sessions_per_subscriber: self.sessions_per_subscriber,
            timers,
            refresh: self.refresh,
            hairpin: self.hairpin,
            icmp_errors: self.icmp_errors,
            tcp_unsolicited: self.tcp_unsolicited,
            unmapped: self.unmapped,
            forwards,
            seed: self.seed,
        }
    }

    fn examine_blocks(&self, faults: &mut Faults) {
        let Some(size) = self.block_size else { return };
        let ports = u32::from(self.ports.last).saturating_sub(u32::from(self.ports.first)) + 1;
        let smallest = if self.ports.parity { 2 } else { 1 };
        faults.unless(
            size >= smallest && u32::from(size) <= ports,
            "block_size",
            size,
            &format!("a block holds {smallest} to {ports} ports, all of the range"),
        );
        faults.unless(
            self.pooling == Pooling::Paired,
            "pooling",
            "arbitrary",
            "with a block_size each inside host has one block, so it is paired",
        );
    }

    fn forwards_as_meant(&self, faults: &mut Faults) -> Vec<Forward> {
        let mut seen = HashSet::new();
        let mut meant = Vec::new();
        for (index, forward) in self.forwards.iter().enumerate() {
            let place = format!("forwards[{index}]");
            let protocol = match forward.protocol {
                ForwardProtocol::Tcp => Protocol::Tcp,
                ForwardProtocol::Udp => Protocol::Udp,
            };
            let to = SocketAddrV4::new(forward.to, forward.to_port.unwrap_or(forward.port));
            faults.unless(forward.port != 0 && to.port() != 0, &place, "port 0", "ports are 1 to 65535");
            faults.unless(
                is_host(forward.to) && !self.outside.addresses.contains(&forward.to),
                &place,
                forward.to,
                "a forward leads to the address of an inside host",
            );
            let is_new = seen.insert((protocol, forward.port));
            let found = format!("a second forward of {} {}", protocol.name(), forward.port);
            faults.unless(is_new, &place, found, "each port leads to one host");
            meant.push(Forward { protocol, port: forward.port, to });
        }
        meant
    }
}

impl OutsideFile {
    fn examine(&self, faults: &mut Faults) {
        // The name stands in iptables' rules, where `+` at its end would mean any name that begins so.
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.@:".contains(letter);
        faults.unless(
            (1..=LONGEST_NAME).contains(&self.interface.len()) && self.interface.chars().all(is_plain),
            "outside.interface",
            format!("{:?}", self.interface),
            "a name has 1 to 15 letters, digits or any of - _ . @ :",
        );
        faults.unless(!self.addresses.is_empty(), "outside.addresses", "an empty list", "give at least one address");
        let mut seen = HashSet::new();
        for (index, address) in self.addresses.iter().enumerate() {
            let place = format!("outside.addresses[{index}]");
            faults.unless(is_host(*address), &place, address, "it is the address of one machine");
            faults.unless(seen.insert(address), &place, format!("a second {address}"), "each stands once");
        }
    }
}

impl PortsFile {
    fn examine(&self, faults: &mut Faults) {
        let Self { first, last, .. } = self;
        faults.unless(*first > 0, "ports.first", first, "ports are 1 to 65535");
        faults.unless(first <= last, "ports", format!("{first} to {last}"), "first is not above last");
        let has_both = first < last || !self.parity;
        faults.unless(has_both, "ports", format!("{first} alone with parity"), "parity needs an even and an odd port");
    }
}

impl TimersFile {
    fn as_meant(&self, faults: &mut Faults) -> Timers {
        let mut timer = |name: &str, seconds: f64| {
            let is_allowed = TIMERS.contains(&seconds);
            let rule = "it is a number of seconds from 0.001 to 31536000 (a year)";
            faults.unless(is_allowed, &format!("timers.{name}"), seconds, rule);
            Duration::try_from_secs_f64(seconds).unwrap_or_default()
        };
        Timers {
            udp: timer("udp", self.udp),
            udp_dns: self.udp_dns.map(|seconds| timer("udp_dns", seconds)),
            tcp_established: timer("tcp_established", self.tcp_established),
            tcp_transitory: timer("tcp_transitory", self.tcp_transitory),
            icmp: timer("icmp", self.icmp),
        }
    }
}

fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"{"outside": {"interface": "wan", "addresses": ["198.51.100.1"]}}"#;

    fn with(more: &str) -> String {
        format!(r#"{{"outside": {{"interface": "wan", "addresses": ["198.51.100.1"]}}, {more}}}"#)
    }

    #[test]
    fn all_but_outside_has_a_default() {
        let settings = parse(LEAST).unwrap();
        assert_eq!(settings.interface, "wan");
        assert_eq!(settings.mapping, Dependence::EndpointIndependent);
        assert_eq!(settings.filtering, Dependence::AddressAndPortDependent);
        assert_eq!((settings.ports.first, settings.ports.last), (1024, 65535));
        assert_eq!(settings.timers.tcp_established, Duration::from_secs(7440));
        assert_eq!((settings.hairpin, settings.icmp_errors), (Hairpin::None, true));
    }

    #[test]
    fn every_key_is_read() {
        let settings = parse(&with(
            r#""mapping": "address_dependent", "filtering": "endpoint_independent",
               "ports": {"first": 10, "last": 99, "allocation": "random", "parity": true},
               "block_size": 10, "pooling": "paired", "sessions_per_subscriber": 7,
               "timers": {"udp": 1.5, "udp_dns": 2, "tcp_established": 3, "tcp_transitory": 4, "icmp": 5},
               "refresh": "outbound", "hairpin": "external_source", "icmp_errors": false,
               "tcp_unsolicited": "reset", "unmapped": "drop", "seed": 9,
               "forwards": [{"protocol": "udp", "port": 53, "to": "192.168.1.2"},
                            {"protocol": "tcp", "port": 443, "to": "192.168.1.2", "to_port": 8443}]"#,
        ))
        .unwrap();
        assert_eq!(settings.mapping, Dependence::AddressDependent);
        assert_eq!(settings.filtering, Dependence::EndpointIndependent);
        let ports = PortRules { first: 10, last: 99, allocation: Allocation::Random, parity: true };
        assert_eq!(settings.ports, ports);
        assert_eq!((settings.block_size, settings.sessions_per_subscriber), (Some(10), Some(7)));
        assert_eq!(settings.timers.udp, Duration::from_millis(1500));
        assert_eq!(settings.timers.udp_dns, Some(Duration::from_secs(2)));
        assert_eq!(settings.timers.icmp, Duration::from_secs(5));
        assert_eq!((settings.refresh, settings.hairpin), (Refresh::Outbound, Hairpin::ExternalSource));
        assert_eq!((settings.tcp_unsolicited, settings.unmapped), (TcpUnsolicited::Reset, Unmapped::Drop));
        assert_eq!((settings.icmp_errors, settings.seed), (false, Some(9)));
        let ends: Vec<_> = settings.forwards.iter().map(|forward| (forward.port, forward.to.to_string())).collect();
        assert_eq!(ends, [(53, "192.168.1.2:53".to_owned()), (443, "192.168.1.2:8443".to_owned())]);
    }

    #[test]
    fn wrong_values_are_refused_with_place_and_rule() {
        for (more, said) in [
            (r#""speed": 3"#, "unknown field `speed`"),
            (r#""mapping": "cone""#, "unknown variant `cone`"),
            (r#""ports": {"first": 0}"#, "ports.first: 0"),
            (r#""ports": {"first": 20, "last": 10}"#, "ports: 20 to 10"),
            (r#""ports": {"first": 5000, "last": 5000, "parity": true}"#, "5000 alone with parity"),
            (r#""ports": {"last": 65536}"#, "65536"),
            (r#""block_size": 0"#, "block_size: 0"),
            (r#""ports": {"first": 2000, "last": 2009}, "block_size": 11"#, "1 to 10 ports"),
            (r#""block_size": 100, "pooling": "arbitrary""#, "so it is paired"),
            (r#""sessions_per_subscriber": 0"#, "sessions_per_subscriber: 0"),
            (r#""timers": {"udp": 0}"#, "timers.udp: 0"),
            (r#""timers": {"udp": 1e-10}"#, "timers.udp: 0.0000000001"),
            (r#""timers": {"icmp": -1}"#, "timers.icmp: -1"),
            (r#""timers": {"udp_dns": 1e99}"#, "timers.udp_dns"),
            (r#""forwards": [{"protocol": "tcp", "port": 0, "to": "10.0.0.1"}]"#, "forwards[0]: port 0"),
            (r#""forwards": [{"protocol": "icmp", "port": 1, "to": "10.0.0.1"}]"#, "unknown variant `icmp`"),
            (r#""forwards": [{"protocol": "tcp", "port": 1, "to": "198.51.100.1"}]"#, "forwards[0]: 198.51.100.1"),
            (
                r#""forwards": [{"protocol": "tcp", "port": 1, "to": "10.0.0.1"},
                                {"protocol": "tcp", "port": 1, "to": "10.0.0.2"}]"#,
                "forwards[1]: a second forward of tcp 1",
            ),
        ] {
            let faults = parse(&with(more)).expect_err(more);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(said), "{more} gave {faults:?}");
        }
    }

    #[test]
    fn faults_are_told_all_at_once() {
        let text = r#"{"outside": {"interface": "wan +", "addresses": ["224.0.0.1", "10.0.0.1", "10.0.0.1"]},
                       "timers": {"udp": 0, "icmp": 0}}"#;
        let faults = parse(text).unwrap_err();
        let places: Vec<_> = faults.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
        let expected =
            ["outside.interface", "outside.addresses[0]", "outside.addresses[2]", "timers.udp", "timers.icmp"];
        assert_eq!(places, expected);
    }

    #[test]
    fn an_outside_without_address_is_refused() {
        let faults = parse(r#"{"outside": {"interface": "wan", "addresses": []}}"#).unwrap_err();
        assert!(faults[0].contains("empty list"), "{faults:?}");
    }
}
