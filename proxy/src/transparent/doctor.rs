//! What is missing on this host for a configuration, and the line that mends it: facts to findings. Pure.

use std::fmt;

use caps::Capability;
use serde::Serialize;

use super::host_facts::{HostFacts, Neighbourhood, NoWay, Strange, Tried};
use super::multiple_ways;
use super::needs::{Family, Place};
use super::rules::RuleSet;
use crate::config::model::{Backend, Config, SendProxyUdp, Source};

/// How well the host serves what a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it must be.
    Ok,
    /// Not there, but it can be.
    Missing,
    /// This host cannot.
    Unable,
    /// It could not be asked.
    NotTried,
    /// Nothing is wrong with the host, but some may be served otherwise than one thinks.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// What was found, in a line.
    pub found: String,
    /// What to type; empty where there is nothing to mend, or no line that would.
    pub mend: String,
}

/// The longest datagram in which usual QUIC clients begin: quic-go fills 1280 bytes, Chromium 1250. RFC 9000 section 14.1 asks for
/// 1200 at least.
const QUIC_INITIAL: u32 = 1280;

/// All findings; only what the configuration has to do with.
#[must_use]
pub fn judge(config: &Config, facts: &HostFacts) -> Vec<Finding> {
    let mut findings = vec![capabilities(config, facts)];
    findings.extend(facts.transparent.iter().filter_map(|(family, tried)| transparent(*family, tried)));
    findings.extend(ipv6(facts));
    findings.extend(facts.strange_listeners.iter().map(strange_listener));
    if !facts.needs.is_empty() {
        findings.extend(rules(config, facts));
        findings.extend(nftables(config, facts));
        findings.extend(foreign_routes(config, facts));
    }
    findings.extend(reverse_path(facts));
    findings.extend(ways_to_clients(facts));
    findings.extend(packet_sizes(config, facts));
    findings.extend(facts.neighbourhoods.iter().map(neighbours));
    findings.extend(facts.multipath.iter().flat_map(|ways| multiple_ways::judge(config, ways)));
    findings
}

/// 0: all is there; 1: something is missing; 3: this host is not able.
#[must_use]
pub fn exit_status(findings: &[Finding]) -> u8 {
    let has = |status| findings.iter().any(|finding| finding.status == status);
    if has(Status::Unable) {
        3
    } else {
        u8::from(has(Status::Missing))
    }
}

pub(super) fn finding(
    name: impl Into<String>,
    status: Status,
    found: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding { name: name.into(), status, found: found.into(), mend: mend.into() }
}

fn capabilities(config: &Config, facts: &HostFacts) -> Finding {
    let mut needed = Vec::new();
    if config.backends.iter().any(|backend| backend.source != Source::Own)
        || facts.transparent.iter().any(|(_, tried)| *tried != Tried::NotNeeded)
    {
        needed.push(Capability::CAP_NET_RAW);
    }
    let mut ports = config.listeners.iter().flat_map(|listener| listener.tcp.iter().chain(&listener.udp));
    if ports.any(|endpoint| endpoint.port() < facts.first_free_port) {
        needed.push(Capability::CAP_NET_BIND_SERVICE);
    }
    if config.transparent.manage_rules && !facts.needs.is_empty() {
        needed.push(Capability::CAP_NET_ADMIN);
    }
    let names = |of: &[Capability]| of.iter().map(ToString::to_string).collect::<Vec<_>>();
    let missing: Vec<Capability> = needed.iter().filter(|one| !facts.capabilities.contains(one)).copied().collect();
    if missing.is_empty() {
        let mut found = if needed.is_empty() { "none is needed".to_owned() } else { names(&needed).join(", ") };
        if needed.contains(&Capability::CAP_NET_ADMIN) {
            found += " (of whoever asks; a service has those of its unit: see edgeproxy-home.conf)";
        }
        return finding("capabilities", Status::Ok, found, "");
    }
    let mend = format!("setcap {}=ep \"$(command -v edgeproxy)\"", names(&needed).join(",").to_lowercase());
    let found = format!("this user has no {}", names(&missing).join(", "));
    finding("capabilities", Status::Missing, found, mend)
}

fn transparent(family: Family, tried: &Tried) -> Option<Finding> {
    let name = format!("transparent sockets, {family}");
    Some(match tried {
        Tried::Works => finding(name, Status::Ok, "tried", ""),
        Tried::NotPermitted => finding(name, Status::NotTried, "it takes CAP_NET_RAW", ""),
        Tried::Impossible(said) => finding(name, Status::Unable, format!("the kernel refuses: {said}"), ""),
        Tried::NotNeeded => return None,
    })
}

