//! What this host can do for transparency, found by trying and asking; nothing is changed.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use caps::{CapSet, Capability};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::kernel_rules::{self, Missing};
use super::local_addresses::LocalAddresses;
use super::multiple_ways::Ways;
use super::needs::{Family, Needs, Place};
use super::netlink::Requests;
use super::rules::RuleSet;
use super::sharing;
use crate::config::model::{Arrival, Config, Host, NamePart, Resolver, Source, TargetPort};
use crate::names::{Names, SystemFiles};

/// What came of trying something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It works.
    Works,
    /// This process may not.
    NotPermitted,
    /// This host cannot, as it says.
    Impossible(String),
    /// There was no need to.
    NotNeeded,
}

/// A backend that can be addressed, and the link by which it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The backend's name in the configuration.
    pub backend: String,
    /// Its address.
    pub to: IpAddr,
    /// The link.
    pub device: String,
    /// The longest packet that the link takes.
    pub mtu: u32,
}

/// A backend of which it is not known now by which link it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoWay {
    /// The backend's name in the configuration.
    pub backend: String,
    /// Why.
    pub why: String,
}

/// A backend that must see clients, and a network of which it answers some without this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbourhood {
    /// The backend's name in the configuration.
    pub backend: String,
    /// Its address.
    pub to: IpAddr,
    /// Its neighbours.
    pub network: IpNet,
}

/// A link's parameters that can keep marked packets out (`ip-sysctl`); those of `all` are counted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReversePath {
    /// The link.
    pub device: String,
    /// `rp_filter`: 0 off, 1 strict, 2 loose.
    pub filter: u8,
    /// `src_valid_mark`: the filter looks up the way back by the packet's mark.
    pub by_mark: bool,
    /// `accept_local`.
    pub accepts_local: bool,
}

/// An address of a listener that no interface has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strange {
    /// The address.
    pub ip: IpAddr,
    /// Whose network it lies in, and that network's prefix length: a link that is up and has another address there.
    pub neighbour: Option<(String, u8)>,
}

/// All that [`super::doctor`] judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// What the configuration needs on this host.
    pub needs: Needs,
    /// Capabilities that this process could use.
    pub capabilities: Vec<Capability>,
    /// `IP_TRANSPARENT` and `IPV6_TRANSPARENT`.
    pub transparent: [(Family, Tried); 2],
    /// A socket of IPv6.
    pub ipv6: Tried,
    /// The first port that needs no capability.
    pub first_free_port: u16,
    /// Addresses of listeners that no interface has, and that cannot be bound without one.
    pub strange_listeners: Vec<Strange>,
    /// Whether a running proxy keeps the rules.
    pub is_kept: bool,
    /// Rules and routes that are not there, as `ip` takes them.
    pub missing: Vec<String>,
    /// Routes in our table that are not ours: the line that removes each.
    pub foreign_routes: Vec<String>,
    /// Whether nft and the kernel understand our table.
    pub nftables: Tried,
    /// Whether that table is there; `None`: this process may not ask, or need not.
    pub nftables_there: Option<bool>,
    /// For each link but `lo`.
    pub reverse_paths: Vec<ReversePath>,
    /// Families that have some way to everywhere.
    pub default_routes: Vec<Family>,
    /// For each address of a backend that gets headers with datagrams; names that clients choose have none.
    pub ways: Vec<Way>,
    /// Targets of such backends that have none now.
    pub no_ways: Vec<NoWay>,
    /// Of each backend of `source = "client"`; names that have no address now have none.
    pub neighbourhoods: Vec<Neighbourhood>,
    /// Of Multipath TCP, where the configuration asks for it.
    pub multipath: Option<Ways>,
}

