//! `edgeproxy top`: two moments of the proxy as a table. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::state::{Condition, Status, TrafficStatus};

/// The table. Rates are those since `before`; without it, since the process began.
#[must_use]
pub fn render(before: Option<&Status>, now: &Status) -> String {
    // A process that began anew counts from zero: nothing of the former's can be subtracted.
    let before = before.filter(|before| before.pid == now.pid && before.uptime_us < now.uptime_us);
    let seconds = now.uptime_us.saturating_sub(before.map_or(0, |before| before.uptime_us)) as f64 / 1e6;
    let mut text = String::new();
    head(&mut text, before.is_none(), now);
    listeners(&mut text, before, now, seconds);
    backends(&mut text, before, now, seconds);
    let rules = before.map(|before| before.rules.as_slice());
    counts(&mut text, "RULE", "CHOSEN", rules, &now.rules, seconds);
    let closed = before.map(|before| before.closed.as_slice());
    counts(&mut text, "CLOSE REASON", "ENDED", closed, &now.closed, seconds);
    text
}

fn head(text: &mut String, since_start: bool, now: &Status) {
    let draining = if now.draining { "  DRAINING" } else { "" };
    let (version, pid, workers, denied) = (&now.version, now.pid, now.workers, now.denied);
    let up = uptime(now.uptime_us / 1_000_000);
    let _ = writeln!(text, "edgeproxy {version}  pid {pid}  up {up}  workers {workers}  denied {denied}{draining}");
    let _ = write!(text, "reloads {} ({} refused)", now.reloads, now.reload_failures);
    if let Some(log) = now.log {
        let _ = write!(text, "  log lines {} ({} dropped, {} failed)", log.written, log.dropped, log.failed);
    }
    let _ = writeln!(text, "  rates since {}", if since_start { "the start" } else { "the last look" });
}

fn listeners(text: &mut String, before: Option<&Status>, now: &Status, seconds: f64) {
    let _ = writeln!(
        text,
        "\n{:<16} {:>4} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "LISTENER", "", "ACTIVE", "NEW/S", "DGRAMS/S", "IN B/S", "OUT B/S"
    );
    for listener in &now.listeners {
        let former = before.and_then(|before| before.listeners.iter().find(|former| former.name == listener.name));
        let kinds = [("tcp", &listener.tcp, former.map(|f| &f.tcp)), ("udp", &listener.udp, former.map(|f| &f.udp))];
        for (kind, traffic, former) in
            kinds.into_iter().filter(|(kind, traffic, _)| *kind == "tcp" || traffic.opened > 0)
        {
            let rate = |read: fn(&TrafficStatus) -> u64| rate(former.map_or(0, read), read(traffic), seconds);
            let _ = writeln!(
                text,
                "{:<16} {kind:>4} {:>8} {:>8} {:>10} {:>10} {:>10}",
                plain(&listener.name),
                traffic.active,
                short(rate(|traffic| traffic.opened)),
                short(rate(|traffic| traffic.datagrams_in) + rate(|traffic| traffic.datagrams_out)),
                short(rate(|traffic| traffic.bytes_in)),
                short(rate(|traffic| traffic.bytes_out)),
            );
        }
    }
}

fn backends(text: &mut String, before: Option<&Status>, now: &Status, seconds: f64) {
    let _ = writeln!(text, "\n{:<16} {:>8} {:>8} {:>8}  TARGETS", "BACKEND", "ACTIVE", "CONN/S", "FAIL/S");
    for backend in &now.backends {
        let former = before.and_then(|before| before.backends.iter().find(|former| former.name == backend.name));
        let targets = backend.targets.iter().map(|target| {
            let condition = match target.condition {
                Condition::Up => "up",
                Condition::Down => "DOWN",
                Condition::Ejected => "EJECTED",
            };
            format!("{} {condition}", plain(&target.target))
        });
        let _ = writeln!(
            text,
            "{:<16} {:>8} {:>8} {:>8}  {}",
            plain(&backend.name),
            backend.active,
            short(rate(former.map_or(0, |former| former.connected), backend.connected, seconds)),
            short(rate(former.map_or(0, |former| former.failures), backend.failures, seconds)),
            targets.collect::<Vec<_>>().join(", "),
        );
    }
}

