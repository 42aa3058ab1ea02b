//! Which rules of the kernel bring backends' answers to the client's address back to the proxy. Pure: from where backends
//! are to rules, and from rules to the lines that install and remove them.
//!
//! Three places of a backend, three ways (each tried on a kernel; what could be left out is left out):
//!
//! - **Loopback**: whatever 127.0.0.0/8 or ::1 sends is delivered here, whomever it is for. No packet with such a source may
//!   leave the host, so the rule takes nothing from anybody. It needs neither marks nor `route_localnet`.
//! - **Another local address**: an answer looks like any packet of this host to the client, so the connection itself must be
//!   known: connection tracking marks it when the transparent socket opens it, and answers take the mark and their route anew.
//! - **Elsewhere** (a container, another host whose way to the client leads here): an arriving packet for a connected
//!   transparent socket is marked and delivered here (kernel documentation, networking/tproxy). No connection tracking.

use std::fmt::{self, Write};
use std::num::NonZeroU32;

use super::needs::{Family, Needs, Place};

/// Where our rules stand: after the kernel's `local` (0), before `main` (32766) and the rules of VPNs (from 5000 on).
pub const PRIORITY: u32 = 1000;
/// Who made a rule or route, as the kernel keeps it (`/etc/iproute2/rt_protos` has nobody of this number): what does not
/// bear it is not ours to remove.
pub const PROTOCOL: u8 = 237;

/// What chooses the packets of a policy rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Sent by this host, from a loopback address.
    FromLoopback,
    /// With the mark.
    Mark(NonZeroU32),
}

/// `ip rule`: such packets ask the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyRule {
    /// Of which packets.
    pub family: Family,
    /// Which of them.
    pub selector: Selector,
    /// The table.
    pub table: NonZeroU32,
}

/// `ip route`: whatever asks the table is delivered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalRoute {
    /// Of which packets.
    pub family: Family,
    /// The table.
    pub table: NonZeroU32,
}

/// All that must be in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// In the order in which they are installed: a route before the rules that lead to it.
    pub routes: Vec<LocalRoute>,
    /// What leads to the routes.
    pub rules: Vec<PolicyRule>,
    /// The text for `nft -f -`, which replaces the table whole; `None` where no table is needed.
    pub nftables: Option<String>,
    /// The name of that table, of family `inet`.
    pub nftables_name: String,
}

impl RuleSet {
    /// For these needs.
    #[must_use]
    pub fn new(needs: Needs, mark: NonZeroU32, table: NonZeroU32) -> Self {
        let (mut routes, mut rules) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            let by_mark = needs.has(Place::LocalAddress, family) || needs.has(Place::Elsewhere, family);
            let from_loopback = needs.has(Place::Loopback, family);
            if by_mark || from_loopback {
                routes.push(LocalRoute { family, table });
            }
            if from_loopback {
                rules.push(PolicyRule { family, selector: Selector::FromLoopback, table });
            }
            if by_mark {
                rules.push(PolicyRule { family, selector: Selector::Mark(mark), table });
            }
        }
        let nftables_name = format!("edgeproxy_{mark:#x}");
        Self { routes, rules, nftables: nftables(needs, mark, &nftables_name), nftables_name }
    }

    /// And all of another one; of a table of the same name its own text stays.
    pub(crate) fn add(&mut self, other: &Self) {
        self.routes.extend(&other.routes);
        self.rules.extend(&other.rules);
        if self.nftables_name == other.nftables_name && self.nftables.is_none() {
            self.nftables.clone_from(&other.nftables);
        }
    }

    /// The lines that install it, for a person or a script. They may be run again.
    #[must_use]
    pub fn install_lines(&self) -> String {
        let mut text = String::new();
        for route in &self.routes {
            let _ = writeln!(text, "{}", route.line("replace")); // a String takes all
        }
        for rule in &self.rules {
            let _ = writeln!(text, "{} 2>/dev/null || true", rule.line("add"));
        }
        text + &self.nftables_lines()
    }

    /// Those of nftables alone.
    #[must_use]
    pub fn nftables_lines(&self) -> String {
        self.nftables.as_ref().map_or_else(String::new, |table| format!("nft -f - <<'END'\n{table}END\n"))
    }

    /// The lines that remove it.
    #[must_use]
    pub fn remove_lines(&self) -> String {
        let mut text = String::new();
        if self.nftables.is_some() {
            let _ = writeln!(text, "nft delete table inet {}", self.nftables_name);
        }
        for rule in &self.rules {
            let _ = writeln!(text, "{}", rule.line("del"));
        }
        for route in &self.routes {
            let _ = writeln!(text, "{}", route.line("del"));
        }
        text
    }
}

impl PolicyRule {
    /// As `ip` takes it.
    #[must_use]
    pub fn line(&self, verb: &str) -> String {
        format!("ip {} rule {verb} {self}", option(self.family))
    }
}

