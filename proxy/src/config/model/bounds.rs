//! How many, how much and how long, as meant.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Bounds on what clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections at once, in all.
    pub connections: NonZeroUsize,
    /// TCP connections at once from one source.
    pub connections_per_source: NonZeroUsize,
    /// Those of them that have not yet said enough to be led on.
    pub undecided_per_source: NonZeroUsize,
    /// UDP flows at once, in all.
    pub udp_flows: NonZeroUsize,
    /// UDP flows at once from one source.
    pub udp_flows_per_source: NonZeroUsize,
    /// What is one source.
    pub source: SourcePrefixes,
    /// First bytes of one connection that are kept while it is unknown what it speaks.
    pub preface_bytes: NonZeroUsize,
}

/// Of which length the prefixes are that count as one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePrefixes {
    /// Of IPv4, 32 at most.
    pub v4: u8,
    /// Of IPv6, 64 at most: what one household is given at least (RFC 6177).
    pub v6: u8,
}

impl Default for SourcePrefixes {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// How long each phase may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept until the PROXY header is whole (the specification asks for 3 s at least).
    pub header: Duration,
    /// From accept (or the end of the header) until it is known what is spoken: one absolute deadline.
    pub preface: Duration,
    /// A client that has said nothing for so long waits for the server to speak ([`super::Protocol::Silence`]).
    pub silence: Duration,
    /// A relayed connection without a byte in either direction.
    pub idle: Duration,
    /// A connection of which one direction has ended, without a byte in the other.
    pub half_closed: Duration,
    /// A UDP flow that only one side has used.
    pub udp_one_way: Duration,
    /// A UDP flow that both sides have used.
    pub udp_idle: Duration,
    /// From SIGTERM until nothing new is taken.
    pub drain_delay: Duration,
    /// Open connections at SIGTERM, until they are ended.
    pub drain: Duration,
    /// Open connections of a proxy from which a newer process took over.
    pub handed_over: Duration,
    /// TCP keepalive: idle time before the first probe.
    pub keepalive: Duration,
    /// Unacknowledged data ends a connection after so long (`TCP_USER_TIMEOUT`, tcp(7)).
    pub user_timeout: Option<Duration>,
}
