//! `edgeproxy top`: two moments of the proxy as a table. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::access_line::transport;
use super::state::{Condition, Status, TargetCondition, TrafficStatus};

/// How much there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Lines.
    pub rows: usize,
    /// Characters of a line.
    pub columns: usize,
}

/// Characters beside the names in the widest table.
const BESIDE_NAMES: usize = 56;
/// Names on a screen have room for so many characters at least, and at most.
const NAMES: (usize, usize) = (16, 40);

/// The table. Rates are those since `before`; without it, since the process began. On a screen what does not fit is left out
/// and counted, and the busiest come first.
#[must_use]
pub fn render(before: Option<&Status>, now: &Status, screen: Option<Screen>) -> String {
    // A process that began anew counts from zero: nothing of the former's can be subtracted.
    let before = before.filter(|before| before.pid == now.pid && before.uptime_us < now.uptime_us);
    let seconds = now.uptime_us.saturating_sub(before.map_or(0, |before| before.uptime_us)) as f64 / 1e6;
    let longest =
        screen.map_or(usize::MAX, |screen| screen.columns.saturating_sub(BESIDE_NAMES).clamp(NAMES.0, NAMES.1));
    let mut sections = vec![listeners(before, now, seconds, longest), backends(before, now, seconds, longest)];
    let rules = before.map(|before| before.rules.as_slice());
    sections.push(counts(("RULE", "CHOSEN"), rules, &now.rules, seconds, longest));
    let closed = before.map(|before| before.closed.as_slice());
    sections.push(counts(("CLOSE REASON", "ENDED"), closed, &now.closed, seconds, longest));
    sections.retain(|section| !section.rows.is_empty());
    let mut lines = head(before.is_none(), now);
    if let Some(screen) = screen {
        let room = screen.rows.saturating_sub(lines.len() + 1 + 2 * sections.len());
        shorten(&mut sections, room);
    }
    for section in sections {
        lines.extend([String::new(), section.title]);
        lines.extend(section.rows.into_iter().map(|(_, line)| line));
    }
    if let Some(screen) = screen {
        // A line end in the last row would move all up.
        lines.truncate(screen.rows.saturating_sub(1));
        lines.iter_mut().for_each(|line| *line = cut(line, screen.columns));
    }
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

/// A table of its own; each row with how busy what it tells of is.
struct Section {
    title: String,
    rows: Vec<(f64, String)>,
}

/// Leaves each section what it needs, or its share of the room.
fn shorten(sections: &mut [Section], mut room: usize) {
    let mut order: Vec<&mut Section> = sections.iter_mut().collect();
    order.sort_by_key(|section| section.rows.len());
    let mut left = order.len();
    for section in order {
        let (share, wanted) = (room.checked_div(left).unwrap_or(0).max(1), section.rows.len());
        if wanted > share {
            section.rows.sort_by(|(one, _), (other, _)| other.total_cmp(one));
            section.rows.truncate(share - 1);
            section.rows.push((0.0, format!("... {} more; --once shows all", wanted - (share - 1))));
        }
        room = room.saturating_sub(section.rows.len());
        left -= 1;
    }
}

fn head(since_start: bool, now: &Status) -> Vec<String> {
    let draining = if now.draining { "  DRAINING" } else { "" };
    let lacking = if now.kernel_rules.is_some_and(|rules| !rules.present) { "  KERNEL RULES MISSING" } else { "" };
    let (version, pid, workers, denied) = (&now.version, now.pid, now.workers, now.denied);
    let up = uptime(now.uptime_us / 1_000_000);
    let first =
        format!("edgeproxy {version}  pid {pid}  up {up}  workers {workers}  denied {denied}{draining}{lacking}");
    let mut second = format!("reloads {} ({} refused)", now.reloads, now.reload_failures);
    if let Some(log) = now.log {
        // A String takes all.
        let _ = write!(second, "  log lines {} ({} dropped, {} failed)", log.written, log.dropped, log.failed);
    }
    if let Some(rules) = now.kernel_rules {
        let _ = write!(second, "  kernel rules put back {}", rules.restored);
    }
    let since = if since_start { "the start" } else { "the last look" };
    vec![first, format!("{second}  rates since {since}")]
}

fn listeners(before: Option<&Status>, now: &Status, seconds: f64, longest: usize) -> Section {
    let width = width(now.listeners.iter().map(|listener| listener.name.as_str()), 16, longest);
    let title = format!(
        "{:<width$} {:>4} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "LISTENER", "", "ACTIVE", "NEW/S", "DGRAMS/S", "IN B/S", "OUT B/S"
    );
    let mut rows = Vec::new();
    for listener in &now.listeners {
        let former = before.and_then(|before| before.listeners.iter().find(|former| former.name == listener.name));
        let kinds = [("tcp", &listener.tcp, former.map(|f| &f.tcp)), ("udp", &listener.udp, former.map(|f| &f.udp))];
        for (kind, traffic, former) in
            kinds.into_iter().filter(|(kind, traffic, _)| *kind == "tcp" || traffic.opened > 0)
        {
            let rate = |read: fn(&TrafficStatus) -> u64| rate(former.map_or(0, read), read(traffic), seconds);
            let (new, bytes_in, bytes_out) =
                (rate(|traffic| traffic.opened), rate(|traffic| traffic.bytes_in), rate(|traffic| traffic.bytes_out));
            let line = format!(
                "{:<width$} {kind:>4} {:>8} {:>8} {:>10} {:>10} {:>10}",
                cut(&plain(&listener.name), width),
                traffic.active,
                short(new),
                short(rate(|traffic| traffic.datagrams_in) + rate(|traffic| traffic.datagrams_out)),
                short(bytes_in),
                short(bytes_out),
            );
            let past = traffic.opened as f64 / 1e9; // where nothing happens now
            rows.push((traffic.active as f64 + new + bytes_in + bytes_out + past, line));
        }
    }
    Section { title, rows }
}

fn backends(before: Option<&Status>, now: &Status, seconds: f64, longest: usize) -> Section {
    let width = width(now.backends.iter().map(|backend| backend.name.as_str()), 16, longest);
    let title = format!("{:<width$} {:>8} {:>8} {:>8}  TARGETS", "BACKEND", "ACTIVE", "CONN/S", "FAIL/S");
    let mut rows = Vec::new();
    for backend in &now.backends {
        let former = before.and_then(|before| before.backends.iter().find(|former| former.name == backend.name));
        let targets = backend.targets.iter().map(|target| {
            let condition = condition_of(target);
            let resting = if target.resting > 0 { format!(" ({} EJECTED)", target.resting) } else { String::new() };
            format!("{} {condition}{resting}", plain(&target.target))
        });
        let connected = rate(former.map_or(0, |former| former.connected), backend.connected, seconds);
        let failures = rate(former.map_or(0, |former| former.failures), backend.failures, seconds);
        let line = format!(
            "{:<width$} {:>8} {:>8} {:>8}  {}",
            cut(&plain(&backend.name), width),
            backend.active,
            short(connected),
            short(failures),
            targets.collect::<Vec<_>>().join(", "),
        );
        rows.push((backend.active as f64 + connected + failures, line));
    }
    Section { title, rows }
}

/// One word, if it is the same for all transports.
fn condition_of(target: &TargetCondition) -> String {
    let word = |condition| match condition {
        Condition::Up => "up",
        Condition::Down => "DOWN",
        Condition::Ejected => "EJECTED",
    };
    let first = target.by_transport.first().map_or(target.condition, |first| first.condition);
    if target.by_transport.iter().all(|of| of.condition == first) {
        return word(first).to_owned();
    }
    let told: Vec<_> =
        target.by_transport.iter().map(|of| format!("{} {}", transport(of.transport), word(of.condition))).collect();
    format!("({})", told.join(", "))
}

fn counts(
    (what, unit): (&str, &str),
    before: Option<&[(String, u64)]>,
    now: &[(String, u64)],
    seconds: f64,
    longest: usize,
) -> Section {
    let width = width(now.iter().map(|(name, _)| name.as_str()), 26, longest);
    let before: BTreeMap<&str, u64> =
        before.into_iter().flatten().map(|(name, count)| (name.as_str(), *count)).collect();
    let row = |(name, count): &(String, u64)| {
        let rate = rate(before.get(name.as_str()).copied().unwrap_or(0), *count, seconds);
        let line = format!("{:<width$} {count:>12} {:>8}", cut(&plain(name), width), short(rate));
        // What happens now first, then what has happened most.
        (rate * 1e12 + *count as f64, line)
    };
    Section { title: format!("{what:<width$} {unit:>12} {:>8}", "/S"), rows: now.iter().map(row).collect() }
}

/// Characters of a column of names.
fn width<'a>(names: impl Iterator<Item = &'a str>, least: usize, longest: usize) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0).min(longest).max(least)
}

