//! Rules that can never match, because one before them takes all that they would.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::rules::Draft;
use crate::config::findings::Findings;
use crate::config::model::Rule;

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
        && is_superset(&one.protocols, &other.protocols)
        && has_same_or_any_name(one, other)
        && is_superset(&one.alpn, &other.alpn)
        && one.ech.map_or(true, |ech| other.ech == Some(ech))
        && (one.from.is_empty() || (!other.from.is_empty() && other.from.iter().all(|part| holds(&one.from, part))))
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
