//! Sections of plain bounds as written: how many, how much, how long.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{count, seconds};
use crate::config::notation::{Size, Written};

/// Bounds on what clients may take.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    /// TCP connections at once, in all.
    #[schemars(range(max = 1_000_000))]
    pub(crate) connections: NonZeroU32,
    /// TCP connections at once from one source.
    #[schemars(range(max = 1_000_000))]
    pub(crate) connections_per_source: NonZeroU32,
    /// Those of one source that have not yet said enough to be led on. Without it: as many as `connections_per_source`.
    #[schemars(range(max = 1_000_000))]
    pub(crate) undecided_per_source: Option<NonZeroU32>,
    /// UDP flows at once, in all.
    #[schemars(range(max = 1_000_000))]
    pub(crate) udp_flows: NonZeroU32,
    /// UDP flows at once from one source.
    #[schemars(range(max = 1_000_000))]
    pub(crate) udp_flows_per_source: NonZeroU32,
    /// Length of the IPv4 prefix that is one source.
    #[schemars(range(min = 1, max = 32))]
    pub(crate) source_prefix_v4: u8,
    /// Length of the IPv6 prefix that is one source; a household has a /64 at least.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) source_prefix_v6: u8,
    /// First bytes of a connection that are kept while it is unknown what it speaks, from `1KiB` to `1MiB`.
    pub(crate) preface_bytes: Written<Size>,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            connections: count(10_000),
            connections_per_source: count(1_000),
            undecided_per_source: None,
            udp_flows: count(10_000),
            udp_flows_per_source: count(1_000),
            source_prefix_v4: 32,
            source_prefix_v6: 64,
            preface_bytes: Written(Size(16 << 10)),
        }
    }
}

/// How long each phase may last.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TimeoutsFile {
    /// Until the PROXY header is whole; `3s` at least, as the protocol's specification asks.
    pub(crate) header: Written<Duration>,
    /// Until it is known what is spoken.
    pub(crate) preface: Written<Duration>,
    /// A client that has said nothing for so long waits for the server to speak (protocol `silence`).
    pub(crate) silence: Written<Duration>,
    /// A connection without a byte in either direction.
    pub(crate) idle: Written<Duration>,
    /// A connection of which one direction has ended, without a byte in the other.
    pub(crate) half_closed: Written<Duration>,
    /// A UDP flow that only one side has used.
    pub(crate) udp_one_way: Written<Duration>,
    /// A UDP flow that both sides have used.
    pub(crate) udp_idle: Written<Duration>,
    /// When the proxy is told to end, it says so for so long (`/ready`), and takes clients as before; `drain` begins then.
    pub(crate) drain_delay: Written<Duration>,
    /// Open connections when the proxy is told to end.
    pub(crate) drain: Written<Duration>,
    /// Open connections of a proxy from which a newer process took over.
    pub(crate) handed_over: Written<Duration>,
    /// Idle time before the first TCP keepalive probe, in whole seconds up to `32767s` (tcp(7)).
    pub(crate) keepalive: Written<Duration>,
    /// Data that is not acknowledged, or for which the receiver has no room, ends a connection after so long
    /// (`TCP_USER_TIMEOUT`), up to `24d`. Without it: as long as the kernel tries, and a reader may pause up to `idle`.
    pub(crate) user_timeout: Option<Written<Duration>>,
}

impl Default for TimeoutsFile {
    fn default() -> Self {
        Self {
            header: seconds(3),
            preface: seconds(5),
            silence: seconds(3),
            idle: seconds(3_600),
            half_closed: seconds(300),
            udp_one_way: seconds(60),
            udp_idle: seconds(180),
            drain_delay: seconds(0),
            drain: seconds(30),
            handed_over: seconds(7 * 86_400),
            keepalive: seconds(60),
            user_timeout: None,
        }
    }
}