impl HostFacts {
    /// Asks this host.
    ///
    /// # Errors
    /// When the kernel does not even answer what its addresses are.
    pub fn ask(config: &Config) -> io::Result<Self> {
        let (addresses, _) = LocalAddresses::open_with_routes()?;
        let needs = Needs::of(config, |ip| addresses.is_local(ip));
        let rules = config.transparent;
        let set = RuleSet::new(needs, rules.mark, rules.table);
        let mut requests = Requests::open()?;
        let missing = kernel_rules::missing(&mut requests, &set)?;
        let nftables = nftables(&set);
        let (ways, no_ways) = ways(config, &mut requests)?;
        let mut default_routes = Vec::new();
        for family in Family::ALL {
            if kernel_rules::has_default_route(&mut requests, family, rules.table)? {
                default_routes.push(family);
            }
        }
        Ok(Self {
            needs,
            capabilities: caps::read(None, CapSet::Permitted).unwrap_or_default().into_iter().collect(),
            transparent: Family::ALL.map(|family| (family, try_transparent(config, needs, family))),
            ipv6: if wants_ipv6(config) { outcome(UdpSocket::bind("[::1]:0").map(drop)) } else { Tried::NotNeeded },
            first_free_port: number("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024),
            strange_listeners: strange_listeners(config, &addresses, &mut requests)?,
            is_kept: sharing::anybody(rules.mark, rules.table)?,
            missing: missing.iter().map(line).collect(),
            foreign_routes: kernel_rules::foreign_routes(&mut requests, rules.table)?,
            nftables_there: if nftables == Tried::Works { nftables_there(&set) } else { None },
            nftables,
            reverse_paths: reverse_paths(),
            default_routes,
            ways,
            no_ways,
            neighbourhoods: neighbourhoods(config, &addresses)?,
            multipath: Ways::ask(config, &mut requests)?,
        })
    }
}

fn try_transparent(config: &Config, needs: Needs, family: Family) -> Tried {
    let arrives = config.listeners.iter().any(|listener| listener.arrival == Arrival::Tproxy);
    if !arrives && !Place::ALL.iter().any(|place| needs.has(*place, family)) {
        return Tried::NotNeeded;
    }
    let (domain, set): (_, fn(&Socket, bool) -> io::Result<()>) = match family {
        Family::V4 => (Domain::IPV4, Socket::set_ip_transparent_v4),
        Family::V6 => (Domain::IPV6, Socket::set_ip_transparent_v6),
    };
    match Socket::new(domain, Type::STREAM, None) {
        Ok(socket) => outcome(set(&socket, true)),
        // Without the family there is nothing to be transparent for; that is a finding of its own.
        Err(_) => Tried::NotNeeded,
    }
}

fn outcome(result: io::Result<()>) -> Tried {
    match result {
        Ok(()) => Tried::Works,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Tried::NotPermitted,
        Err(error) => Tried::Impossible(error.to_string()),
    }
}

fn wants_ipv6(config: &Config) -> bool {
    let listens = config.listeners.iter().flat_map(|listener| listener.tcp.iter().chain(&listener.udp));
    let targets = config.backends.iter().flat_map(|backend| &backend.targets);
    listens.into_iter().any(SocketAddr::is_ipv6)
        || targets.into_iter().any(|target| matches!(target.host, Host::Address(IpAddr::V6(_))))
}

fn strange_listeners(config: &Config, addresses: &LocalAddresses, requests: &mut Requests) -> io::Result<Vec<Strange>> {
    let direct = config.listeners.iter().filter(|listener| listener.arrival == Arrival::Direct);
    let all = direct.flat_map(|listener| listener.tcp.iter().chain(&listener.udp)).map(SocketAddr::ip);
    let mut strange: Vec<IpAddr> = all
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !addresses.is_local(*ip) && !binds_nonlocal(*ip))
        .collect();
    strange.sort_unstable();
    strange.dedup();
    if strange.is_empty() {
        return Ok(Vec::new());
    }
    let links = requests.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let known = requests.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    Ok(strange.into_iter().map(|ip| Strange { ip, neighbour: neighbour(&links, &known, ip) }).collect())
}

/// `ip_nonlocal_bind`: addresses can be bound before they are here (ip-sysctl).
fn binds_nonlocal(ip: IpAddr) -> bool {
    let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
    number::<u8>(&format!("/proc/sys/net/{family}/ip_nonlocal_bind")).unwrap_or(0) != 0
}

/// The link with the narrowest network around an address. What is only on one link (link-local) tells of none.
fn neighbour(links: &[RouteNetlinkMessage], addresses: &[RouteNetlinkMessage], ip: IpAddr) -> Option<(String, u8)> {
    let around = addresses.iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
        let length = message.header.prefix_len;
        let is_around = message.attributes.iter().any(|attribute| {
            let AddressAttribute::Address(own) = attribute else { return false };
            IpNet::new(*own, length).is_ok_and(|net| net.contains(&ip) && !is_link_local(*own))
        });
        let device = is_around.then(|| name_if_up(links, message.header.index)).flatten()?;
        Some((device, length))
    });
    around.max_by_key(|(_, length)| *length)
}

pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80), // RFC 4291, 2.5.6
    }
}

pub(super) fn name_if_up(links: &[RouteNetlinkMessage], index: u32) -> Option<String> {
    let usable = links.iter().any(|answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else { return false };
        let flags = link.header.flags;
        link.header.index == index && flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Loopback)
    });
    usable.then(|| name_and_mtu(links, index)).flatten().map(|(name, _)| name)
}

fn line(missing: &Missing) -> String {
    match missing {
        Missing::Rule(rule) => rule.line("add"),
        Missing::Route(route) => route.line("replace"),
    }
}

fn nftables(set: &RuleSet) -> Tried {
    set.nftables.as_ref().map_or(Tried::NotNeeded, |text| outcome(kernel_rules::check_nftables(text)))
}

