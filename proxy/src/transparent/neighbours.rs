//! Who is on one link, by this host's routes: what a backend sends to a neighbour goes there straight, and never comes by
//! this host, which so cannot have the neighbour's address towards it.
//!
//! Two addresses are neighbours if this host reaches both without a gateway, by the same device, and that device has a
//! network around both; with IPv6 one around each, for a router tells all hosts of a link of all its networks (RFC 4861,
//! 6.3.4). Addresses of one network that this host reaches by different devices (containers, each at the end of a link of its
//! own) are none: it is this host that joins them.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};

use super::host_facts::is_link_local;

/// Routes without a gateway.
#[derive(Debug, Default)]
pub(crate) struct Links(HashSet<Link>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Link {
    to: IpNet,
    device: u32,
    metric: u32,
    /// It is there because this host has an address in it, or a router said so; and so it is on the link's other hosts.
    is_network: bool,
}

impl Links {
    /// Takes a route that is there. Whether it is clear what is there now: one that is put in the place of another is told
    /// without that other's end.
    #[must_use]
    pub(crate) fn add(&mut self, route: &RouteMessage) -> bool {
        let Some(link) = Link::of(route) else { return true };
        let is_instead =
            |other: &Link| (other.to, other.metric) == (link.to, link.metric) && other.device != link.device;
        let is_clear = !self.0.iter().any(is_instead);
        self.0.insert(link);
        is_clear
    }

    pub(crate) fn remove(&mut self, route: &RouteMessage) {
        if let Some(link) = Link::of(route) {
            self.0.remove(&link);
        }
    }

    /// Routes by a device that is down are gone, and nobody tells of each.
    pub(crate) fn see(&mut self, device: &LinkMessage, is_gone: bool) {
        if is_gone || !device.header.flags.contains(LinkFlags::Up) {
            self.0.retain(|link| link.device != device.header.index);
        }
    }

    /// Whether one of them sends to the other straight.
    pub(crate) fn are_neighbours(&self, one: IpAddr, other: IpAddr) -> bool {
        // Most clients are nobody's neighbour.
        let Some(length) = self.best(one) else { return false };
        let Some(length_of_other) = self.best(other) else { return false };
        let shared = |link: &&Link| self.towards(other, length_of_other).any(|found| found.device == link.device);
        self.towards(one, length).filter(shared).any(|link| self.joins(link.device, one, other))
    }

    /// The networks of an address's neighbours.
    pub(crate) fn around(&self, ip: IpAddr) -> Vec<IpNet> {
        let Some(length) = self.best(ip) else { return Vec::new() };
        let is_by = |link: &&Link| self.towards(ip, length).any(|found| found.device == link.device);
        let is_neighbours = |link: &&Link| link.is_network && link.to.addr().is_ipv4() == ip.is_ipv4();
        let holds = |link: &&Link| link.to.contains(&ip) || ip.is_ipv6();
        let found = self.0.iter().filter(is_neighbours).filter(holds).filter(is_by);
        let mut found: Vec<_> = found.map(|link| link.to).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether a device has a network around both.
    fn joins(&self, device: u32, one: IpAddr, other: IpAddr) -> bool {
        let networks = || self.0.iter().filter(|link| link.device == device && link.is_network);
        if one.is_ipv6() {
            return [one, other].iter().all(|ip| networks().any(|link| link.to.contains(ip)));
        }
        networks().any(|link| link.to.contains(&one) && link.to.contains(&other))
    }

    /// The prefix length of the narrowest route to an address.
    fn best(&self, ip: IpAddr) -> Option<u8> {
        self.0.iter().filter(|link| link.to.contains(&ip)).map(|link| link.to.prefix_len()).max()
    }

    fn towards(&self, ip: IpAddr, length: u8) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(move |link| link.to.prefix_len() == length && link.to.contains(&ip))
    }
}

impl Link {
    /// A route of the main table that leads to hosts without a gateway.
    fn of(route: &RouteMessage) -> Option<Self> {
        let (mut to, mut device, mut metric, mut table) = (None, None, 0, u32::from(route.header.table));
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
                return None;
            }
        }
        let header = &route.header;
        if header.kind != RouteType::Unicast || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
            return None;
        }
        let to = IpNet::new(to?, header.destination_prefix_length).ok()?;
        if is_link_local(to.addr()) {
            return None; // every link has it, and no client is there
        }
        let is_told = [RouteProtocol::Kernel, RouteProtocol::Ra].contains(&header.protocol);
        Some(Self { to, device: device?, metric, is_network: is_told && to.prefix_len() < to.max_prefix_len() })
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
    fn the_networks_around_an_address_are_those_of_its_link() {
        let links = with(&[network("192.168.1.0/24", 2), network("10.0.0.0/24", 2), put("192.168.1.9/32", 3)]);
        let of = |ip: &str| links.around(ip.parse().unwrap());
        assert_eq!(of("192.168.1.10"), ["192.168.1.0/24".parse::<IpNet>().unwrap()]);
        assert_eq!(of("192.168.1.9"), []);
        assert_eq!(of("203.0.113.7"), []);
    }
}
