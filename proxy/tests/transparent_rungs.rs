//! Which source a backend sees where the client's endpoint is taken, not permitted or of no use; and which addresses count as
//! this host's.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "namespaces/dial.rs"]
mod dial;
mod namespaces;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use dial::{client, dial, install, MUST, PATIENCE};
use edgeproxy::config::model::Source;
use edgeproxy::transparent::local_addresses::LocalAddresses;
use edgeproxy::transparent::needs::{Family, Needs, Place};
use edgeproxy::transparent::socket::{udp_from, ClientFault, DialError, Rung, Why};
use edgeproxy::transparent::udp_endpoints::UdpEndpoints;
use namespaces::{in_namespaces, ip};

const MAY: Source = Source::Client { or_own: true };

#[test]
fn two_transparent_hops_on_one_host_both_have_the_clients_endpoint() {
    in_namespaces("two_transparent_hops_on_one_host_both_have_the_clients_endpoint", || {
        install(Needs::default().with(Place::Loopback, Family::V4).with(Place::Loopback, Family::V6));
        for family in Family::ALL {
            let loopback = SocketAddr::new(
                if family == Family::V4 { [127, 0, 0, 1].into() } else { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) },
                0,
            );
            let (second, backend) = (TcpListener::bind(loopback).unwrap(), TcpListener::bind(loopback).unwrap());
            let (_first_hop, rung) =
                dial(Some(client(family, 4242)), MUST, second.local_addr().unwrap(), PATIENCE).unwrap();
            let (_accepted, seen) = second.accept().unwrap();
            assert_eq!((rung, seen), (Rung::Client, client(family, 4242)));
            let (_second_hop, rung) = dial(Some(seen), MUST, backend.local_addr().unwrap(), PATIENCE).unwrap();
            assert_eq!((rung, backend.accept().unwrap().1), (Rung::Client, client(family, 4242)));
            // A third connection between the same two ends cannot be: the address is kept, the port is not.
            let (_third, rung) = dial(Some(seen), MUST, backend.local_addr().unwrap(), PATIENCE).unwrap();
            let peer = backend.accept().unwrap().1;
            assert_eq!((rung, peer.ip()), (Rung::ClientAddress, seen.ip()));
            assert_ne!(peer.port(), seen.port());
        }
    });
}

#[test]
fn a_hop_that_does_not_share_the_endpoint_leaves_the_address() {
    in_namespaces("a_hop_that_does_not_share_the_endpoint_leaves_the_address", || {
        install(Needs::default().with(Place::Loopback, Family::V4));
        let client = client(Family::V4, 4242);
        let greedy = |kind| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap();
            socket.set_ip_transparent_v4(true).unwrap();
            socket.bind(&client.into()).unwrap();
            socket
        };
        let _holders = (greedy(socket2::Type::STREAM), greedy(socket2::Type::DGRAM));
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let (stream, rung) = dial(Some(client), MUST, backend.local_addr().unwrap(), PATIENCE).unwrap();
        assert_eq!((rung, backend.accept().unwrap().1), (Rung::ClientAddress, stream.local_addr().unwrap()));
        assert_eq!(stream.local_addr().unwrap().ip(), client.ip());

        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        let made = udp_from(Some(client), MUST, backend.local_addr().unwrap(), &UdpEndpoints::default()).unwrap();
        assert_eq!((made.rung, made.socket.local_addr().unwrap().ip()), (Rung::ClientAddress, client.ip()));
    });
}

#[test]
fn one_port_of_a_clients_address_serves_connections_to_many_backends() {
    in_namespaces("one_port_of_a_clients_address_serves_connections_to_many_backends", || {
        install(Needs::default().with(Place::Loopback, Family::V4));
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50001").unwrap();
        // Six backends, outside of the two ports that clients' connections may have.
        let backends: Vec<_> =
            (0..6u16).map(|index| TcpListener::bind(("127.0.0.1", 40_000 + index)).unwrap()).collect();
        let client = client(Family::V4, 0);
        let dialled: Vec<_> =
            backends.iter().map(|backend| dial(Some(client), MUST, backend.local_addr().unwrap(), PATIENCE)).collect();
        assert!(dialled.iter().all(|dialled| matches!(dialled, Ok((_, Rung::ClientAddress)))), "{dialled:?}");
    });
}

