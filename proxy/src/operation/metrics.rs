//! All counters in Prometheus' text format, version 0.0.4. Pure.

use std::fmt::{self, Display, Write};
use std::time::UNIX_EPOCH;

use super::access_line::transport;
use super::close_reason::ALL_LABELS;
use super::counters::{Counter, Traffic};
use super::histogram::Histogram;
use super::ledger::Totals;
use super::outcomes::{HeaderIn, HeaderOut, Peer, UdpDrop};
use super::protocols;
use super::state::{Condition, State};
use crate::config::model::Transport;

/// The text of this moment.
pub fn render(state: &mut State, now: std::time::Instant) -> String {
    let totals = state.ledger.totals();
    let mut text = Text(String::with_capacity(32 * 1024));
    process(&mut text, state, now);
    traffic(&mut text, &totals);
    ends(&mut text, &totals);
    multipath(&mut text, &totals);
    preface(&mut text, &totals);
    backends(&mut text, &totals, state);
    text.0
}

fn process(text: &mut Text, state: &State, now: std::time::Instant) {
    text.family("edgeproxy_build_info", "gauge", "The program that runs.");
    text.sample("edgeproxy_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("edgeproxy_start_time_seconds", "gauge", "When the process began, in seconds since 1970.");
    let began = state.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    text.sample("edgeproxy_start_time_seconds", &[], began.as_secs());
    text.single("edgeproxy_workers", "gauge", "Threads that accept and relay.", state.workers);
    text.single("edgeproxy_draining", "gauge", "1 once the proxy was told to end.", u8::from(state.draining));
    text.single("edgeproxy_reloads_total", "counter", "Configurations that replaced another.", state.reloads);
    let failures = state.reload_failures;
    text.single("edgeproxy_reload_failures_total", "counter", "Configurations that were refused.", failures);
    text.single("edgeproxy_denied_prefixes", "gauge", "Prefixes that are refused.", state.deny.denied(now).count());
    if let Some(rules) = state.kernel_rules {
        let name = "edgeproxy_kernel_rules_present";
        text.single(
            name,
            "gauge",
            "1 while all rules of the kernel that are wanted are there.",
            u8::from(rules.present),
        );
        let name = "edgeproxy_kernel_rules_restored_total";
        text.single(name, "counter", "Times rules were put back that somebody had removed.", rules.restored);
    }
    if let Some(log) = state.log.as_deref() {
        let name = "edgeproxy_access_log_lines_total";
        text.family(name, "counter", "Lines of the access log by what became of them.");
        let outcomes = [
            ("written", log.written()),
            ("dropped", log.dropped()),
            ("failed", log.failed()),
            ("left_out", log.left_out()),
        ];
        for (outcome, lines) in outcomes {
            text.sample(name, &[("outcome", outcome)], lines);
        }
        let name = "edgeproxy_access_log_reopen_failures_total";
        text.single(name, "counter", "Times the access log could not be opened anew.", log.reopen_failures());
    }
}

fn traffic(text: &mut Text, totals: &Totals) {
    type Read = fn(&Traffic) -> u64;
    let families: [(&str, &str, &str, Read); 6] = [
        ("edgeproxy_opened_total", "counter", "Connections accepted and flows begun.", |t| t.opened.get()),
        ("edgeproxy_active", "gauge", "Connections and flows that are open.", Traffic::active),
        ("edgeproxy_received_bytes_total", "counter", "Payload from clients.", |t| t.bytes_in.get()),
        ("edgeproxy_sent_bytes_total", "counter", "Payload to clients.", |t| t.bytes_out.get()),
        ("edgeproxy_received_datagrams_total", "counter", "Datagrams from clients.", |t| t.datagrams_in.get()),
        ("edgeproxy_sent_datagrams_total", "counter", "Datagrams to clients.", |t| t.datagrams_out.get()),
    ];
    for (name, kind, help, read) in families {
        text.family(name, kind, help);
        for (listener, counters) in &totals.listeners {
            for of in [Transport::Tcp, Transport::Udp] {
                if of == Transport::Tcp && name.contains("datagrams") {
                    continue;
                }
                let labels = [("listener", listener.as_str()), ("transport", transport(of))];
                text.sample(name, &labels, read(counters.of(of)));
            }
        }
    }
    text.family("edgeproxy_accept_errors_total", "counter", "Calls to accept that failed.");
    for (listener, counters) in &totals.listeners {
        text.sample("edgeproxy_accept_errors_total", &[("listener", listener)], counters.accept_errors.get());
    }
}

fn ends(text: &mut Text, totals: &Totals) {
    let name = "edgeproxy_closed_total";
    text.family(name, "counter", "Connections and flows that ended, by reason.");
    let global = &totals.global;
    for (of, counts) in [(Transport::Tcp, &global.tcp_closed), (Transport::Udp, &global.udp_closed)] {
        for (reason, count) in ALL_LABELS.iter().zip(counts) {
            text.sample(name, &[("transport", transport(of)), ("reason", reason)], count.get());
        }
    }
    let name = "edgeproxy_dropped_datagrams_total";
    let words = UdpDrop::ALL.iter().map(|why| why.label());
    text.by_word(name, "Datagrams that went nowhere, by reason.", "reason", words, &global.udp_drops);
}

fn multipath(text: &mut Text, totals: &Totals) {
    let name = "edgeproxy_mptcp_connections_total";
    text.family(name, "counter", "Connections where mptcp is true, by the other end and by what they are.");
    for (protocol, counts) in [("mptcp", &totals.global.multipath), ("tcp", &totals.global.fallen_back)] {
        for (peer, count) in Peer::ALL.iter().zip(counts) {
            text.sample(name, &[("peer", peer.label()), ("protocol", protocol)], count.get());
        }
    }
}

fn preface(text: &mut Text, totals: &Totals) {
    let global = &totals.global;
    let name = "edgeproxy_recognised_total";
    let words = protocols::LABELS.iter().copied();
    text.by_word(name, "What was spoken, of connections and flows.", "protocol", words, &global.protocols);
    text.single(
        "edgeproxy_ech_hellos_total",
        "counter",
        "Hellos with an encrypted inner hello, or GREASE.",
        global.ech.get(),
    );
    text.single(
        "edgeproxy_post_quantum_hellos_total",
        "counter",
        "Hellos with a post-quantum key share.",
        global.post_quantum.get(),
    );
    let name = "edgeproxy_preface_bytes";
    text.family(name, "histogram", "Bytes read before it was known what is spoken.");
    text.histogram(name, &[], &global.preface_bytes, |bytes| bytes.to_string());
    let name = "edgeproxy_preface_reads";
    text.family(name, "histogram", "Reads (datagrams) before it was known what is spoken.");
    text.histogram(name, &[], &global.preface_segments, |reads| reads.to_string());
    let name = "edgeproxy_preface_seconds";
    text.family(name, "histogram", "Time until it was known what is spoken.");
    text.histogram(name, &[], &global.preface_time, seconds);
    let name = "edgeproxy_proxy_headers_received_total";
    let words = HeaderIn::ALL.iter().map(|outcome| outcome.label());
    text.by_word(name, "PROXY headers of peers, by what became of them.", "outcome", words, &global.headers_in);
    let name = "edgeproxy_proxy_headers_sent_total";
    let words = HeaderOut::ALL.iter().map(|form| form.label());
    text.by_word(name, "PROXY headers to backends, by form.", "form", words, &global.headers_out);
}

fn backends(text: &mut Text, totals: &Totals, state: &State) {
    text.family("edgeproxy_rule_chosen_total", "counter", "Connections and flows for which a rule decided.");
    for (rule, counters) in &totals.rules {
        text.sample("edgeproxy_rule_chosen_total", &[("rule", rule)], counters.chosen.get());
    }
    text.family("edgeproxy_backend_active", "gauge", "Connections and flows that a backend has.");
    for (backend, counters) in &totals.backends {
        text.sample("edgeproxy_backend_active", &[("backend", backend)], counters.active());
    }
    text.family("edgeproxy_backend_failures_total", "counter", "Clients that none of its candidates served.");
    for (backend, counters) in &totals.backends {
        text.sample("edgeproxy_backend_failures_total", &[("backend", backend)], counters.failures.get());
    }
    text.family("edgeproxy_backend_connect_seconds", "histogram", "Time to connect to a candidate.");
    for (backend, counters) in &totals.backends {
        let labels = [("backend", backend.as_str())];
        text.histogram("edgeproxy_backend_connect_seconds", &labels, &counters.connect_time, seconds);
    }
    text.family("edgeproxy_backend_up", "gauge", "1 while a candidate is used, for clients of a transport.");
    for target in &state.conditions {
        for of in &target.by_transport {
            let by = ("transport", transport(of.transport));
            let labels = [("backend", target.backend.as_str()), ("target", target.target.as_str()), by];
            text.sample("edgeproxy_backend_up", &labels, u8::from(of.condition == Condition::Up));
        }
    }
    let name = "edgeproxy_backend_ejected_endpoints";
    text.family(name, "gauge", "Endpoints of hosts that clients name, which rest.");
    for target in &state.conditions {
        let labels = [("backend", target.backend.as_str()), ("target", target.target.as_str())];
        text.sample(name, &labels, target.resting);
    }
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The text so far. Writing to a string does not fail.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn by_word<'w>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        words: impl Iterator<Item = &'w str>,
        counts: &[Counter],
    ) {
        self.family(name, "counter", help);
        for (word, count) in words.zip(counts) {
            self.sample(name, &[(label, word)], count.get());
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = writeln!(self.0, "{name}{} {value}", Labels(labels));
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram, unit: fn(u64) -> String) {
        let mut count = 0;
        for (bound, below) in histogram.cumulative() {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), unit);
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&format!("{name}_bucket"), &labels, below);
            count = below;
        }
        self.sample(&format!("{name}_sum"), labels, unit(histogram.sum()));
        self.sample(&format!("{name}_count"), labels, count);
    }
}

