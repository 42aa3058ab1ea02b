//! Sections of plain values: times, sizes and numbers within their bounds.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::size;
use crate::config::file::{LimitsFile, OperationFile, ResolverFile, TimeoutsFile, TransparentFile};
use crate::config::findings::Findings;
use crate::config::model::{Limits, Listener, Operation, Resolver, SourcePrefixes, Timeouts, TransparentRules};
use crate::config::notation::{Show, Written};

const MOMENT: Duration = Duration::from_millis(1);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// "At least 3 seconds to cover a TCP retransmit", PROXY protocol, section 2.
const SHORTEST_HEADER: Duration = Duration::from_secs(3);
/// `MAX_TCP_KEEPIDLE` of Linux; the option counts seconds.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// `TCP_USER_TIMEOUT` is an int of milliseconds.
const LONGEST_USER_TIMEOUT: Duration = Duration::from_secs(24 * 86_400);
/// With fewer bytes no usual TLS hello fits, with more a thousand slow clients take a gigabyte.
const PREFACE: std::ops::RangeInclusive<u32> = 1 << 10..=1 << 20;
/// Routing tables `default`, `main` and `local`, rtnetlink(7).
const TABLES_OF_THE_KERNEL: std::ops::RangeInclusive<u32> = 253..=255;

pub(super) fn limits(file: &LimitsFile, findings: &mut Findings<'_>) -> Limits {
    let preface = file.preface_bytes.0;
    if !PREFACE.contains(&preface.0) {
        let found = format!("{:?} is out of bounds", preface.show());
        findings.fault("limits.preface_bytes", found, "from \"1KiB\" to \"1MiB\" is allowed");
    }
    Limits {
        connections: size(file.connections),
        connections_per_source: size(file.connections_per_source),
        undecided_per_source: size(file.undecided_per_source.unwrap_or(file.connections_per_source)),
        udp_flows: size(file.udp_flows),
        udp_flows_per_source: size(file.udp_flows_per_source),
        source: SourcePrefixes { v4: file.source_prefix_v4, v6: file.source_prefix_v6 },
        preface_bytes: usize::try_from(preface.0).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN),
    }
}

pub(super) fn timeouts(file: &TimeoutsFile, findings: &mut Findings<'_>) -> Timeouts {
    let mut time = |key: &str, written: Written<Duration>, least: Duration, most: Duration| {
        within(&format!("timeouts.{key}"), written.0, least, most, findings)
    };
    let timeouts = Timeouts {
        header: time("header", file.header, SHORTEST_HEADER, YEAR),
        preface: time("preface", file.preface, MOMENT, YEAR),
        silence: time("silence", file.silence, MOMENT, YEAR),
        idle: time("idle", file.idle, MOMENT, YEAR),
        half_closed: time("half_closed", file.half_closed, MOMENT, YEAR),
        udp_one_way: time("udp_one_way", file.udp_one_way, MOMENT, YEAR),
        udp_idle: time("udp_idle", file.udp_idle, MOMENT, YEAR),
        drain_delay: time("drain_delay", file.drain_delay, Duration::ZERO, YEAR),
        drain: time("drain", file.drain, Duration::ZERO, YEAR),
        handed_over: time("handed_over", file.handed_over, Duration::ZERO, YEAR),
        keepalive: time("keepalive", file.keepalive, Duration::from_secs(1), LONGEST_KEEPALIVE),
        user_timeout: file.user_timeout.map(|written| time("user_timeout", written, MOMENT, LONGEST_USER_TIMEOUT)),
    };
    if timeouts.keepalive.subsec_nanos() != 0 && findings.is_sound("timeouts.keepalive") {
        let found = format!("{:?} is not a whole number of seconds", timeouts.keepalive.show());
        findings.fault("timeouts.keepalive", found, "the kernel counts whole seconds here");
    }
    timeouts
}

pub(super) fn resolver(file: &ResolverFile, findings: &mut Findings<'_>) -> Resolver {
    let mut time = |key: &str, written: Written<Duration>, least: Duration, most: Duration| {
        within(&format!("resolver.{key}"), written.0, least, most, findings)
    };
    let resolver = Resolver {
        servers: file.servers.iter().flatten().map(|written| written.0 .0).collect(),
        timeout: time("timeout", file.timeout, MOMENT, Duration::from_secs(60)),
        stale: time("stale", file.stale, Duration::ZERO, YEAR),
        negative: time("negative", file.negative, Duration::ZERO, YEAR),
        min_ttl: time("min_ttl", file.min_ttl, Duration::ZERO, YEAR),
        max_ttl: time("max_ttl", file.max_ttl, MOMENT, YEAR),
        cache_entries: size(file.cache_entries),
    };
    if resolver.min_ttl > resolver.max_ttl {
        let (min, max) = (resolver.min_ttl.show(), resolver.max_ttl.show());
        let found = format!("min_ttl = {min:?} with max_ttl = {max:?}");
        findings.fault("resolver", found, "min_ttl is not above max_ttl");
    }
    resolver
}

pub(super) fn transparent(file: &TransparentFile, findings: &mut Findings<'_>) -> TransparentRules {
    if TABLES_OF_THE_KERNEL.contains(&file.table.get()) {
        let found = format!("table {} is one of the kernel's own", file.table);
        findings.fault("transparent.table", found, "any but 0 and 253 to 255 is allowed");
    }
    TransparentRules { manage_rules: file.manage_rules, mark: file.mark, table: file.table }
}

pub(super) fn operation(file: &OperationFile, listeners: &[Listener], findings: &mut Findings<'_>) -> Operation {
    let metrics = file.metrics.map(|written| written.0 .0);
    if let Some(metrics) = metrics {
        let is_taken = |listener: &&Listener| listener.tcp.iter().any(|endpoint| clash(metrics, *endpoint));
        if let Some(listener) = listeners.iter().find(is_taken) {
            let found = format!("{metrics} belongs to the listener {:?}", listener.name);
            findings.fault("operation.metrics", found, "give it a port of its own");
        }
    }
    Operation {
        admin_socket: file.admin_socket.as_ref().map(|written| written.0 .0.clone()),
        metrics,
        access_log: file.access_log.as_ref().map(|written| written.0 .0.clone()),
        fixed_ports: file.fixed_ports,
    }
}

fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_same
}

fn within(path: &str, time: Duration, least: Duration, most: Duration, findings: &mut Findings<'_>) -> Duration {
    if !(least..=most).contains(&time) {
        let found = format!("{:?} is out of bounds", time.show());
        findings.fault(path, found, format!("from {:?} to {:?} is allowed", least.show(), most.show()));
    }
    time
}
