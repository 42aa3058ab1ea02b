//! What the control thread knows of the process, for those who ask: counters, deny list, condition of backends.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::access_log::LogFigures;
use super::close_reason::ALL_LABELS;
use super::counters::{Counter, Traffic};
use super::deny::DenyList;
use super::ledger::{Ledger, Totals};
use crate::config::model::Transport;

/// Whether a candidate is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It is.
    Up,
    /// Its checks failed.
    Down,
    /// It rests after failed connects.
    Ejected,
}

/// The condition of one candidate of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetCondition {
    /// The backend's name.
    pub backend: String,
    /// The candidate as the file has it: `host:port`.
    pub target: String,
    /// How it is; ejected, if it is so for either transport.
    pub condition: Condition,
    /// How it is for clients of each transport, of those that any listener has.
    #[serde(default)]
    pub by_transport: Vec<TransportCondition>,
    /// Where clients name the host: endpoints that rest.
    #[serde(default)]
    pub resting: usize,
}

/// The condition of a candidate for clients of one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportCondition {
    /// Which.
    pub transport: Transport,
    /// How it is for these.
    pub condition: Condition,
}

/// Of the kernel's rules, where this process has them kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRules {
    /// All that are wanted are there, as was found last.
    pub present: bool,
    /// How often some were put back that somebody had removed.
    pub restored: u64,
}

/// The process in the control thread's eyes.
#[derive(Debug)]
pub struct State {
    /// All counters.
    pub ledger: Ledger,
    /// Who is kept out.
    pub deny: DenyList,
    /// How the candidates of the configuration in use are, in its order.
    pub conditions: Vec<TargetCondition>,
    /// What became of log lines.
    pub log: Option<Arc<LogFigures>>,
    /// When the process began, by the monotonic clock.
    pub started: Instant,
    /// When it began, by the calendar.
    pub started_at: SystemTime,
    /// Workers.
    pub workers: usize,
    /// Configurations that came into use after the first.
    pub reloads: u64,
    /// Configurations that were refused.
    pub reload_failures: u64,
    /// It was told to end.
    pub draining: bool,
    /// The kernel's rules; none where they are left to others, or none are wanted and nobody keeps them.
    pub kernel_rules: Option<KernelRules>,
}

impl State {
    /// At the start of the process.
    #[must_use]
    pub fn new(deny: DenyList, log: Option<Arc<LogFigures>>, workers: usize, started: (Instant, SystemTime)) -> Self {
        Self {
            ledger: Ledger::default(),
            deny,
            conditions: Vec::new(),
            log,
            started: started.0,
            started_at: started.1,
            workers,
            reloads: 0,
            reload_failures: 0,
            draining: false,
            kernel_rules: None,
        }
    }

    /// Whether the kernel's rules are there, where they are kept.
    pub fn kernel_rules_are(&mut self, present: bool) {
        if let Some(rules) = &mut self.kernel_rules {
            rules.present = present;
        }
    }

    /// All of it in numbers, at this moment.
    pub fn status(&mut self, now: Instant) -> Status {
        let totals = self.ledger.totals();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_us: micros(now.saturating_duration_since(self.started)),
            workers: self.workers,
            reloads: self.reloads,
            reload_failures: self.reload_failures,
            draining: self.draining,
            kernel_rules: self.kernel_rules,
            denied: self.deny.denied(now).count(),
            log: self.log.as_deref().map(|log| LogStatus {
                written: log.written(),
                dropped: log.dropped(),
                failed: log.failed(),
            }),
            listeners: listeners(&totals),
            rules: totals.rules.iter().map(|(name, rule)| (name.clone(), rule.chosen.get())).collect(),
            backends: self.backends(&totals),
            closed: closed(&totals),
        }
    }

    fn backends(&self, totals: &Totals) -> Vec<BackendStatus> {
        let backends = totals.backends.iter().map(|(name, counters)| BackendStatus {
            name: name.clone(),
            active: counters.active(),
            connected: counters.connected.get(),
            failures: counters.failures.get(),
            targets: self.conditions.iter().filter(|target| target.backend == *name).cloned().collect(),
        });
        backends.collect()
    }
}

fn listeners(totals: &Totals) -> Vec<ListenerStatus> {
    let listeners = totals.listeners.iter().map(|(name, counters)| ListenerStatus {
        name: name.clone(),
        tcp: TrafficStatus::of(&counters.tcp),
        udp: TrafficStatus::of(&counters.udp),
        accept_errors: counters.accept_errors.get(),
    });
    listeners.collect()
}

fn closed(totals: &Totals) -> Vec<(String, u64)> {
    let both = totals.global.tcp_closed.iter().zip(&totals.global.udp_closed);
    let counts = both.map(|(tcp, udp)| tcp.get() + udp.get());
    ALL_LABELS.iter().zip(counts).filter(|(_, count)| *count > 0).map(|(label, n)| ((*label).to_owned(), n)).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The answer to "how is it?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since its start: the clock for rates.
    pub uptime_us: u64,
    /// Workers.
    pub workers: usize,
    /// Configurations that came into use after the first.
    pub reloads: u64,
    /// Configurations that were refused.
    pub reload_failures: u64,
    /// It was told to end.
    pub draining: bool,
    /// The kernel's rules, where this process has them kept.
    pub kernel_rules: Option<KernelRules>,
    /// Prefixes that are refused.
    pub denied: usize,
    /// What became of log lines.
    pub log: Option<LogStatus>,
    /// Listeners by name.
    pub listeners: Vec<ListenerStatus>,
    /// How often each rule decided.
    pub rules: Vec<(String, u64)>,
    /// Backends by name.
    pub backends: Vec<BackendStatus>,
    /// Close reasons that have occurred, and how often.
    pub closed: Vec<(String, u64)>,
}

/// What became of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// Written.
    pub written: u64,
    /// Dropped because the disk was slow.
    pub dropped: u64,
    /// Refused by the disk.
    pub failed: u64,
}

/// One listener in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Connections.
    pub tcp: TrafficStatus,
    /// Flows.
    pub udp: TrafficStatus,
    /// Failed accepts.
    pub accept_errors: u64,
}

/// Of one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Open at this moment.
    pub active: u64,
    /// Opened so far.
    pub opened: u64,
    /// Payload from clients.
    pub bytes_in: u64,
    /// Payload to clients.
    pub bytes_out: u64,
    /// Datagrams from clients.
    pub datagrams_in: u64,
    /// Datagrams to clients.
    pub datagrams_out: u64,
}

impl TrafficStatus {
    fn of(traffic: &Traffic) -> Self {
        let of = Counter::get;
        Self {
            active: traffic.active(),
            opened: of(&traffic.opened),
            bytes_in: of(&traffic.bytes_in),
            bytes_out: of(&traffic.bytes_out),
            datagrams_in: of(&traffic.datagrams_in),
            datagrams_out: of(&traffic.datagrams_out),
        }
    }
}

/// One backend in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Connections and flows that it has.
    pub active: u64,
    /// Those that it ever had.
    pub connected: u64,
    /// Failed connects.
    pub failures: u64,
    /// Its candidates.
    pub targets: Vec<TargetCondition>,
}