/// Whether each chain of ours is in the table; another mark would be another table.
fn nftables_there(set: &RuleSet) -> Option<bool> {
    let listing = kernel_rules::list_nftables(&set.nftables_name).ok()?.unwrap_or_default();
    let mut chains = set.nftables.as_ref()?.lines().filter(|line| line.trim_start().starts_with("chain "));
    Some(chains.all(|chain| listing.contains(chain.trim())))
}

fn reverse_paths() -> Vec<ReversePath> {
    let folder = "/proc/sys/net/ipv4/conf";
    let of = |device: &str, name: &str| number::<u8>(&format!("{folder}/{device}/{name}")).unwrap_or(0);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut devices: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    devices.retain(|device| !["all", "default", "lo"].contains(&device.as_str()));
    devices.sort_unstable();
    let of_device = |device: String| ReversePath {
        filter: of("all", "rp_filter").max(of(&device, "rp_filter")),
        by_mark: of("all", "src_valid_mark") | of(&device, "src_valid_mark") != 0,
        accepts_local: of("all", "accept_local") | of(&device, "accept_local") != 0,
        device,
    };
    devices.into_iter().map(of_device).collect()
}

fn ways(config: &Config, requests: &mut Requests) -> io::Result<(Vec<Way>, Vec<NoWay>)> {
    let links = requests.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let addresses = requests.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let (mut ways, mut no_ways) = (Vec::new(), Vec::new());
    for backend in config.backends.iter().filter(|backend| backend.send_proxy_udp.is_some()) {
        for target in &backend.targets {
            let port = match target.port {
                TargetPort::Fixed(port) => port,
                TargetPort::Original => 9, // discard: nothing is sent, only routed
            };
            let found = match addresses_of(&target.host, &config.resolver)? {
                Ok(found) => found,
                Err(why) => {
                    no_ways.push(NoWay { backend: backend.name.clone(), why });
                    continue;
                }
            };
            for to in found {
                let link = source_towards(SocketAddr::new(to, port)).and_then(|source| owner(&addresses, source));
                let backend = backend.name.clone();
                match link.and_then(|index| name_and_mtu(&links, index)) {
                    Some((device, mtu)) => ways.push(Way { backend, to, device, mtu }),
                    None => no_ways.push(NoWay { backend, why: format!("no route leads to {to}") }),
                }
            }
        }
    }
    Ok((ways, no_ways))
}

fn neighbourhoods(config: &Config, addresses: &LocalAddresses) -> io::Result<Vec<Neighbourhood>> {
    let mut found = Vec::new();
    for backend in config.backends.iter().filter(|backend| backend.source == (Source::Client { or_own: false })) {
        for target in &backend.targets {
            for to in addresses_of(&target.host, &config.resolver)?.unwrap_or_default() {
                let backend = || backend.name.clone();
                let of = |network| Neighbourhood { backend: backend(), to, network };
                found.extend(addresses.networks_around(to).into_iter().map(of));
            }
        }
    }
    Ok(found)
}

/// Where a target is, of a name as the proxy itself would find it; or why that is not known now. Nowhere, if clients choose.
pub(super) fn addresses_of(host: &Host, resolver: &Resolver) -> io::Result<Result<Vec<IpAddr>, String>> {
    let parts = match host {
        Host::Address(ip) => return Ok(Ok(vec![*ip])),
        Host::Name(parts) => parts,
    };
    let literal = |part: &NamePart| match part {
        NamePart::Literal(text) => Some(text.clone()),
        NamePart::Capture(_) => None,
    };
    let Some(name) = parts.iter().map(literal).collect::<Option<String>>() else { return Ok(Ok(Vec::new())) };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let names = Names::new(resolver, SystemFiles::default());
    let found = LocalSet::new().block_on(&runtime, names.addresses_by_search(None, &name));
    Ok(found.map_err(|error| format!("{name} has no address now: {error}")))
}

/// The address that this host would have on the way.
fn source_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn owner(addresses: &[RouteNetlinkMessage], ip: IpAddr) -> Option<u32> {
    addresses.iter().find_map(|answer| {
        let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
        let has = [AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        message.attributes.iter().any(|attribute| has.contains(attribute)).then_some(message.header.index)
    })
}

fn name_and_mtu(links: &[RouteNetlinkMessage], index: u32) -> Option<(String, u32)> {
    let attributes = links.iter().find_map(|answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else { return None };
        (link.header.index == index).then_some(&link.attributes)
    })?;
    let (mut name, mut mtu) = (None, None);
    for attribute in attributes {
        if let LinkAttribute::IfName(text) = attribute {
            name = Some(text.clone());
        } else if let LinkAttribute::Mtu(bytes) = attribute {
            mtu = Some(*bytes);
        }
    }
    name.zip(mtu)
}

fn number<T: std::str::FromStr>(path: &str) -> io::Result<T> {
    fs::read_to_string(path)?.trim().parse().map_err(|_| Errno::EINVAL.into())
}