/// The text in so many characters; of a longer one the end is left out.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(2)).collect();
    (kept + "..").chars().take(columns).collect()
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
            kernel_rules: None,
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
                    by_transport: Vec::new(),
                    resting: 4,
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
        let table = render(Some(&status(10)), &status(12), None);
        assert_eq!(row(&table, "web")[1..], ["tcp", "12", "10.0", "2.0", "1.0k", "3.0M"]);
        assert_eq!(row(&table, "home"), ["home", "3", "8.0", "2.0", "nas:443", "DOWN", "(4", "EJECTED)"]);
        assert_eq!(row(&table, "names"), ["names", "480", "40.0"]);
        assert_eq!(row(&table, "no_rule"), ["no_rule", "1200", "100.0"]);
        assert!(table.contains("rates since the last look") && table.contains("log lines 5 (6 dropped, 7 failed)"));
    }

    #[test]
    fn without_a_former_look_rates_are_since_the_start() {
        let table = render(None, &status(10), None);
        assert_eq!(row(&table, "no_rule"), ["no_rule", "1000", "100.0"]);
        assert!(table.contains("rates since the start") && table.contains("up 0d 00:00:10"));
        let other_process = Status { pid: 78, ..status(5) };
        assert_eq!(render(Some(&other_process), &status(10), None), table);
        assert!(row(&render(None, &status(0), None), "no_rule").ends_with(&["0.0"]));
    }

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert!(!render(None, &status(1), None).contains('\u{1b}'));
    }

    #[test]
    fn draining_is_seen() {
        assert!(render(None, &Status { draining: true, ..status(1) }, None).contains("DRAINING"));
    }

    /// So many listeners and rules, the last of which is the busiest.
    fn crowded(count: u64) -> Status {
        let listener = |number| ListenerStatus {
            name: format!("a-listener-with-a-name-that-is-rather-long-{number}"),
            tcp: traffic(number),
            udp: TrafficStatus { opened: 0, ..traffic(0) },
            accept_errors: 0,
        };
        let rules = (0..count).map(|number| (format!("rule {number}"), number)).collect();
        Status { listeners: (0..count).map(listener).collect(), rules, ..status(1) }
    }

    #[test]
    fn on_a_screen_all_sections_are_seen_and_the_busiest_first() {
        for (rows, columns) in [(24, 80), (40, 140)] {
            let table = render(None, &crowded(50), Some(Screen { rows, columns }));
            let lines: Vec<&str> = table.lines().collect();
            assert_eq!(lines.len(), rows - 1, "{table}");
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{table}");
            assert!(lines[0].starts_with("edgeproxy 1.2.3"));
            assert!(lines[3].ends_with("OUT B/S"), "no column is cut: {table}");
            for section in ["LISTENER", "BACKEND", "RULE", "CLOSE REASON"] {
                let at = lines.iter().position(|line| line.starts_with(section)).unwrap();
                assert!(!lines[at + 1].is_empty(), "{table}");
            }
            assert!(table.contains(" more; --once shows all\n") && table.contains("rule 49"), "{table}");
            assert!(!table.contains("rule 1 "), "{table}");
        }
    }

    #[test]
    fn a_screen_with_room_for_all_leaves_nothing_out_and_one_without_any_is_no_fault() {
        let all = render(None, &status(1), None);
        assert_eq!(render(None, &status(1), Some(Screen { rows: 99, columns: 200 })), all);
        for rows in 0..12 {
            for columns in 0..12 {
                let table = render(None, &crowded(3), Some(Screen { rows, columns }));
                assert!(table.lines().count() <= rows.saturating_sub(1), "{table}");
            }
        }
    }

    #[test]
    fn columns_stand_below_each_other_whatever_the_names() {
        let table = render(None, &crowded(12), None);
        let ends: Vec<usize> =
            table.lines().skip_while(|line| !line.starts_with("LISTENER")).take(13).map(str::len).collect();
        assert!(ends.windows(2).all(|two| two[0] == two[1]), "{table}");
    }

    #[test]
    fn a_section_without_rows_is_left_out() {
        let table = render(None, &Status { closed: Vec::new(), ..status(1) }, None);
        assert!(!table.contains("CLOSE REASON") && table.contains("RULE"));
    }
}