fn ipv6(facts: &HostFacts) -> Option<Finding> {
    match &facts.ipv6 {
        Tried::NotNeeded => None,
        Tried::Works => Some(finding("IPv6", Status::Ok, "tried", "")),
        Tried::NotPermitted | Tried::Impossible(_) => {
            let mend = "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0";
            Some(finding("IPv6", Status::Missing, "the configuration has IPv6 addresses, and ::1 is not there", mend))
        }
    }
}

/// A line only where it is likely right: elsewhere it would hide a typing error, or take what another host has.
fn strange_listener(Strange { ip, neighbour }: &Strange) -> Finding {
    let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
    let floating = format!(
        "an address that moves between hosts wants net.{family}.ip_nonlocal_bind=1, or a listener of arrival = \"tproxy\""
    );
    let Some((device, length)) = neighbour else {
        let found = format!(
            "no interface has {ip}, and none that is up has a network around it: see whether it is right, and whether its \
             interface is still to come; {floating}"
        );
        return finding("listeners", Status::Missing, found, "");
    };
    let found = format!(
        "no interface has {ip}, which is in a network of {device}: if it is right and no other host's, give it to {device}; \
         {floating}"
    );
    finding("listeners", Status::Missing, found, format!("ip address add {ip}/{length} dev {device}"))
}

fn rules(config: &Config, facts: &HostFacts) -> Vec<Finding> {
    let name = "rules and routes";
    if facts.missing.is_empty() {
        return vec![finding(name, Status::Ok, "all are there", "")];
    }
    if config.transparent.manage_rules && !facts.is_kept {
        return vec![finding(name, Status::Ok, "edgeproxy installs them while it runs; it does not run", "")];
    }
    let who = if facts.is_kept { "a running edgeproxy could not keep it" } else { "manage_rules is off" };
    let missing = |line: &String| finding(name, Status::Missing, format!("one is not there ({who})"), line);
    facts.missing.iter().map(missing).collect()
}

fn nftables(config: &Config, facts: &HostFacts) -> Option<Finding> {
    let set = RuleSet::new(facts.needs, config.transparent.mark, config.transparent.table);
    let name = format!("table inet {}", set.nftables_name);
    let is_managed = config.transparent.manage_rules && !facts.is_kept;
    Some(match (&facts.nftables, facts.nftables_there) {
        (Tried::NotNeeded, _) => return None,
        (Tried::NotPermitted, _) => finding(name, Status::NotTried, "it takes CAP_NET_ADMIN to ask", ""),
        (Tried::Impossible(said), _) if said.contains("os error 2") => {
            finding(name, Status::Missing, "there is no nft", "apt-get install nftables")
        }
        (Tried::Impossible(said), _) => {
            let found = format!("nft or the kernel does not understand it (Linux 5.11, nft_socket): {said}");
            finding(name, Status::Unable, found, "")
        }
        (Tried::Works, Some(true)) => finding(name, Status::Ok, "it is there", ""),
        (Tried::Works, _) if is_managed => {
            finding(name, Status::Ok, "edgeproxy installs it while it runs; it does not run", "")
        }
        (Tried::Works, _) => finding(name, Status::Missing, "it is not there", set.nftables_lines()),
    })
}

fn foreign_routes(config: &Config, facts: &HostFacts) -> Option<Finding> {
    let table = config.transparent.table;
    let count = facts.foreign_routes.len();
    let found = format!(
        "{count} in table {table} not edgeproxy's, which may lead packets away: remove them, or choose another transparent.table"
    );
    (count > 0).then(|| finding("rules and routes", Status::Missing, found, facts.foreign_routes.join("\n")))
}

/// With `src_valid_mark` the kernel looks up the way back of an arriving packet by our mark, finds our local route, and takes
/// the packet for one that pretends to come from this host, unless the link may have those (`fib_validate_source`).
fn reverse_path(facts: &HostFacts) -> Option<Finding> {
    if !facts.needs.has(Place::Elsewhere, Family::V4) {
        return None;
    }
    let name = "reverse path filter";
    let refuses = facts.reverse_paths.iter().filter(|one| one.by_mark && (!one.accepts_local || one.filter == 1));
    let devices: Vec<&str> = refuses.map(|one| one.device.as_str()).collect();
    if devices.is_empty() {
        return Some(finding(name, Status::Ok, "answers of backends pass", ""));
    }
    let found = format!("src_valid_mark makes it drop answers of backends that arrive by {}", devices.join(", "));
    let mend: Vec<String> = devices
        .iter()
        .map(|device| {
            format!("net.ipv4.conf.{0}.accept_local=1 net.ipv4.conf.{0}.rp_filter=2", device.replace('.', "/"))
        })
        .collect();
    Some(finding(name, Status::Missing, found, format!("sysctl -w {}", mend.join(" "))))
}

