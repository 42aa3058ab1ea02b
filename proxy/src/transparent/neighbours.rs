//! Who is on one link, by this host's routes: what a backend sends to a neighbour goes there straight, and never comes by
//! this host, which so cannot have the neighbour's address towards it.
//!
//! Two addresses are neighbours if this host reaches both without a gateway, by the same device, and that device has a
//! network around both; with IPv6 one around each, for a router tells all hosts of a link of all its networks (RFC 4861,
//! 6.3.4). Addresses of one network that this host reaches by different devices (containers, each at the end of a link of its
//! own) are none: it is this host that joins them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};

use super::host_facts::is_link_local;

/// Routes without a gateway.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// By family (whether it is IPv4) and prefix length, then by network: an address is looked up once a length in use.
    routes: BTreeMap<(bool, u8), HashMap<IpNet, Vec<Link>>>,
    /// The addresses that each device has in each network.
    own: HashMap<(u32, IpNet), HashSet<IpAddr>>,
}

/// One of those to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    device: u32,
    metric: u32,
    /// It is there because this host has an address in it, or a router said so; and so it is on the link's other hosts.
    is_told: bool,
}

/// A route of the main table; the kernel puts another in its place by network and metric.
struct Route {
    to: IpNet,
    metric: u32,
    /// `None` if it does not lead to hosts without a gateway.
    link: Option<Link>,
}

impl Links {
    /// Takes a route that is there. Whether it is clear what is there now: one that is put in the place of another is told
    /// without that other's end.
    #[must_use]
    pub(crate) fn add(&mut self, route: &RouteMessage) -> bool {
        let Some(Route { to, metric, link }) = Route::of(route) else { return true };
        let Some(link) = link else {
            let known = self.routes.get(&at(to)).and_then(|networks| networks.get(&to));
            return !known.is_some_and(|known| known.iter().any(|known| known.metric == metric));
        };
        let known = self.routes.entry(at(to)).or_default().entry(to).or_default();
        let is_clear = !known.iter().any(|known| known.metric == metric && *known != link);
        if !known.contains(&link) {
            known.push(link);
        }
        is_clear
    }

    pub(crate) fn remove(&mut self, route: &RouteMessage) {
        let Some(Route { to, link: Some(link), .. }) = Route::of(route) else { return };
        let Some(networks) = self.routes.get_mut(&at(to)) else { return };
        if let Some(known) = networks.get_mut(&to) {
            known.retain(|known| *known != link);
            if known.is_empty() {
                networks.remove(&to);
            }
        }
        if networks.is_empty() {
            self.routes.remove(&at(to));
        }
    }

    /// Routes by a device that is down are gone, and nobody tells of each.
    pub(crate) fn see(&mut self, device: &LinkMessage, is_gone: bool) {
        if is_gone || !device.header.flags.contains(LinkFlags::Up) {
            self.routes.retain(|_, networks| {
                networks.retain(|_, links| {
                    links.retain(|link| link.device != device.header.index);
                    !links.is_empty()
                });
                !networks.is_empty()
            });
        }
    }

    /// Takes an address of this host, with the prefix length that it has at a device.
    pub(crate) fn add_own(&mut self, device: u32, ip: IpAddr, length: u8) {
        if let Ok(network) = IpNet::new(ip, length) {
            self.own.entry((device, network.trunc())).or_default().insert(ip);
        }
    }

    pub(crate) fn remove_own(&mut self, device: u32, ip: IpAddr, length: u8) {
        let Ok(network) = IpNet::new(ip, length) else { return };
        let key = (device, network.trunc());
        if let Some(own) = self.own.get_mut(&key) {
            own.remove(&ip);
            if own.is_empty() {
                self.own.remove(&key);
            }
        }
    }

    /// Has the routes of another instead.
    pub(crate) fn take_routes(&mut self, other: Self) {
        self.routes = other.routes;
    }

    /// Has the own addresses of another instead.
    pub(crate) fn take_own(&mut self, other: Self) {
        self.own = other.own;
    }