impl LocalRoute {
    /// As `ip` takes it.
    #[must_use]
    pub fn line(&self, verb: &str) -> String {
        format!("ip {} route {verb} {self}", option(self.family))
    }
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "pref {PRIORITY} ")?;
        match (self.selector, self.family) {
            (Selector::FromLoopback, Family::V4) => write!(to, "from 127.0.0.0/8 iif lo")?,
            (Selector::FromLoopback, Family::V6) => write!(to, "from ::1 iif lo")?,
            (Selector::Mark(mark), _) => write!(to, "fwmark {mark:#x}")?,
        }
        write!(to, " lookup {} protocol {PROTOCOL}", self.table)
    }
}

impl fmt::Display for LocalRoute {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = match self.family {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        };
        write!(to, "local {all} dev lo table {} protocol {PROTOCOL}", self.table)
    }
}

/// The family's option of `ip`.
fn option(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// The table's text: an empty one first, so that there is one to delete, then the whole; nft does all of it or nothing.
fn nftables(needs: Needs, mark: NonZeroU32, name: &str) -> Option<String> {
    let (arriving, answering) = (needs.has_place(Place::Elsewhere), needs.has_place(Place::LocalAddress));
    if !arriving && !answering {
        return None;
    }
    let mut text = format!("table inet {name} {{\n}}\ndelete table inet {name}\ntable inet {name} {{\n");
    if arriving {
        let _ = write!(text, "{}", ARRIVING.replace("MARK", &format!("{mark:#x}")));
    }
    if answering {
        let _ = write!(text, "{}", ANSWERING.replace("MARK", &format!("{mark:#x}")));
    }
    text.push_str("}\n");
    Some(text)
}

/// Packets that arrive for a connected transparent socket. Those on `lo` have been routed when they were sent. Without
/// `socket wildcard 0` (Linux 5.11) a TPROXY listener on the unspecified address would be the socket of every packet to its
/// port, those that are only forwarded too.
const ARRIVING: &str = "\
\tchain arriving {
\t\ttype filter hook prerouting priority mangle; policy accept;
\t\tiifname \"lo\" return
\t\tmeta l4proto { tcp, udp } socket wildcard 0 socket transparent 1 meta mark set MARK
\t}
";

/// A connection that a transparent socket opens to this very host bears the mark, whatever mark others give to all
/// connections; answers take it over, which makes a chain of type `route` look up their way anew. Connections to elsewhere do
/// not bear it: where others restore the marks of connections (several uplinks), their packets would be led back to us.
const ANSWERING: &str = "\
\tchain opening {
\t\ttype filter hook output priority mangle; policy accept;
\t\tsocket transparent 1 fib daddr type local ct mark set MARK
\t}
\tchain answering {
\t\ttype route hook output priority mangle; policy accept;
\t\tct direction reply ct mark MARK meta mark set MARK
\t}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).unwrap()
    }

    fn set(places: &[(Place, Family)]) -> RuleSet {
        let needs = places.iter().fold(Needs::default(), |needs, (place, family)| needs.with(*place, *family));
        RuleSet::new(needs, number(0x2f7), number(763))
    }

    #[test]
    fn loopback_needs_one_rule_and_one_route_of_its_family() {
        let expected = "\
ip -4 route replace local 0.0.0.0/0 dev lo table 763 protocol 237
ip -4 rule add pref 1000 from 127.0.0.0/8 iif lo lookup 763 protocol 237 2>/dev/null || true
";
        assert_eq!(set(&[(Place::Loopback, Family::V4)]).install_lines(), expected);
        let expected = "\
ip -6 rule del pref 1000 from ::1 iif lo lookup 763 protocol 237
ip -6 route del local ::/0 dev lo table 763 protocol 237
";
        assert_eq!(set(&[(Place::Loopback, Family::V6)]).remove_lines(), expected);
    }

    #[test]
    fn a_container_needs_no_connection_tracking() {
        let lines = set(&[(Place::Elsewhere, Family::V4)]).install_lines();
        assert!(lines.contains("ip -4 rule add pref 1000 fwmark 0x2f7 lookup 763 protocol 237"));
        assert!(lines.contains("table inet edgeproxy_0x2f7 {\n\tchain arriving {\n"));
        assert!(!lines.contains("ct ") && !lines.contains("-6") && !lines.contains("from "));
    }

    #[test]
    fn another_local_address_needs_connection_tracking_and_nothing_of_arriving_packets() {
        let set = set(&[(Place::LocalAddress, Family::V6)]);
        let lines = set.install_lines();
        assert!(lines.contains("ct mark 0x2f7 meta mark set 0x2f7") && !lines.contains("prerouting"));
        assert!(set.remove_lines().starts_with("nft delete table inet edgeproxy_0x2f7\n"));
    }

    #[test]
    fn nothing_needs_nothing() {
        assert_eq!(set(&[]).install_lines(), "");
    }
}
