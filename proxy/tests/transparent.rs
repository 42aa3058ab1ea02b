//! Transparency on a real kernel: backends see the client's address and port wherever they are, the rungs below that, and
//! which addresses count as this host's.
//!
//! ```text
//! this host: lo, inner 192.168.5.1 fd05::1, outer 10.0.0.1 fd00::1 --- 10.0.0.2 fd00::2 container
//! ```

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "namespaces/host.rs"]
mod host;
mod namespaces;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::process::Command;
use std::time::Duration;

use edgeproxy::config::model::Source;
use edgeproxy::transparent::local_addresses::LocalAddresses;
use edgeproxy::transparent::needs::{Family, Needs, Place};
use edgeproxy::transparent::rules::RuleSet;
use edgeproxy::transparent::socket::{connect_tcp, udp_from, ClientFault, DialError, Rung, Why};
use edgeproxy::transparent::udp_endpoints::UdpEndpoints;
use host::{sysctl, Host};
use namespaces::{in_namespaces, ip, run};

const MUST: Source = Source::Client { or_own: false };
const MAY: Source = Source::Client { or_own: true };
/// How long an answer is waited for; where none must come, this is what the test takes.
const PATIENCE: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_millis(150);

/// The hosts of the drawing; only addresses, no rules.
fn hosts() -> Host {
    let container = Host::new();
    ip(&format!("link add outer type veth peer name uplink netns {}", container.thread));
    ip("link add inner type veth peer name nobody");
    for (device, addresses) in [("outer", ["10.0.0.1/24", "fd00::1/64"]), ("inner", ["192.168.5.1/24", "fd05::1/64"])] {
        addresses.iter().for_each(|address| drop(ip(&add(address, device))));
        ip(&format!("link set {device} up"));
    }
    ip("link set nobody up");
    ip("route add default via 10.0.0.2");
    ip("-6 route add default via fd00::2");
    for address in ["10.0.0.2/24", "fd00::2/64"] {
        container.ip(&add(address, "uplink"));
    }
    container.ip("link set uplink up");
    container.ip("route add default via 10.0.0.1");
    container.ip("-6 route add default via fd00::1");
    container
}

fn add(address: &str, device: &str) -> String {
    // Without `nodad` an IPv6 address could not be used at once.
    format!("address add {address} dev {device}{}", if address.contains(':') { " nodad" } else { "" })
}

fn install(needs: Needs) {
    run(Command::new("sh").args(["-ec", &rules(needs).install_lines()]));
}

fn rules(needs: Needs) -> RuleSet {
    RuleSet::new(needs, NonZeroU32::new(0x2f7).unwrap(), NonZeroU32::new(763).unwrap())
}

fn address(place: Place, family: Family) -> IpAddr {
    let text = match (place, family) {
        (Place::Loopback, Family::V4) => "127.0.0.1",
        (Place::Loopback, Family::V6) => "::1",
        (Place::LocalAddress, Family::V4) => "192.168.5.1",
        (Place::LocalAddress, Family::V6) => "fd05::1",
        (Place::Elsewhere, Family::V4) => "10.0.0.2",
        (Place::Elsewhere, Family::V6) => "fd00::2",
    };
    text.parse().unwrap()
}

fn client(family: Family, port: u16) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => "203.0.113.7".parse().unwrap(),
        Family::V6 => "2001:db8::7".parse().unwrap(),
    };
    SocketAddr::new(ip, port)
}

fn dial(
    client: Option<SocketAddr>,
    source: Source,
    to: SocketAddr,
    patience: Duration,
) -> Result<(TcpStream, Rung), DialError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connecting = tokio::time::timeout(patience, connect_tcp(client, source, to));
        let (stream, rung) = connecting.await.unwrap_or_else(|late| Err(DialError::Connect(late.into())))?;
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        Ok((stream, rung))
    })
}

/// Whether a TCP backend there sees the client and both hear each other.
fn tcp_sees(listener: &TcpListener, client: SocketAddr, patience: Duration) -> bool {
    let Ok((mut near, rung)) = dial(Some(client), MUST, listener.local_addr().unwrap(), patience) else { return false };
    let (mut far, peer) = listener.accept().unwrap();
    far.set_read_timeout(Some(patience)).unwrap();
    let mut bytes = [0; 8];
    near.write_all(b"question").unwrap();
    far.read_exact(&mut bytes).unwrap();
    far.write_all(b"response").unwrap();
    near.read_exact(&mut bytes).unwrap();
    assert_eq!((&bytes, rung, peer), (b"response", Rung::Client, client));
    true
}

/// Whether a UDP backend there sees the client and its answer arrives.
fn udp_sees(backend: &UdpSocket, client: SocketAddr, patience: Duration) -> bool {
    let made = udp_from(Some(client), MUST, backend.local_addr().unwrap(), &UdpEndpoints::default()).unwrap();
    assert_eq!(made.rung, Rung::Client);
    made.socket.set_nonblocking(false).unwrap();
    made.socket.set_read_timeout(Some(patience)).unwrap();
    made.socket.send(b"question").unwrap();
    let mut bytes = [0; 8];
    backend.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_, peer) = backend.recv_from(&mut bytes).unwrap();
    assert_eq!(peer, client);
    // Without a rule some places have no way to the client at all, which is an answer too.
    backend.send_to(b"response", peer).is_ok()
        && made.socket.recv(&mut bytes).is_ok_and(|count| &bytes[..count] == b"response")
}

