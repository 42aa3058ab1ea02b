//! The table as one JSON line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::table::{MappingEntry, Table};

#[derive(Serialize)]
struct Report {
    mappings: Vec<Mapping>,
    counters: Counters,
}

#[derive(Serialize)]
struct Mapping {
    protocol: &'static str,
    inside: String,
    outside: String,
    forward: bool,
    sessions: Vec<Session>,
}

/// `expires_in` in seconds.
#[derive(Serialize)]
struct Session {
    remote: String,
    has_sent: bool,
    state: &'static str,
    expires_in: f64,
}

#[derive(Serialize)]
struct Counters {
    outbound: u64,
    inbound: u64,
    passed: u64,
    reset: u64,
    dropped: BTreeMap<&'static str, u64>,
}

/// The line, with its line feed.
pub(crate) fn json_line(table: &mut Table, now: Duration) -> String {
    table.expire(now);
    let counters = table.counters();
    let report = Report {
        mappings: table.entries(now).into_iter().map(mapping).collect(),
        counters: Counters {
            outbound: counters.outbound,
            inbound: counters.inbound,
            passed: counters.passed,
            reset: counters.reset,
            dropped: counters.dropped.iter().map(|(reason, count)| (reason.name(), *count)).collect(),
        },
    };
    // Strings and finite numbers are always JSON.
    serde_json::to_string(&report).unwrap_or_default() + "\n"
}

fn mapping(entry: MappingEntry) -> Mapping {
    let session = |session: crate::table::SessionEntry| Session {
        remote: session.remote.to_string(),
        has_sent: session.has_sent,
        state: session.state,
        expires_in: session.expires_in.as_secs_f64(),
    };
    Mapping {
        protocol: entry.protocol.name(),
        inside: entry.inside.to_string(),
        outside: entry.outside.to_string(),
        forward: entry.is_forward,
        sessions: entry.sessions.into_iter().map(session).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::packet::parse;
    use crate::samples::udp;
    use crate::table::Passage;

    #[test]
    fn mappings_sessions_and_counters_are_in_the_line() {
        let settings = config::parse(
            r#"{"outside": {"interface": "wan", "addresses": ["198.51.100.1"]}, "timers": {"udp": 2.5},
                "forwards": [{"protocol": "tcp", "port": 443, "to": "192.168.1.2"}]}"#,
        )
        .unwrap();
        let mut table = Table::new(settings, 1);
        let (packet, _) = parse(&udp("192.168.1.2:4000", "203.0.113.9:53", b"?")).unwrap();
        table.decide(Duration::ZERO, Passage::Outbound, &packet);
        let (packet, _) = parse(&udp("203.0.113.8:53", "198.51.100.1:4000", b"?")).unwrap();
        table.decide(Duration::ZERO, Passage::Inbound, &packet);
        let expected = concat!(
            r#"{"mappings":[{"protocol":"tcp","inside":"192.168.1.2:443","outside":"198.51.100.1:443","forward":true,"#,
            r#""sessions":[]},{"protocol":"udp","inside":"192.168.1.2:4000","outside":"198.51.100.1:4000","#,
            r#""forward":false,"sessions":[{"remote":"203.0.113.9:53","has_sent":true,"state":"active","#,
            r#""expires_in":2.5}]}],"counters":{"outbound":1,"inbound":0,"passed":0,"reset":0,"#,
            r#""dropped":{"filtered":1}}}"#,
            "\n"
        );
        assert_eq!(json_line(&mut table, Duration::ZERO), expected);
    }
}
