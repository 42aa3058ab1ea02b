//! Which addresses names may lead to, and which lead back here: lists of prefixes that must make sense.

use ipnet::IpNet;

use crate::config::file::TargetsFile;
use crate::config::findings::Findings;
use crate::config::model::TargetPolicy;
use crate::config::notation::Written;

type Prefixes = Option<Vec<Written<IpNet>>>;

pub(super) fn targets(file: &TargetsFile, findings: &mut Findings<'_>) -> TargetPolicy {
    let prefixes = |list: &Prefixes| -> Vec<_> { list.iter().flatten().map(|written| written.0).collect() };
    let (allow, own) = (prefixes(&file.allow), prefixes(&file.own));
    for (index, prefix) in own.iter().enumerate() {
        let place = format!("targets.own[{index}]");
        if let Some(found) = nonsense(*prefix) {
            findings.fault(place, found, "name the addresses that a translator gives this host, and no others");
        } else if let Some(found) = again(index, *prefix, &own) {
            findings.fault(place, found, "take one of them out");
        } else if allow.iter().any(|allowed| allowed.contains(prefix)) {
            findings.note(
                place,
                format!("{prefix} is in targets.allow, which goes first"),
                "take it out of one of them",
            );
        }
    }
    // What is built upon nonsense would only tell of it again.
    TargetPolicy { allow, own: own.into_iter().filter(|prefix| nonsense(*prefix).is_none()).collect() }
}

fn nonsense(prefix: IpNet) -> Option<String> {
    let first = prefix.addr();
    if prefix.prefix_len() == 0 {
        return Some(format!("{prefix} is every address: no target would be left at the ports of listeners"));
    }
    let is_none = first.is_loopback() || first.is_unspecified() || first.is_multicast();
    is_none.then(|| format!("{prefix} leads to no host from outside"))
}

/// Of two that are the same, the second is one too many; of one within another, the smaller.
fn again(index: usize, prefix: IpNet, own: &[IpNet]) -> Option<String> {
    let holds = |at: usize, other: IpNet| {
        at != index && nonsense(other).is_none() && other.contains(&prefix) && (other != prefix || at < index)
    };
    let (at, outer) = own.iter().enumerate().find(|(at, other)| holds(*at, **other))?;
    let stands = if *outer == prefix { "stands" } else { "is a part of what stands" };
    Some(format!("{prefix} {stands} in targets.own[{at}] already"))
}
