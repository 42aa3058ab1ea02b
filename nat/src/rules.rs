//! The rules that lead packets to the queues, as text for `iptables-restore` (IPv4).
//!
//! They are of iptables because nftables' own `queue` statement is a kernel option of its own (`NFT_QUEUE`), which not
//! every kernel has; `iptables-nft` reaches the same NFQUEUE target through nftables' compatibility layer.
//!
//! Where they stand: `raw PREROUTING` is after the kernel put fragments together and before it tracks connections, and
//! `mangle POSTROUTING` is after tracking began, so the kernel's tracker and firewall see inside addresses alone. A rule
//! that looks at the tracker's state, and does nothing, stands in FORWARD: it is what makes the kernel put fragments
//! together where no firewall asks for it. None of the queues has `--queue-bypass`: without natbox nothing passes.

use std::fmt::Write;

use crate::settings::{Hairpin, Settings};

/// Leaving by the outside interface.
pub(crate) const OUTBOUND_QUEUE: u16 = 0;
/// Arriving for an outside address: from outside if by the outside interface, else a hairpin.
pub(crate) const ARRIVING_QUEUE: u16 = 1;
/// Hairpinned, on the way in, for the source.
pub(crate) const HAIRPIN_SOURCE_QUEUE: u16 = 2;
/// Mark of hairpinned packets: "NA".
pub const HAIRPIN_MARK: u32 = 0x4e41;
/// Mark of packets from outside that the NAT lets in: a firewall's forward chain accepts them by it.
pub const ADMITTED_MARK: u32 = 0x4e42;

/// The text; `iptables-restore` replaces the tables `raw` and `mangle` by it.
#[must_use]
pub fn iptables_restore(settings: &Settings) -> String {
    let interface = &settings.interface;
    let mut raw = String::from("*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    for address in &settings.addresses {
        rule(&mut raw, format_args!("PREROUTING -d {address}/32 {}", to_queue(ARRIVING_QUEUE)));
    }
    let mut mangle = String::from("*mangle\n:FORWARD ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n");
    rule(&mut mangle, format_args!("FORWARD -m conntrack --ctstate NEW"));
    if !settings.icmp_errors {
        // Those that the router itself sends inside do not pass by natbox.
        for kind in ["destination-unreachable", "time-exceeded"] {
            rule(&mut mangle, format_args!("POSTROUTING -p icmp -m icmp --icmp-type {kind} -j DROP"));
        }
    }
    if settings.hairpin != Hairpin::None {
        // Sender and receiver of a hairpinned packet are often on one link, of which the kernel would tell the sender.
        rule(&mut mangle, format_args!("POSTROUTING -p icmp -m icmp --icmp-type redirect -j DROP"));
    }
    if settings.hairpin == Hairpin::ExternalSource {
        let to_queue = to_queue(HAIRPIN_SOURCE_QUEUE);
        rule(&mut mangle, format_args!("POSTROUTING -m mark --mark {HAIRPIN_MARK:#x} {to_queue}"));
    }
    // A reset by which the router's firewall refuses a connection shares that one's entry of the tracker, which is not
    // confirmed yet, and the kernel drops such a packet when it comes back from a queue (nf_ct_drop_unconfirmed).
    for address in &settings.addresses {
        let reset = "-p tcp -m tcp --tcp-flags RST RST -m conntrack --ctstate RELATED -j ACCEPT";
        rule(&mut mangle, format_args!("POSTROUTING -s {address}/32 -o {interface} {reset}"));
    }
    rule(&mut mangle, format_args!("POSTROUTING -o {interface} {}", to_queue(OUTBOUND_QUEUE)));
    format!("{raw}COMMIT\n{mangle}COMMIT\n")
}

fn rule(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "-A {words}");
}

fn to_queue(number: u16) -> String {
    format!("-j NFQUEUE --queue-num {number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn rules(more: &str) -> String {
        let outside = r#""outside": {"interface": "wan", "addresses": ["198.51.100.1", "198.51.100.2"]}"#;
        iptables_restore(&config::parse(&format!("{{{outside}{more}}}")).unwrap())
    }

    #[test]
    fn the_text_of_a_plain_nat() {
        let expected = "\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 198.51.100.1/32 -j NFQUEUE --queue-num 1
-A PREROUTING -d 198.51.100.2/32 -j NFQUEUE --queue-num 1
COMMIT
*mangle
:FORWARD ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate NEW
-A POSTROUTING -s 198.51.100.1/32 -o wan -p tcp -m tcp --tcp-flags RST RST -m conntrack --ctstate RELATED -j ACCEPT
-A POSTROUTING -s 198.51.100.2/32 -o wan -p tcp -m tcp --tcp-flags RST RST -m conntrack --ctstate RELATED -j ACCEPT
-A POSTROUTING -o wan -j NFQUEUE --queue-num 0
COMMIT
";
        assert_eq!(rules(""), expected);
    }

    #[test]
    fn hairpins_pass_twice_for_their_source_and_cause_no_redirects() {
        let external = rules(r#", "hairpin": "external_source""#);
        assert!(external.contains("-A POSTROUTING -m mark --mark 0x4e41 -j NFQUEUE --queue-num 2\n"));
        let internal = rules(r#", "hairpin": "internal_source""#);
        assert!(!internal.contains("--queue-num 2\n"));
        for text in [external, internal] {
            assert!(text.contains("--icmp-type redirect -j DROP\n"));
        }
        assert!(!rules("").contains("redirect"));
    }

    #[test]
    fn an_icmp_eater_eats_the_routers_own_too() {
        let rules = rules(r#", "icmp_errors": false"#);
        let eaten = rules.find("--icmp-type destination-unreachable -j DROP").unwrap();
        assert!(eaten < rules.find("--queue-num 0").unwrap());
        assert!(rules.contains("--icmp-type time-exceeded -j DROP"));
    }
}
