//! Configurations and clients that tests begin with; each test says how its own differ.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::decide::{Arrived, Spoken};
use crate::config::model::{
    Action, Arrival, BackendId, Config, Limits, Listener, ListenerId, Operation, Protocol, Resolver, Rule,
    SourcePrefixes, TargetPolicy, Timeouts, TransparentRules, Transport,
};
use crate::sniff::Sniffed;

/// Two listeners (`edge` at 443, `home` at 8443, both on all IPv4 addresses and both transports), and these rules.
pub(crate) fn config(rules: Vec<Rule>) -> Config {
    let some = |number| NonZeroUsize::new(number).unwrap();
    let second = Duration::from_secs(1);
    Config {
        workers: some(1),
        listeners: vec![listener("edge", 443), listener("home", 8443)],
        rules,
        backends: Vec::new(),
        resolver: Resolver {
            servers: Vec::new(),
            timeout: second,
            stale: second,
            negative: second,
            min_ttl: second,
            max_ttl: second,
            cache_entries: some(1),
        },
        limits: Limits {
            connections: some(1),
            connections_per_source: some(1),
            undecided_per_source: some(1),
            udp_flows: some(1),
            udp_flows_per_source: some(1),
            source: SourcePrefixes::default(),
            preface_bytes: some(16384),
        },
        timeouts: Timeouts {
            header: second,
            preface: second,
            silence: second,
            idle: second,
            half_closed: second,
            udp_one_way: second,
            udp_idle: second,
            drain: second,
            drain_delay: second,
            handed_over: second,
            keepalive: second,
            user_timeout: None,
        },
        targets: TargetPolicy::default(),
        transparent: TransparentRules { manage_rules: false, mark: NonZeroU32::MIN, table: NonZeroU32::MIN },
        operation: Operation::default(),
        deny: Vec::new(),
        key_files: Vec::new(),
    }
}

fn listener(name: &str, port: u16) -> Listener {
    let all = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    Listener {
        name: name.to_owned(),
        tcp: vec![all],
        udp: vec![all],
        mptcp: false,
        arrival: Arrival::Direct,
        proxy_header: Vec::new(),
        connections: NonZeroUsize::MIN,
        udp_flows: NonZeroUsize::MIN,
        rate_per_flow: None,
        rate: None,
    }
}

/// A rule without conditions that leads to this backend.
pub(crate) fn rule(backend: usize) -> Rule {
    Rule {
        name: format!("to {backend}"),
        line: backend + 1,
        listeners: Vec::new(),
        transport: None,
        ports: Vec::new(),
        protocols: Vec::new(),
        server_name: None,
        alpn: Vec::new(),
        ech: None,
        from: Vec::new(),
        action: Action::Forward(BackendId(backend)),
    }
}

/// A rule for these protocols.
pub(crate) fn speaking(protocols: &[Protocol], backend: usize) -> Rule {
    Rule { protocols: protocols.to_vec(), ..rule(backend) }
}

/// 192.0.2.1 at `edge`, by TCP to 198.51.100.1:443.
pub(crate) fn arrived() -> Arrived {
    Arrived {
        listener: ListenerId(0),
        transport: Transport::Tcp,
        original_dst: "198.51.100.1:443".parse().unwrap(),
        client: "192.0.2.1:50000".parse().unwrap(),
    }
}

/// Answers as told, `No` to all else; and remembers what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) answers: Vec<(Protocol, Sniffed)>,
    pub(crate) asked: Vec<Protocol>,
}

impl Told {
    pub(crate) fn new(answers: &[(Protocol, Sniffed)]) -> Self {
        Self { answers: answers.to_vec(), asked: Vec::new() }
    }
}

impl Spoken for Told {
    fn is(&mut self, protocol: Protocol) -> Sniffed {
        self.asked.push(protocol);
        let told = self.answers.iter().find(|(it, _)| *it == protocol);
        told.map_or(Sniffed::No, |(_, answer)| answer.clone())
    }
}