fn counts(
    text: &mut String,
    what: &str,
    unit: &str,
    before: Option<&[(String, u64)]>,
    now: &[(String, u64)],
    seconds: f64,
) {
    let _ = writeln!(text, "\n{what:<26} {unit:>12} {:>8}", "/S");
    let before: BTreeMap<&str, u64> =
        before.into_iter().flatten().map(|(name, count)| (name.as_str(), *count)).collect();
    for (name, count) in now {
        let rate = rate(before.get(name.as_str()).copied().unwrap_or(0), *count, seconds);
        let _ = writeln!(text, "{:<26} {count:>12} {:>8}", plain(name), short(rate));
    }
}

fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        now.saturating_sub(before) as f64 / seconds
    } else {
        0.0
    }
}

/// Three digits or so and a power of a thousand.
fn short(value: f64) -> String {
    let powers = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let found = powers.into_iter().find(|(power, _)| value >= *power);
    found.map_or_else(|| format!("{value:.1}"), |(power, letter)| format!("{:.1}{letter}", value / power))
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{days}d {hours:02}:{minutes:02}:{:02}", seconds % 60)
}

/// A name on one line of a terminal.
fn plain(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::state::{BackendStatus, ListenerStatus, LogStatus, TargetCondition};
    use super::*;

    fn traffic(scale: u64) -> TrafficStatus {
        TrafficStatus {
            active: scale,
            opened: 10 * scale,
            bytes_in: 1_000 * scale,
            bytes_out: 3_000_000 * scale,
            datagrams_in: scale,
            datagrams_out: scale,
        }
    }

    fn status(seconds: u64) -> Status {
        Status {
            version: "1.2.3".to_owned(),
            pid: 77,
            uptime_us: seconds * 1_000_000,
            workers: 2,
            reloads: 4,
            reload_failures: 1,
            draining: false,
            denied: 9,
            log: Some(LogStatus { written: 5, dropped: 6, failed: 7 }),
            listeners: vec![ListenerStatus {
                name: "web\u{1b}[2J".to_owned(),
                tcp: traffic(seconds),
                udp: traffic(2 * seconds),
                accept_errors: 0,
            }],
            rules: vec![("names".to_owned(), 40 * seconds)],
            backends: vec![BackendStatus {
                name: "home".to_owned(),
                active: 3,
                connected: 8 * seconds,
                failures: seconds * 2,
                targets: vec![TargetCondition {
                    backend: "home".to_owned(),
                    target: "nas:443".to_owned(),
                    condition: Condition::Down,
                }],
            }],
            closed: vec![("no_rule".to_owned(), 100 * seconds)],
        }
    }

    fn row<'a>(table: &'a str, begins: &str) -> Vec<&'a str> {
        let line = table.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{begins} in {table}"));
        line.split_whitespace().collect()
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let table = render(Some(&status(10)), &status(12));
        assert_eq!(row(&table, "web")[1..], ["tcp", "12", "10.0", "2.0", "1.0k", "3.0M"]);
        assert_eq!(row(&table, "home"), ["home", "3", "8.0", "2.0", "nas:443", "DOWN"]);
        assert_eq!(row(&table, "names"), ["names", "480", "40.0"]);
        assert_eq!(row(&table, "no_rule"), ["no_rule", "1200", "100.0"]);
        assert!(table.contains("rates since the last look") && table.contains("log lines 5 (6 dropped, 7 failed)"));
    }

    #[test]
    fn without_a_former_look_rates_are_since_the_start() {
        let table = render(None, &status(10));
        assert_eq!(row(&table, "no_rule"), ["no_rule", "1000", "100.0"]);
        assert!(table.contains("rates since the start") && table.contains("up 0d 00:00:10"));
        let other_process = Status { pid: 78, ..status(5) };
        assert_eq!(render(Some(&other_process), &status(10)), table);
        assert!(row(&render(None, &status(0)), "no_rule").ends_with(&["0.0"]));
    }

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert!(!render(None, &status(1)).contains('\u{1b}'));
    }

    #[test]
    fn draining_is_seen() {
        assert!(render(None, &Status { draining: true, ..status(1) }).contains("DRAINING"));
    }
}