/// Labels in braces; values escaped as the format has it: backslash, double quote, line feed.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for (name, value) in self.0 {
            write!(f, "{before}{name}=\"")?;
            value.chars().try_for_each(|character| match character {
                '\\' => f.write_str("\\\\"),
                '"' => f.write_str("\\\""),
                '\n' => f.write_str("\\n"),
                _ => f.write_char(character),
            })?;
            f.write_char('"')?;
            before = ',';
        }
        f.write_str(if self.0.is_empty() { "" } else { "}" })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::super::access_log::LogFigures;
    use super::super::deny::DenyList;
    use super::super::ledger::Names;
    use super::super::metrics_check::read;
    use super::super::state::{TargetCondition, TransportCondition};
    use super::super::CloseReason;
    use super::*;
    use crate::config::model::{BackendId, ListenerId, Protocol, RuleId};
    use crate::sniff::Found;

    /// Everything counted once at least, under names that try to break out of their quotes.
    fn busy(now: Instant) -> State {
        let deny = DenyList::new(&["192.0.2.0/24".parse().unwrap()]);
        let log = Some(std::sync::Arc::<LogFigures>::default());
        let mut state = State::new(deny, log, 1, (now, SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        let hostile = || vec!["a\"} 1\n\\".to_owned(), "é\\n".to_owned()];
        let names = Names { listeners: hostile(), rules: hostile(), backends: hostile() };
        let worker = state.ledger.begin(names, 1).remove(0);
        worker.opened(ListenerId(0), Transport::Tcp);
        worker.opened(ListenerId(0), Transport::Udp);
        worker.carried(ListenerId(0), Transport::Tcp, 11, 12);
        worker.datagrams(ListenerId(0), 13, 14);
        worker.closed(ListenerId(0), Transport::Tcp, CloseReason::NoRule);
        let found = Found { ech: true, post_quantum: true, ..Found::default() };
        worker.preface(Some(&(Protocol::Quic, found)), 1_200, 1, Duration::from_micros(49));
        worker.preface(Some(&(Protocol::Quic, Found { post_quantum: true, ..Found::default() })), 1, 1, Duration::ZERO);
        worker.preface(None, 99_999, 999, Duration::from_secs(99));
        worker.rule_chosen(RuleId(1));
        worker.backend_connected(BackendId(0), Duration::from_micros(300));
        worker.backend_failed(BackendId(0));
        worker.datagrams_dropped(UdpDrop::Rate, 15);
        worker.multipath(Peer::Client, true);
        (0..2).for_each(|_| worker.multipath(Peer::Backend, false));
        worker.header_in(HeaderIn::Broken);
        worker.header_out(HeaderOut::V2);
        let conditions = [("t:1", Condition::Up), ("t:2", Condition::Down), ("t:3", Condition::Ejected)];
        state.conditions = conditions
            .map(|(target, condition)| TargetCondition {
                backend: "b".to_owned(),
                target: target.to_owned(),
                condition,
                by_transport: vec![
                    TransportCondition { transport: Transport::Tcp, condition: Condition::Up },
                    TransportCondition { transport: Transport::Udp, condition },
                ],
                resting: 3,
            })
            .to_vec();
        state
    }

    #[test]
    fn the_text_is_sound_and_says_what_was_counted() {
        let now = Instant::now();
        let samples = read(&render(&mut busy(now), now));
        let listener = "listener=\"a\\\"} 1\\n\\\\\"";
        for (key, value) in [
            (format!("edgeproxy_opened_total{{{listener},transport=\"tcp\"}}"), 1.0),
            (format!("edgeproxy_active{{{listener},transport=\"tcp\"}}"), 0.0),
            (format!("edgeproxy_active{{{listener},transport=\"udp\"}}"), 1.0),
            (format!("edgeproxy_received_bytes_total{{{listener},transport=\"tcp\"}}"), 11.0),
            (format!("edgeproxy_sent_bytes_total{{{listener},transport=\"tcp\"}}"), 12.0),
            (format!("edgeproxy_received_datagrams_total{{{listener},transport=\"udp\"}}"), 13.0),
            (format!("edgeproxy_sent_datagrams_total{{{listener},transport=\"udp\"}}"), 14.0),
            ("edgeproxy_closed_total{transport=\"tcp\",reason=\"no_rule\"}".to_owned(), 1.0),
            ("edgeproxy_dropped_datagrams_total{reason=\"rate\"}".to_owned(), 15.0),
            ("edgeproxy_mptcp_connections_total{peer=\"client\",protocol=\"mptcp\"}".to_owned(), 1.0),
            ("edgeproxy_mptcp_connections_total{peer=\"backend\",protocol=\"mptcp\"}".to_owned(), 0.0),
            ("edgeproxy_mptcp_connections_total{peer=\"backend\",protocol=\"tcp\"}".to_owned(), 2.0),
            ("edgeproxy_recognised_total{protocol=\"quic\"}".to_owned(), 2.0),
            ("edgeproxy_recognised_total{protocol=\"unknown\"}".to_owned(), 1.0),
            ("edgeproxy_ech_hellos_total".to_owned(), 1.0),
            ("edgeproxy_post_quantum_hellos_total".to_owned(), 2.0),
            ("edgeproxy_preface_bytes_bucket{le=\"1460\"}".to_owned(), 2.0),
            ("edgeproxy_preface_reads_count".to_owned(), 3.0),
            ("edgeproxy_preface_seconds_sum".to_owned(), 99.000_049),
            ("edgeproxy_proxy_headers_received_total{outcome=\"broken\"}".to_owned(), 1.0),
            ("edgeproxy_proxy_headers_sent_total{form=\"v2\"}".to_owned(), 1.0),
            ("edgeproxy_rule_chosen_total{rule=\"é\\\\n\"}".to_owned(), 1.0),
            ("edgeproxy_backend_up{backend=\"b\",target=\"t:1\",transport=\"udp\"}".to_owned(), 1.0),
            ("edgeproxy_backend_up{backend=\"b\",target=\"t:3\",transport=\"tcp\"}".to_owned(), 1.0),
            ("edgeproxy_backend_up{backend=\"b\",target=\"t:3\",transport=\"udp\"}".to_owned(), 0.0),
            ("edgeproxy_backend_ejected_endpoints{backend=\"b\",target=\"t:2\"}".to_owned(), 3.0),
            ("edgeproxy_denied_prefixes".to_owned(), 1.0),
            ("edgeproxy_start_time_seconds".to_owned(), 7.0),
        ] {
            assert_eq!(samples.get(&key), Some(&value), "{key}");
        }
        let backend = "backend=\"a\\\"} 1\\n\\\\\"";
        assert_eq!(samples[&format!("edgeproxy_backend_connect_seconds_bucket{{{backend},le=\"0.0005\"}}")], 1.0);
        assert_eq!(samples[&format!("edgeproxy_backend_failures_total{{{backend}}}")], 1.0);
    }

    #[test]
    fn nothing_that_counts_goes_backwards_over_a_reload() {
        let now = Instant::now();
        let mut state = busy(now);
        let before = read(&render(&mut state, now));
        drop(state.ledger.begin(Names { listeners: vec!["é\\n".to_owned()], ..Names::default() }, 3));
        let after = read(&render(&mut state, now));
        for (key, value) in before.iter().filter(|(key, _)| key.contains("_total") || key.contains("_bucket")) {
            assert!(after.get(key) >= Some(value), "{key}");
        }
    }
}