#[test]
fn what_cannot_be_the_clients_is_the_proxys_own_only_where_that_is_allowed() {
    in_namespaces("what_cannot_be_the_clients_is_the_proxys_own_only_where_that_is_allowed", || {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = backend.local_addr().unwrap();
        let own = |client, source, why| {
            let (_stream, rung) = dial(client, source, to, PATIENCE).unwrap();
            let peer = backend.accept().unwrap().1;
            assert_eq!((rung, peer.ip()), (Rung::Own(why), to.ip()));
            let udp = udp_from(client, source, to, &UdpEndpoints::default()).unwrap();
            assert_eq!((udp.rung, udp.socket.local_addr().unwrap().ip()), (Rung::Own(why), to.ip()));
        };
        let v6 = Some(client(Family::V6, 4242));
        own(v6, MAY, Why::Fault(ClientFault::OtherFamily));
        own(v6, Source::Own, Why::Asked);
        own(None, MUST, Why::Asked);
        own(Some("255.255.255.255:1".parse().unwrap()), MAY, Why::Fault(ClientFault::NoSource));
        let refused = dial(v6, MUST, to, PATIENCE);
        assert!(matches!(refused, Err(DialError::Client(ClientFault::OtherFamily))), "{refused:?}");
        let refused = udp_from(v6, MUST, to, &UdpEndpoints::default());
        assert!(matches!(refused, Err(DialError::Client(ClientFault::OtherFamily))), "{refused:?}");

        caps::clear(None, caps::CapSet::Effective).unwrap();
        own(Some(client(Family::V4, 4242)), MAY, Why::Fault(ClientFault::NotPermitted));
        let refused = dial(Some(client(Family::V4, 4242)), MUST, to, PATIENCE);
        assert!(matches!(refused, Err(DialError::Client(ClientFault::NotPermitted))), "{refused:?}");
    });
}

#[test]
fn cap_net_raw_alone_is_enough_and_low_ports_of_clients_are_kept_by_one_more() {
    in_namespaces("cap_net_raw_alone_is_enough_and_low_ports_of_clients_are_kept_by_one_more", || {
        install(Needs::default().with(Place::Loopback, Family::V4));
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = backend.local_addr().unwrap();
        let low = client(Family::V4, 443);
        let with = |capabilities: &[caps::Capability]| {
            caps::set(None, caps::CapSet::Effective, &capabilities.iter().copied().collect()).unwrap();
            dial(Some(low), MUST, to, PATIENCE).unwrap().1
        };
        use caps::Capability::{CAP_NET_BIND_SERVICE, CAP_NET_RAW};
        assert_eq!(with(&[CAP_NET_RAW]), Rung::ClientAddress);
        assert_eq!(with(&[CAP_NET_RAW, CAP_NET_BIND_SERVICE]), Rung::Client);
    });
}

