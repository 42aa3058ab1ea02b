//! What a NAT is to do, as meant: every value is present, allowed, and of its own type.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde::Deserialize;

use crate::packet::Protocol;

/// How much of the far endpoint a mapping or a filter looks at (RFC 4787 sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependence {
    /// Nothing of it.
    EndpointIndependent,
    /// Its address.
    AddressDependent,
    /// Its address and its port.
    AddressAndPortDependent,
}

/// How the port of a new mapping is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// The inside port if it is free, else as `Sequential`.
    Preserve,
    /// The next free port after the one given last.
    Sequential,
    /// Any free port.
    Random,
}

/// Which of several outside addresses an inside host gets (RFC 4787 REQ-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// One for all its mappings.
    Paired,
    /// The next in turn for each mapping.
    Arbitrary,
}

/// Which packets keep a UDP or ICMP mapping alive (RFC 4787 REQ-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refresh {
    /// Those from inside.
    Outbound,
    /// Those from inside and those let in.
    Both,
}

/// What becomes of packets from inside to a mapped outside endpoint (RFC 4787 REQ-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hairpin {
    /// They are for the router itself.
    None,
    /// They reach the inside host from the sender's inside endpoint.
    InternalSource,
    /// They reach it from the sender's outside endpoint (REQ-9a).
    ExternalSource,
}

/// The answer to a SYN that a filter refuses (RFC 5382 REQ-4 asks for silence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TcpUnsolicited {
    /// Silence.
    Drop,
    /// A reset, at once.
    Reset,
    /// Whatever the router's own stack and firewall say.
    Pass,
}

/// What becomes of a packet to an outside address that belongs to no mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmapped {
    /// The router's own stack and firewall decide.
    Pass,
    /// It is dropped.
    Drop,
}

/// The ports of each outside address that mappings may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRules {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
    /// Which of them.
    pub allocation: Allocation,
    /// Even stays even, odd stays odd (RFC 4787 section 4.2.2).
    pub parity: bool,
}

/// How long a session without packets is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// UDP (RFC 4787 REQ-5).
    pub udp: Duration,
    /// UDP to port 53 (REQ-5a); None as `udp`.
    pub udp_dns: Option<Duration>,
    /// TCP, open (RFC 5382 REQ-5).
    pub tcp_established: Duration,
    /// TCP, opening or closing.
    pub tcp_transitory: Duration,
    /// ICMP queries (RFC 5508 REQ-2).
    pub icmp: Duration,
}

/// A port of every outside address that leads inside, whoever sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The outside port.
    pub port: u16,
    /// The inside endpoint.
    pub to: SocketAddrV4,
}

/// A whole NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The interface that leads outside.
    pub interface: String,
    /// The outside addresses, at least one.
    pub addresses: Vec<Ipv4Addr>,
    /// When two packets of one inside endpoint get the same outside endpoint.
    pub mapping: Dependence,
    /// Who may send to a mapped endpoint.
    pub filtering: Dependence,
    /// The ports of mappings.
    pub ports: PortRules,
    /// Ports that each inside address has for itself (RFC 6888, RFC 7422); None: all share all.
    pub block_size: Option<u16>,
    /// Choice among outside addresses.
    pub pooling: Pooling,
    /// The most sessions of one inside address (RFC 6888 REQ-4); None: no such limit.
    pub sessions_per_subscriber: Option<u32>,
    /// Lifetimes.
    pub timers: Timers,
    /// What extends them.
    pub refresh: Refresh,
    /// From inside to a mapped endpoint.
    pub hairpin: Hairpin,
    /// False: destination unreachable and time exceeded are eaten, both ways (a PMTU black hole).
    pub icmp_errors: bool,
    /// Refused SYNs.
    pub tcp_unsolicited: TcpUnsolicited,
    /// Packets to no mapping.
    pub unmapped: Unmapped,
    /// Static mappings.
    pub forwards: Vec<Forward>,
    /// Of the random numbers; None: another at each start.
    pub seed: Option<u64>,
}

impl Settings {
    /// Whether an address is one of the router's own outside addresses.
    #[must_use]
    pub fn is_outside(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }
}