    /// Whether one of them sends to the other straight.
    pub(crate) fn are_neighbours(&self, one: IpAddr, other: IpAddr) -> bool {
        // Most clients are nobody's neighbour.
        let by_one = self.towards(one);
        let by_other = if by_one.is_empty() { by_one } else { self.towards(other) };
        let shared = |link: &&Link| by_other.iter().any(|found| found.device == link.device);
        by_one.iter().filter(shared).any(|link| self.joins(link.device, one, other))
    }

    /// The networks of an address's neighbours.
    pub(crate) fn around(&self, ip: IpAddr) -> Vec<IpNet> {
        let towards = self.towards(ip);
        let is_by = |link: &Link| towards.iter().any(|found| found.device == link.device);
        let networks = self.routes.range(lengths(ip)).flat_map(|(_, networks)| networks);
        let holds = networks.filter(|(to, _)| to.contains(&ip) || ip.is_ipv6());
        let found = holds.filter(|(to, links)| links.iter().any(|link| is_by(link) && self.is_network(**to, *link)));
        let mut found: Vec<_> = found.map(|(to, _)| *to).collect();
        found.sort_unstable();
        found
    }

    /// Whether a device has a network around both.
    fn joins(&self, device: u32, one: IpAddr, other: IpAddr) -> bool {
        let is_of = |to, links: &[Link]| links.iter().any(|link| link.device == device && self.is_network(to, *link));
        let networks = |ip| self.holding(ip).filter(|(to, links)| is_of(*to, links));
        if one.is_ipv6() {
            return [one, other].into_iter().all(|ip| networks(ip).next().is_some());
        }
        networks(one).any(|(to, _)| to.contains(&other))
    }

    /// Those who ask for an address themselves (dhcpcd, netifd) put the network's route as well, in their own name.
    fn is_network(&self, to: IpNet, link: Link) -> bool {
        to.prefix_len() < to.max_prefix_len() && (link.is_told || self.own.contains_key(&(link.device, to)))
    }

    /// By the narrowest route to an address.
    fn towards(&self, ip: IpAddr) -> &[Link] {
        self.holding(ip).next().map_or(&[], |(_, links)| links)
    }

    /// All around an address, the narrowest first.
    fn holding(&self, ip: IpAddr) -> impl Iterator<Item = (IpNet, &[Link])> {
        self.routes.range(lengths(ip)).rev().filter_map(move |((_, length), networks)| {
            let network = IpNet::new(ip, *length).ok()?.trunc();
            Some((network, networks.get(&network)?.as_slice()))
        })
    }
}

fn at(network: IpNet) -> (bool, u8) {
    (network.addr().is_ipv4(), network.prefix_len())
}

fn lengths(ip: IpAddr) -> std::ops::RangeInclusive<(bool, u8)> {
    (ip.is_ipv4(), 0)..=(ip.is_ipv4(), u8::MAX)
}