/// An answer of a local backend is routed like any packet before it takes the mark; without any route it is not even made.
fn ways_to_clients(facts: &HostFacts) -> Vec<Finding> {
    let needing = Family::ALL.into_iter().filter(|family| facts.needs.has(Place::LocalAddress, *family));
    let lacking = needing.filter(|family| !facts.default_routes.contains(family));
    lacking
        .map(|family| {
            let found = format!(
                "no default route of {family}: backends at addresses of this host cannot answer clients far away; let them \
                 listen on loopback, or have a route of last resort"
            );
            // To `lo` nothing is delivered by it, for only our own rule makes an answer local.
            let option = if family == Family::V4 { "-4" } else { "-6" };
            finding("ways to clients", Status::Missing, found, format!("ip {option} route add default dev lo metric 4294967295"))
        })
        .collect()
}

fn neighbours(Neighbourhood { backend, to, network }: &Neighbourhood) -> Finding {
    let found = format!(
        "{to} answers clients in {network} straight, so they get no connection through this host, unless its answers come by \
         here all the same (a rule there, or this host is the hub of their mesh: nothing to do then); with source = \
         \"client_or_own\" it sees this host instead of them, and all others as now"
    );
    finding(format!("neighbours of {backend}"), Status::Note, found, "")
}

fn packet_sizes(config: &Config, facts: &HostFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for way in &facts.ways {
        let backend = config.backends.iter().find(|backend| backend.name == way.backend);
        let Some((backend, format)) = backend.and_then(|backend| Some((backend, backend.send_proxy_udp?))) else {
            continue;
        };
        // The IP header, the UDP header, the PROXY header, and a client's first datagram.
        let needed = if way.to.is_ipv4() { 20 } else { 40 } + 8 + header_length(config, backend, format) + QUIC_INITIAL;
        let name = format!("packets to {}", way.backend);
        findings.push(if way.mtu >= needed {
            finding(
                name,
                Status::Ok,
                format!("{} takes {} bytes, QUIC with a header needs {needed}", way.device, way.mtu),
                "",
            )
        } else {
            let found = format!(
                "{} takes {} bytes, QUIC with a header needs {needed}: its first packets are fragmented or lost",
                way.device, way.mtu
            );
            finding(name, Status::Missing, found, format!("ip link set dev {} mtu {needed}", way.device))
        });
    }
    let not_tried = |no_way: &NoWay| {
        let found = format!("{}, so it is not known whether QUIC with a header fits", no_way.why);
        finding(format!("packets to {}", no_way.backend), Status::NotTried, found, "")
    };
    findings.extend(facts.no_ways.iter().map(not_tried));
    findings
}

/// Version 2 has 16 bytes, the addresses, 12 of IPv4, 36 of IPv6, and where that is asked for an identifier: of this proxy's
/// and its like 3 and 16 bytes; a signature of 3 and 57. Simple Proxy Protocol has 38.
fn header_length(config: &Config, backend: &Backend, format: SendProxyUdp) -> u32 {
    let signature = if backend.sign_proxy.is_some() { 3 + 57 } else { 0 };
    let more = signature + if backend.send_proxy_udp_id { 3 + 16 } else { 0 };
    // A peer that is believed may speak for clients of either family.
    let takes_ipv6 =
        config.listeners.iter().filter(|listener| !listener.udp.is_empty()).any(|listener| {
            !listener.proxy_header.is_empty() || listener.udp.iter().any(std::net::SocketAddr::is_ipv6)
        });
    match format {
        SendProxyUdp::Spp => 38,
        SendProxyUdp::Every | SendProxyUdp::First if takes_ipv6 => 16 + 36 + more,
        SendProxyUdp::Every | SendProxyUdp::First => 16 + 12 + more,
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Missing => "missing",
            Status::Unable => "unable",
            Status::NotTried => "not tried",
            Status::Note => "note",
        };
        write!(to, "{status:9}  {}: {}", self.name, self.found)?;
        for line in self.mend.lines() {
            write!(to, "\n           {line}")?;
        }
        Ok(())
    }
}
