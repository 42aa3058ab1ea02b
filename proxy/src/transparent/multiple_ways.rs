//! What the kernel's path manager is told of the ways that connections by Multipath TCP may take (`ip mptcp`, ip-mptcp(8)), and
//! what it should be told for a configuration.

use std::io;
use std::net::IpAddr;
use std::process::Command;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::RouteNetlinkMessage;

use super::doctor::{finding, Finding, Status};
use super::host_facts::{is_link_local, name_if_up};
use super::netlink::Requests;
use crate::config::model::Config;
use crate::multipath::{lack, wanted_by, Lack};

/// What this host says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    /// Why there are no sockets of Multipath TCP.
    pub lack: Option<Lack>,
    /// What `ip mptcp` says; or why it is not known.
    pub told: Result<Told, String>,
    /// Devices that are up, with their addresses, but those of one link alone.
    pub addresses: Vec<(String, IpAddr)>,
}

/// What the path manager is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Addresses of this host that peers are told of.
    pub signalled: Vec<IpAddr>,
    /// Those from which this host begins further ways by itself.
    pub used: Vec<IpAddr>,
    /// How many addresses of a peer are taken.
    pub add_addr_accepted: u32,
    /// How many ways beside the first one a connection may have.
    pub subflows: u32,
}

impl Ways {
    /// Asks this host; nothing, where the configuration has nothing to do with it.
    pub(super) fn ask(config: &Config, requests: &mut Requests) -> io::Result<Option<Self>> {
        if wanted_by(config).is_none() {
            return Ok(None);
        }
        let links = requests.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let known = requests.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let told = || Ok::<_, io::Error>(Told::read(&said_by_ip("endpoint")?, &said_by_ip("limits")?));
        Ok(Some(Self {
            lack: lack(),
            told: told().map_err(|error| error.to_string()),
            addresses: addresses(&links, &known),
        }))
    }
}

fn addresses(links: &[RouteNetlinkMessage], known: &[RouteNetlinkMessage]) -> Vec<(String, IpAddr)> {
    let of = known.iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
        let (mut local, mut other) = (None, None);
        for attribute in &message.attributes {
            if let AddressAttribute::Local(ip) = attribute {
                local = Some(*ip);
            } else if let AddressAttribute::Address(ip) = attribute {
                other = Some(*ip);
            }
        }
        // Of a link from one address to another the second is the peer's (rtnetlink(7)).
        let ip = local.or(other).filter(|ip| !is_link_local(*ip))?;
        Some((name_if_up(links, message.header.index)?, ip))
    });
    of.collect()
}

fn said_by_ip(what: &str) -> io::Result<String> {
    // The PATH of services and of ordinary users often lacks the folders of administration.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("ip").args(["mptcp", what]).env("PATH", path).env("LC_ALL", "C").output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("ip (iproute2): {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("`ip mptcp {what}`: {}", said.lines().next().unwrap_or("it failed").trim())))
}

impl Told {
    /// From the text of `ip mptcp endpoint` and of `ip mptcp limits`; what is not understood there is passed over.
    fn read(endpoints: &str, limits: &str) -> Self {
        let mut told = Self::default();
        for line in endpoints.lines() {
            let mut words = line.split_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse().ok()) else { continue };
            for word in words {
                match word {
                    "signal" => told.signalled.push(ip),
                    "subflow" | "fullmesh" => told.used.push(ip),
                    _ => {}
                }
            }
        }
        let mut words = limits.split_whitespace();
        while let Some(word) = words.next() {
            let place = match word {
                "add_addr_accepted" => &mut told.add_addr_accepted,
                "subflows" => &mut told.subflows,
                _ => continue,
            };
            *place = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        }
        told
    }
}

/// What a configuration lacks of it.
pub(super) fn judge(config: &Config, ways: &Ways) -> Vec<Finding> {
    let name = "MPTCP";
    if let Some(lack) = ways.lack {
        let status = if lack.mend().is_empty() { Status::Unable } else { Status::Missing };
        let found = format!("the kernel makes no such sockets, and all goes by plain TCP: {}", lack.found());
        return vec![finding(name, status, found, lack.mend())];
    }
    let told = match &ways.told {
        Ok(told) => told,
        Err(why) => {
            let found = format!("sockets: tried; which ways connections may take is not known: {why}");
            return vec![finding(name, Status::NotTried, found, "")];
        }
    };
    let mut findings = Vec::new();
    findings.extend(to_peers(config, ways, told));
    findings.extend(from_peers(config, told));
    if findings.is_empty() {
        let (count, taken) = (told.signalled.len(), told.add_addr_accepted);
        let found = format!(
            "sockets: tried; {count} addresses are told to peers, {taken} of a peer are taken, {} further ways",
            told.subflows
        );
        findings.push(finding(name, Status::Ok, found, ""));
    }
    findings
}

/// Whoever listens has peers told of its further addresses.
fn to_peers(config: &Config, ways: &Ways, told: &Told) -> Option<Finding> {
    let listens_at = |ip: IpAddr| {
        let listeners = config.listeners.iter().filter(|listener| listener.mptcp);
        let mut all = listeners.flat_map(|listener| &listener.tcp).map(std::net::SocketAddr::ip);
        all.any(|own| own == ip || own.is_unspecified() && own.is_ipv4() == ip.is_ipv4())
    };
    let addresses: Vec<_> = ways.addresses.iter().filter(|(_, ip)| listens_at(*ip)).collect();
    let mut devices: Vec<&str> = addresses.iter().map(|(device, _)| device.as_str()).collect();
    devices.dedup();
    let is_told = addresses.iter().any(|(_, ip)| told.signalled.contains(ip));
    if !config.listeners.iter().any(|listener| listener.mptcp) || is_told {
        return None;
    }
    if devices.len() < 2 {
        let found = "clients find the listeners by one device only, so their connections have one way";
        return Some(finding("MPTCP, listeners", Status::Note, found, ""));
    }
    let found = "peers are told of no further address of this host, so a connection has one way only; of these lines take those \
                 of devices by which peers can come";
    let line = |(device, ip): &&(String, IpAddr)| format!("ip mptcp endpoint add {ip} dev {device} signal");
    let lines: Vec<String> = addresses.iter().map(line).collect();
    Some(finding("MPTCP, listeners", Status::Missing, found, lines.join("\n")))
}