impl Route {
    fn of(route: &RouteMessage) -> Option<Self> {
        let (mut to, mut device, mut metric, mut table) = (None, None, 0, u32::from(route.header.table));
        let mut is_straight = route.header.kind == RouteType::Unicast;
        for attribute in &route.attributes {
            if let RouteAttribute::Destination(RouteAddress::Inet(ip)) = attribute {
                to = Some(IpAddr::V4(*ip));
            } else if let RouteAttribute::Destination(RouteAddress::Inet6(ip)) = attribute {
                to = Some(IpAddr::V6(*ip));
            } else if let RouteAttribute::Oif(index) = attribute {
                device = Some(*index);
            } else if let RouteAttribute::Priority(number) = attribute {
                metric = *number;
            } else if let RouteAttribute::Table(number) = attribute {
                table = *number;
            } else if let RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) = attribute
            {
                is_straight = false;
            }
        }
        if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
            return None;
        }
        let to = IpNet::new(to?, route.header.destination_prefix_length).ok()?.trunc();
        if is_link_local(to.addr()) {
            return None; // every link has it, and no client is there
        }
        let is_told = [RouteProtocol::Kernel, RouteProtocol::Ra].contains(&route.header.protocol);
        let link = device.filter(|_| is_straight).map(|device| Link { device, metric, is_told });
        Some(Self { to, metric, link })
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;

    use super::*;

    fn route(to: &str, device: u32, protocol: RouteProtocol) -> RouteMessage {
        let to: IpNet = to.parse().unwrap();
        let mut message = RouteMessage::default();
        let (family, address) = match to.addr() {
            IpAddr::V4(ip) => (AddressFamily::Inet, RouteAddress::Inet(ip)),
            IpAddr::V6(ip) => (AddressFamily::Inet6, RouteAddress::Inet6(ip)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = to.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.header.protocol = protocol;
        message.attributes = vec![RouteAttribute::Destination(address), RouteAttribute::Oif(device)];
        message
    }

    fn network(to: &str, device: u32) -> RouteMessage {
        route(to, device, RouteProtocol::Kernel)
    }

    fn put(to: &str, device: u32) -> RouteMessage {
        route(to, device, RouteProtocol::Static)
    }

    fn with(routes: &[RouteMessage]) -> Links {
        let mut links = Links::default();
        for route in routes {
            let _ = links.add(route);
        }
        links
    }

    fn are(links: &Links, one: &str, other: &str) -> bool {
        let found = links.are_neighbours(one.parse().unwrap(), other.parse().unwrap());
        assert_eq!(found, links.are_neighbours(other.parse().unwrap(), one.parse().unwrap()), "{one} {other}");
        found
    }

    #[test]
    fn those_of_one_network_on_one_link_are_neighbours() {
        let links = with(&[network("192.168.1.0/24", 2), network("10.0.0.0/24", 2), network("172.16.0.0/16", 3)]);
        assert!(are(&links, "192.168.1.10", "192.168.1.20"));
        assert!(are(&links, "172.16.1.1", "172.16.2.2"));
        assert!(!are(&links, "192.168.1.10", "203.0.113.7"), "a client from far away");
        assert!(!are(&links, "203.0.113.7", "203.0.113.8"), "both far away");
        assert!(!are(&links, "192.168.1.10", "172.16.1.1"), "on different links");
        assert!(!are(&links, "192.168.1.10", "10.0.0.10"), "neither knows the other's network");
    }

    #[test]
    fn hosts_with_ipv6_know_all_networks_of_their_link() {
        let links = with(&[
            network("fd00::/64", 2),
            route("2001:db8::/64", 2, RouteProtocol::Ra),
            network("fe80::/64", 2),
            network("fd01::/64", 3),
        ]);
        assert_eq!(links.around("fd00::1".parse().unwrap()).len(), 2);
        assert!(are(&links, "fd00::1", "2001:db8::7"));
        assert!(!are(&links, "fd00::1", "fd01::7"));
    }

    #[test]
    fn a_host_that_has_a_route_of_its_own_is_where_that_leads() {
        let alone = [network("10.9.0.0/24", 5), put("10.9.0.2/32", 5), put("10.9.0.3/32", 6)];
        assert!(!are(&with(&alone), "10.9.0.2", "10.9.0.3"), "this host joins them");
        let gateway = [network("192.168.1.0/24", 2), put("192.168.1.1/32", 2)];
        assert!(are(&with(&gateway), "192.168.1.1", "192.168.1.20"), "on the same link all the same");
    }

    #[test]
    fn routes_that_others_put_make_no_neighbours() {
        assert!(!are(&with(&[put("10.0.0.0/8", 2)]), "10.1.1.1", "10.2.2.2"), "a tunnel");
        let by_one = [put("10.144.0.2/32", 4), put("10.144.0.3/32", 4), network("10.144.0.1/32", 4)];
        assert!(!are(&with(&by_one), "10.144.0.2", "10.144.0.3"), "a hub that has no network on its device");
        let mut by_gateway = network("192.168.1.0/24", 2);
        by_gateway.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, 1].into())));
        assert!(!are(&with(&[by_gateway]), "192.168.1.10", "192.168.1.20"));
        let mut other_table = network("192.168.1.0/24", 2);
        other_table.attributes.push(RouteAttribute::Table(1000));
        assert!(!are(&with(&[other_table]), "192.168.1.10", "192.168.1.20"));
        let mut refused = network("192.168.1.0/24", 2);
        refused.header.kind = RouteType::Unreachable;
        assert!(!are(&with(&[refused]), "192.168.1.10", "192.168.1.20"));
    }

    #[test]
    fn what_ends_is_forgotten() {
        let net = network("192.168.1.0/24", 2);
        let mut by_metric = net.clone();
        by_metric.attributes.push(RouteAttribute::Priority(100));
        let mut links = with(&[net.clone(), by_metric.clone()]);
        links.remove(&net);
        assert!(are(&links, "192.168.1.10", "192.168.1.20"), "the other is left");
        links.remove(&by_metric);
        assert!(!are(&links, "192.168.1.10", "192.168.1.20"));

        let (mut links, mut device) = (with(&[net]), LinkMessage::default());
        device.header.index = 2;
        device.header.flags = LinkFlags::Up;
        links.see(&device, false);
        assert!(are(&links, "192.168.1.10", "192.168.1.20"));
        device.header.flags = LinkFlags::empty();
        links.see(&device, false);
        assert!(!are(&links, "192.168.1.10", "192.168.1.20"));
    }

    #[test]
    fn one_in_the_place_of_another_is_not_clear() {
        let mut links = with(&[put("10.9.0.3/32", 6)]);
        assert!(links.add(&put("10.9.0.3/32", 6)));
        assert!(!links.add(&put("10.9.0.3/32", 7)));
    }

    #[test]
    fn one_with_a_gateway_in_the_place_of_another_is_not_clear() {
        let mut links = with(&[put("10.9.0.3/32", 6)]);
        let mut by_gateway = put("10.9.0.3/32", 6);
        by_gateway.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, 1].into())));
        let mut refused = put("10.9.0.3/32", 6);
        refused.header.kind = RouteType::BlackHole;
        assert!(!links.add(&by_gateway) && !links.add(&refused));
        by_gateway.attributes.push(RouteAttribute::Priority(100));
        assert!(links.add(&by_gateway), "beside it");
    }

    #[test]
    fn a_network_that_others_put_is_one_if_this_host_has_an_address_of_it() {
        let mut links = with(&[put("192.168.1.0/24", 2), put("10.0.0.0/8", 3)]);
        let is = |links: &Links| are(links, "192.168.1.10", "192.168.1.20");
        assert!(!is(&links));
        let own: IpAddr = "192.168.1.5".parse().unwrap();
        links.add_own(3, own, 24);
        assert!(!is(&links), "at another device");
        links.add_own(2, own, 24);
        links.add_own(2, own, 24);
        assert!(is(&links));
        assert_eq!(links.around("192.168.1.10".parse().unwrap()).len(), 1);
        links.remove_own(2, own, 24);
        assert!(!is(&links));
        links.add_own(3, "10.0.0.1".parse().unwrap(), 32);
        assert!(!are(&links, "10.1.1.1", "10.2.2.2"), "a tunnel");
    }

    #[test]
    fn the_networks_around_an_address_are_those_of_its_link() {
        let links = with(&[network("192.168.1.0/24", 2), network("10.0.0.0/24", 2), put("192.168.1.9/32", 3)]);
        let of = |ip: &str| links.around(ip.parse().unwrap());
        assert_eq!(of("192.168.1.10"), ["192.168.1.0/24".parse::<IpNet>().unwrap()]);
        assert_eq!(of("192.168.1.9"), []);
        assert_eq!(of("203.0.113.7"), []);
    }
}
