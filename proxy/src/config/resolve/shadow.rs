//! Rules that can never match, because one before them takes all that they would.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::rules::Draft;
use crate::config::findings::Findings;
use crate::config::model::Rule;
use crate::route::{asked, asks_content};

pub(super) fn examine(drafts: &[Draft], listeners: usize, findings: &mut Findings<'_>) {
    for (index, draft) in drafts.iter().enumerate() {
        let mut earlier = drafts.iter().take(index).filter(|earlier| earlier.is_sound);
        let taker = earlier.find(|earlier| takes_all_of(earlier, draft, listeners));
        if let Some(taker) = taker.filter(|_| draft.is_sound) {
            findings.fault(
                &draft.path,
                format!("it never matches: {} before it takes all that it would", taker.shown()),
                "put the narrower rule first, or take it out",
            );
        }
    }
}

/// Each condition of the earlier rule is met whenever those of the later one are.
fn takes_all_of(earlier: &Draft, later: &Draft, listeners: usize) -> bool {
    let (one, other) = (&earlier.rule, &later.rule);
    (0..listeners).all(|listener| !later.holds_at(listener) || earlier.holds_at(listener))
        && one.transport.map_or(true, |transport| other.transport == Some(transport))
        && (one.ports.is_empty()
            || (!other.ports.is_empty() && other.ports.iter().all(|part| covers(&one.ports, part))))
        && takes_all_protocols(one, other)
        && has_same_or_any_name(one, other)
        && is_superset(&one.alpn, &other.alpn)
        && one.ech.map_or(true, |ech| other.ech == Some(ech))
        && (one.from.is_empty() || (!other.from.is_empty() && other.from.iter().all(|part| holds(&one.from, part))))
}

/// A rule that lists no protocols and asks what a hello tells is of those alone that can tell it.
fn takes_all_protocols(one: &Rule, other: &Rule) -> bool {
    !asks_content(one) || (asks_content(other) && is_superset(asked(one), asked(other)))
}

/// As lists of what is allowed, of which the empty one allows all.
fn is_superset<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.is_empty() || (!other.is_empty() && other.iter().all(|item| one.contains(item)))
}

fn has_same_or_any_name(one: &Rule, other: &Rule) -> bool {
    match (&one.server_name, &other.server_name) {
        (None, _) => true,
        (Some(one), Some(other)) => one.as_str() == other.as_str(),
        (Some(_), None) => false,
    }
}

fn covers(ranges: &[RangeInclusive<u16>], part: &RangeInclusive<u16>) -> bool {
    ranges.iter().any(|range| range.contains(part.start()) && range.contains(part.end()))
}

fn holds(prefixes: &[IpNet], part: &IpNet) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(part))
}

#[cfg(test)]
mod tests {
    /// Whether the second of two rules is said never to match.
    fn is_taken(first: &str, second: &str) -> bool {
        let text = format!(
            "[listener.in]\ntcp = [\"127.0.0.1:1\"]\nudp = [\"127.0.0.1:1\"]\n[[rule]]\n{first}\nto = \"b\"\n\
             [[rule]]\n{second}\nto = \"b\"\n[backend.b]\ntargets = [\"192.0.2.1:1\"]\n"
        );
        match crate::config::parse(&text, "c.toml") {
            Ok(_) => false,
            Err(faults) => {
                let [fault] = faults.as_slice() else { panic!("{faults:?}") };
                assert!(fault.found.contains("it never matches: \"rule 1\""), "{fault:?}");
                true
            }
        }
    }

    const NAME: &str = "server_name = '^a$'";

    #[test]
    fn what_a_hello_tells_is_of_the_protocols_that_have_one_though_the_rule_lists_none() {
        for (first, second, never) in [
            ("ech = false", "ech = false\nprotocols = [\"tls\", \"http1\"]", false),
            ("ech = false", "ech = false\nprotocols = [\"tls\"]", true),
            ("alpn = [\"h2\"]", "alpn = [\"h2\"]\nserver_name = '^a$'", true),
            (NAME, "server_name = '^a$'\nprotocols = [\"socks5\"]", false),
            (NAME, "server_name = '^a$'\nprotocols = [\"tls\", \"dns\"]", false),
            (NAME, "server_name = '^a$'\nprotocols = [\"tls\", \"http1\"]", true),
            (NAME, "server_name = '^a$'\nalpn = [\"h2\"]", true),
            ("protocols = [\"tls\", \"quic\", \"dtls\"]", "alpn = [\"h2\"]", true),
            ("protocols = [\"tls\", \"quic\"]", "alpn = [\"h2\"]", false),
            ("protocols = [\"tls\", \"quic\", \"dtls\"]", NAME, false),
            ("protocols = [\"tls\", \"quic\", \"dtls\"]", "ports = [1]", false),
            (NAME, "ports = [1]", false),
            ("ports = [1]", "ports = [1]\nserver_name = '^a$'", true),
        ] {
            assert_eq!(is_taken(first, second), never, "{first} | {second}");
        }
    }
}