fn backends(container: &Host, place: Place, family: Family) -> (TcpListener, UdpSocket) {
    let at = SocketAddr::new(address(place, family), 0);
    let make = move || (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap());
    if place == Place::Elsewhere {
        container.run(make)
    } else {
        make()
    }
}

#[test]
fn backends_everywhere_see_the_client_by_the_rules_of_their_place_and_by_no_less() {
    in_namespaces("backends_everywhere_see_the_client_by_the_rules_of_their_place_and_by_no_less", || {
        let container = hosts();
        let mut port = 20_000;
        let mut checked = 0;
        for (place, family) in Place::ALL.iter().flat_map(|place| Family::ALL.map(|family| (*place, family))) {
            let (tcp, udp) = backends(&container, place, family);
            let mut seen = |patience| {
                port += 1;
                (tcp_sees(&tcp, client(family, port), patience), udp_sees(&udp, client(family, port), patience))
            };
            let needs = Needs::default().with(place, family);
            assert_eq!(seen(NEVER), (false, false), "{place:?} {family:?} without rules");
            install(needs);
            assert_eq!(seen(PATIENCE), (true, true), "{place:?} {family:?}");
            install(needs); // the lines may be run again
            assert_eq!(seen(PATIENCE), (true, true), "{place:?} {family:?}, rules installed twice");
            run(Command::new("sh").args(["-ec", &rules(needs).remove_lines()]));
            assert_eq!(seen(NEVER), (false, false), "{place:?} {family:?} after the removal");
            checked += 1;
        }
        assert_eq!(checked, 6);
        let left = [ip("rule"), ip("-6 rule"), ip("route show table all"), ip("-6 route show table all")].concat();
        assert!(!left.contains("763") && !left.contains("237"), "{left}");
    });
}

#[test]
fn all_rules_together_hold_under_strict_reverse_path_filters_and_leave_others_alone() {
    in_namespaces("all_rules_together_hold_under_strict_reverse_path_filters_and_leave_others_alone", || {
        let container = hosts();
        for name in ["all", "outer", "inner", "lo"] {
            sysctl(&format!("net.ipv4.conf.{name}.rp_filter"), "1").unwrap();
        }
        install(Needs::ALL);
        for (place, family) in Place::ALL.iter().flat_map(|place| Family::ALL.map(|family| (*place, family))) {
            let (tcp, udp) = backends(&container, place, family);
            assert!(tcp_sees(&tcp, client(family, 4242), PATIENCE), "{place:?} {family:?}");
            assert!(udp_sees(&udp, client(family, 4242), PATIENCE), "{place:?} {family:?}");
            // Whoever comes without the proxy is answered as ever: the container asks a backend of this host.
            if place == Place::LocalAddress {
                let to = tcp.local_addr().unwrap();
                let direct = container.run(move || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
                assert_eq!(tcp.accept().unwrap().1, direct.local_addr().unwrap());
            }
        }
    });
}

#[test]
fn packets_that_are_only_forwarded_are_not_taken_by_a_tproxy_listener_on_all_addresses() {
    in_namespaces("packets_that_are_only_forwarded_are_not_taken_by_a_tproxy_listener_on_all_addresses", || {
        let (container, server) = (hosts(), Host::new());
        ip(&format!("link add dmz type veth peer name uplink netns {}", server.thread));
        ip("address add 10.1.0.1/24 dev dmz");
        ip("link set dmz up");
        server.ip("address add 10.1.0.2/24 dev uplink");
        server.ip("link set uplink up");
        server.ip("route add default via 10.1.0.1");
        sysctl("net.ipv4.ip_forward", "1").unwrap();
        install(Needs::default().with(Place::Elsewhere, Family::V4));
        let far = server.run(|| TcpListener::bind("10.1.0.2:0").unwrap());
        let to = far.local_addr().unwrap();
        let near = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        near.set_ip_transparent_v4(true).unwrap();
        near.bind(&SocketAddr::from(([0, 0, 0, 0], to.port())).into()).unwrap();
        near.listen(8).unwrap();
        let forwarded = container.run(move || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
        far.set_nonblocking(true).unwrap();
        assert_eq!(far.accept().unwrap().1, forwarded.local_addr().unwrap());
    });
}

#[test]
fn two_transparent_hops_on_one_host_both_have_the_clients_endpoint() {
    in_namespaces("two_transparent_hops_on_one_host_both_have_the_clients_endpoint", || {
        install(Needs::default().with(Place::Loopback, Family::V4).with(Place::Loopback, Family::V6));
        for family in Family::ALL {
            let loopback = SocketAddr::new(address(Place::Loopback, family), 0);
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
        sysctl("net.ipv4.ip_local_port_range", "50000 50001").unwrap();
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
            ip(&add(&format!("{own}/24"), "inner"));
            until(|| addresses.same_host(ip_of, far));
            ip(&format!("address del {own}/24 dev inner"));
            ip(&add(&format!("{marker}/32"), "inner"));
            until(|| addresses.is_local(marker.parse().unwrap()));
            assert!(!addresses.same_host(ip_of, far));
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