/// Whoever dials takes the further addresses of its peers, or has some of its own.
fn from_peers(config: &Config, told: &Told) -> Option<Finding> {
    let dials = config.backends.iter().any(|backend| backend.mptcp);
    let found = if told.subflows == 0 {
        "connections may have no second way (limits: subflows 0)"
    } else if dials && told.add_addr_accepted == 0 && told.used.is_empty() {
        "further addresses of backends are not taken (limits: add_addr_accepted 0), and none of this host's is used beside the \
         first, so a connection has one way only"
    } else {
        return None;
    };
    let (subflows, accepted) = (told.subflows.max(2), told.add_addr_accepted.max(if dials { 2 } else { 0 }));
    let mend = format!("ip mptcp limits set subflows {subflows} add_addr_accepted {accepted}");
    Some(finding("MPTCP, ways", Status::Missing, found, mend))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENS: &str = "[listener.a]\nmptcp = true\ntcp = [\"0.0.0.0:443\"]\n[[rule]]\nto = \"x\"\n[backend.x]\n\
                           targets = [\"192.0.2.9:1\"]\n";

    fn config(text: &str) -> Config {
        crate::config::parse(text, "f").unwrap()
    }

    fn host(told: Told) -> Ways {
        let addresses = [("fibre", "203.0.113.1"), ("lte", "198.51.100.1"), ("lte", "2001:db8::1")];
        let addresses = addresses.map(|(device, ip)| (device.to_owned(), ip.parse().unwrap())).to_vec();
        Ways { lack: None, told: Ok(told), addresses }
    }

    fn usual() -> Told {
        Told { subflows: 2, ..Told::default() }
    }

    #[test]
    fn what_ip_says_is_read_and_what_it_will_say_one_day_is_passed_over() {
        let endpoints =
            "198.51.100.1 id 1 signal dev lte \n2001:db8::1 id 2 subflow backup dev lte\nwords\n\n192.0.2.1 id 3 \
                         signal subflow laminar\n";
        let told = Told::read(endpoints, "add_addr_accepted 1 subflows 2 \n");
        let ips = |texts: [&str; 2]| texts.map(|text| text.parse::<IpAddr>().unwrap()).to_vec();
        assert_eq!(told.signalled, ips(["198.51.100.1", "192.0.2.1"]));
        assert_eq!(told.used, ips(["2001:db8::1", "192.0.2.1"]));
        assert_eq!((told.add_addr_accepted, told.subflows), (1, 2));
        assert_eq!(Told::read("", "subflows"), Told::default());
    }

    #[test]
    fn a_listener_has_its_addresses_told_with_the_line_for_each_device() {
        let findings = judge(&config(LISTENS), &host(usual()));
        let [only] = findings.as_slice() else { panic!("{findings:?}") };
        let lines =
            "ip mptcp endpoint add 203.0.113.1 dev fibre signal\nip mptcp endpoint add 198.51.100.1 dev lte signal";
        assert_eq!((only.status, only.mend.as_str()), (Status::Missing, lines));
        let told = Told { signalled: vec!["198.51.100.1".parse().unwrap()], ..usual() };
        assert_eq!(judge(&config(LISTENS), &host(told))[0].status, Status::Ok);
        let narrow = config(&LISTENS.replace("0.0.0.0", "203.0.113.1"));
        assert_eq!(judge(&narrow, &host(usual()))[0].status, Status::Note);
    }

    #[test]
    fn who_dials_takes_addresses_of_peers_or_has_some_of_its_own() {
        let dials = config(&format!("{}mptcp = true\n", LISTENS.replace("mptcp = true\n", "")));
        let mend = |told| judge(&dials, &host(told)).remove(0).mend;
        assert_eq!(mend(usual()), "ip mptcp limits set subflows 2 add_addr_accepted 2");
        assert_eq!(
            mend(Told { add_addr_accepted: 1, subflows: 0, ..usual() }),
            "ip mptcp limits set subflows 2 add_addr_accepted 2"
        );
        assert_eq!(mend(Told { used: vec!["198.51.100.1".parse().unwrap()], ..usual() }), "");
        assert_eq!(mend(Told { add_addr_accepted: 1, ..usual() }), "");
    }

    #[test]
    fn a_kernel_without_it_is_told_of_with_the_line_that_there_is() {
        let of = |lack| judge(&config(LISTENS), &Ways { lack: Some(lack), ..host(usual()) }).remove(0);
        let (off, unbuilt) = (of(Lack::Disabled), of(Lack::NotBuilt));
        assert_eq!((off.status, off.mend.as_str()), (Status::Missing, "sysctl -w net.mptcp.enabled=1"));
        assert_eq!((unbuilt.status, unbuilt.mend.as_str()), (Status::Unable, ""));
        let unknown = Ways { told: Err("no ip".to_owned()), ..host(usual()) };
        assert_eq!(judge(&config(LISTENS), &unknown)[0].status, Status::NotTried);
    }
}