#[test]
fn a_backend_that_refuses_is_not_asked_again_from_another_endpoint() {
    in_namespaces("a_backend_that_refuses_is_not_asked_again_from_another_endpoint", || {
        install(Needs::default().with(Place::Loopback, Family::V4));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = dial(Some(client(Family::V4, 4242)), MAY, closed, PATIENCE);
        let Err(DialError::Connect(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn udp_flows_between_the_same_ends_do_not_take_each_others_answers() {
    in_namespaces("udp_flows_between_the_same_ends_do_not_take_each_others_answers", || {
        install(Needs::default().with(Place::Loopback, Family::V4));
        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        let (to, endpoints) = (backend.local_addr().unwrap(), UdpEndpoints::default());
        let flows: Vec<_> =
            (0..3).map(|_| udp_from(Some(client(Family::V4, 4242)), MUST, to, &endpoints).unwrap()).collect();
        let rungs: Vec<_> = flows.iter().map(|flow| flow.rung).collect();
        assert_eq!(rungs, [Rung::Client, Rung::ClientAddress, Rung::ClientAddress]);
        for (flow, text) in flows.iter().zip([b"one", b"two", b"six"]) {
            flow.socket.set_nonblocking(false).unwrap();
            flow.socket.set_read_timeout(Some(PATIENCE)).unwrap();
            flow.socket.send(text).unwrap();
            let mut bytes = [0; 3];
            let (_, peer) = backend.recv_from(&mut bytes).unwrap();
            backend.send_to(&bytes, peer).unwrap();
            flow.socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes, text);
        }
        drop(flows);
        let again = udp_from(Some(client(Family::V4, 4242)), MUST, to, &endpoints).unwrap();
        assert_eq!(again.rung, Rung::Client);
    });
}

#[test]
fn addresses_that_come_and_go_are_known_as_they_do() {
    in_namespaces("addresses_that_come_and_go_are_known_as_they_do", || {
        ip("link add inner type veth peer name nobody");
        let (addresses, watch) = LocalAddresses::open().unwrap();
        std::thread::spawn(|| watch.run());
        let far: IpAddr = "127.0.0.1".parse().unwrap();
        // The watch answers in the order of the kernel's news: when the later address is known, the earlier change is.
        for (own, marker) in [("192.0.2.1", "192.0.2.101"), ("2001:db8::1", "192.0.2.102")] {
            let ip_of: IpAddr = own.parse().unwrap();
            assert!(!addresses.same_host(ip_of, far));
            ip(&format!("address add {own}/24 dev inner"));
            until(|| addresses.same_host(ip_of, far));
            ip(&format!("address del {own}/24 dev inner"));
            ip(&format!("address add {marker}/32 dev inner"));
            until(|| addresses.is_local(marker.parse().unwrap()));
            assert!(!addresses.same_host(ip_of, far));
        }
    });
}

#[test]
fn neighbours_that_come_and_go_are_known_as_they_do() {
    in_namespaces("neighbours_that_come_and_go_are_known_as_they_do", || {
        for (one, other) in [("outer", "nobody"), ("apart", "nowhere")] {
            ip(&format!("link add {one} type veth peer name {other}"));
            ip(&format!("link set {other} up"));
            ip(&format!("link set {one} up"));
        }
        let (addresses, watch) = LocalAddresses::open_with_routes().unwrap();
        std::thread::spawn(|| watch.run());
        for (own, length, one, other) in
            [("192.0.2.1", 24, "192.0.2.7", "192.0.2.9"), ("2001:db8::1", 64, "2001:db8::7", "2001:db8::9")]
        {
            let all = if own.contains(':') { 128 } else { 32 };
            let are = || addresses.are_neighbours(one.parse().unwrap(), other.parse().unwrap());
            assert!(!are());
            ip(&format!("address add {own}/{length} dev outer nodad"));
            until(are);
            ip(&format!("route add {other} dev apart"));
            until(|| !are());
            ip(&format!("route replace {other} dev outer"));
            until(are);
            // One by a gateway, by several, or by none is told without the end of the one before it.
            let (gateway, second) = (format!("{own}1"), format!("{own}2"));
            for instead in [
                format!("{other} metric 7 via {gateway}"),
                format!("unreachable {other} metric 7"),
                format!("{other} metric 7 nexthop via {gateway} nexthop via {second}"),
            ] {
                ip(&format!("route add {other} dev apart metric 7"));
                ip(&format!("route del {other} dev outer"));
                until(|| !are());
                ip(&format!("route replace {instead}"));
                until(are);
                ip(&format!("route del {other} metric 7"));
                ip(&format!("route add {other} dev outer"));
            }
            ip("link set outer down");
            until(|| !are());
            ip("link set outer up");
            ip(&format!("address replace {own}/{length} dev outer nodad")); // IPv6's went with the link
            until(are);
            ip(&format!("address add {other}/{all} dev apart"));
            until(|| !are()); // it is this host itself
            ip(&format!("address del {other}/{all} dev apart"));
            until(are);
            ip(&format!("address del {own}/{length} dev outer"));
            until(|| !are());
        }
        // Also those that are there when somebody asks.
        ip("address add 192.0.2.1/24 dev outer");
        let are = |addresses: &LocalAddresses| {
            addresses.are_neighbours("192.0.2.7".parse().unwrap(), "192.0.2.9".parse().unwrap())
        };
        let (later, mut watch) = LocalAddresses::open().unwrap();
        let mut routes = watch.routes().unwrap();
        std::thread::spawn(|| watch.run());
        assert!(!are(&later), "nobody has asked");
        routes.follow().unwrap();
        assert!(are(&later));
        ip("address del 192.0.2.1/24 dev outer");
        until(|| !are(&later));
        ip("address add 192.0.2.1/24 dev outer");
        until(|| are(&later));
        routes.follow().unwrap();
        let (addresses, _) = LocalAddresses::open_with_routes().unwrap();
        assert!(are(&addresses), "and those at the start");
    });
}

#[test]
fn a_network_is_known_by_this_hosts_address_whoever_put_its_route() {
    in_namespaces("a_network_is_known_by_this_hosts_address_whoever_put_its_route", || {
        ip("link add outer type veth peer name nobody");
        ip("link set nobody up");
        ip("link set outer up");
        let (addresses, watch) = LocalAddresses::open_with_routes().unwrap();
        std::thread::spawn(|| watch.run());
        for (own, network, protocol, one, other) in [
            ("192.0.2.1/24", "192.0.2.0/24", "dhcp", "192.0.2.7", "192.0.2.9"),
            ("2001:db8::1/64", "2001:db8::/64", "static", "2001:db8::7", "2001:db8::9"),
        ] {
            let are = || addresses.are_neighbours(one.parse().unwrap(), other.parse().unwrap());
            ip(&format!("address add {own} dev outer noprefixroute nodad"));
            ip(&format!("route add {network} dev outer proto {protocol}"));
            until(are);
            ip(&format!("address del {own} dev outer"));
            until(|| !are());
        }
    });
}

fn until(is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it did not come about");
        std::thread::yield_now();
    }
}
