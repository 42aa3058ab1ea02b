//! The refused sources as a script for `nft -f` that fills two sets of a table. Pure.
//!
//! The rule that uses them is the table's owner's: `ip saddr @edgeproxy_denied4 drop`. A script replaces what the sets held, in
//! one transaction of the kernel (nft(8), "-f").

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::admin::Denied;

/// The longest name that nftables takes, without the closing zero (`NFT_NAME_MAXLEN`, linux/netfilter/nf_tables.h).
const LONGEST: usize = 255;

/// A table of family `inet`, by a name that needs no quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(String);

impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        let is_led = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if is_word && is_led && text.len() <= LONGEST {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("{text:?} is no name of a table; such a name is a letter and then letters, digits, _, - and ."))
    }
}

/// The script. A prefix within another one is left out: intervals of a set may not overlap. It is told again once the wider
/// one is over.
#[must_use]
pub fn script(table: &Table, entries: &[Denied]) -> String {
    let Table(table) = table;
    let outermost = outermost(entries);
    let mut text = format!("add table inet {table}\n");
    for (set, kind, is_ours) in [
        ("edgeproxy_denied4", "ipv4_addr", (|prefix| prefix.addr().is_ipv4()) as fn(&IpNet) -> bool),
        ("edgeproxy_denied6", "ipv6_addr", |prefix| prefix.addr().is_ipv6()),
    ] {
        // Writing to a String does not fail.
        let _ = writeln!(text, "add set inet {table} {set} {{ type {kind}; flags interval, timeout; }}");
        let _ = writeln!(text, "flush set inet {table} {set}");
        // One command for all: nft takes time for each by the number of those before it.
        let elements: Vec<_> = outermost.iter().filter(|(prefix, _)| is_ours(prefix)).map(element).collect();
        if !elements.is_empty() {
            let _ = writeln!(text, "add element inet {table} {set} {{\n{}\n}}", elements.join(",\n"));
        }
    }
    text
}

fn element((prefix, seconds): &(IpNet, Option<u64>)) -> String {
    // No number of more than eight digits is a time for nft.
    let lasting = |all: u64| format!("{}d{}h{}m{}s", all / 86_400, all / 3_600 % 24, all / 60 % 60, all % 60);
    seconds.map_or_else(|| prefix.to_string(), |seconds| format!("{prefix} timeout {}", lasting(seconds)))
}

/// Those that lie within no other, each once, by their addresses.
fn outermost(entries: &[Denied]) -> Vec<(IpNet, Option<u64>)> {
    let all: HashMap<IpNet, Option<u64>> =
        entries.iter().map(|entry| (entry.prefix.0.trunc(), entry.seconds)).collect();
    let is_within_another = |prefix: &IpNet| {
        (0..prefix.prefix_len())
            .filter_map(|length| IpNet::new(prefix.addr(), length).ok())
            .any(|wider| all.contains_key(&wider.trunc()))
    };
    let mut found: Vec<_> =
        all.iter().filter(|(prefix, _)| !is_within_another(prefix)).map(|(prefix, left)| (*prefix, *left)).collect();
    found.sort_by_key(|(prefix, _)| -> IpAddr { prefix.addr() });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(prefix: &str, seconds: impl Into<Option<u64>>) -> Denied {
        Denied { prefix: prefix.parse().unwrap(), seconds: seconds.into() }
    }

    #[test]
    fn each_family_has_its_set_and_each_source_its_time() {
        let entries = [denied("203.0.113.7", 60), denied("2001:db8:7::/48", 315_360_001), denied("192.0.2.0/24", None)];
        let expected = "\
add table inet filter
add set inet filter edgeproxy_denied4 { type ipv4_addr; flags interval, timeout; }
flush set inet filter edgeproxy_denied4
add element inet filter edgeproxy_denied4 {
192.0.2.0/24,
203.0.113.7/32 timeout 0d0h1m0s
}
add set inet filter edgeproxy_denied6 { type ipv6_addr; flags interval, timeout; }
flush set inet filter edgeproxy_denied6
add element inet filter edgeproxy_denied6 {
2001:db8:7::/48 timeout 3650d0h0m1s
}
";
        assert_eq!(script(&"filter".parse().unwrap(), &entries), expected);
    }

    #[test]
    fn what_lies_within_another_is_left_out_and_nothing_stands_twice() {
        let entries = [
            denied("198.51.100.0/25", 9),
            denied("198.51.100.5/25", 9),
            denied("198.51.100.7", 60),
            denied("198.51.100.128", 5),
            denied("2001:db8::1", 5),
            denied("2001:db8::/32", 7),
        ];
        let left: Vec<_> = outermost(&entries).into_iter().map(|(prefix, _)| prefix.to_string()).collect();
        assert_eq!(left, ["198.51.100.0/25", "198.51.100.128/32", "2001:db8::/32"]);
        assert_eq!(outermost(&[denied("0.0.0.0/0", 5), denied("203.0.113.7", 5)]).len(), 1);
    }

    #[test]
    fn a_name_that_would_end_the_command_is_none() {
        for name in ["filter", "my_table", "a-b.c", "T4"] {
            assert_eq!(name.parse(), Ok(Table(name.to_owned())));
        }
        for name in ["", "4", "-f", "_x", "a b", "a;b", "a\nflush ruleset", "a{", "ä", &"a".repeat(256)] {
            assert!(name.parse::<Table>().is_err(), "{name:?}");
        }
    }
}
