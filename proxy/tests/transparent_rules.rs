//! Transparency on a real kernel: backends see the client's address and port wherever they are, by the rules of their place.
//!
//! ```text
//! this host: lo, inner 192.168.5.1 fd05::1, outer 10.0.0.1 fd00::1 --- 10.0.0.2 fd00::2 container
//! ```

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "namespaces/dial.rs"]
mod dial;
#[path = "namespaces/host.rs"]
mod host;
mod namespaces;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use dial::{client, dial, install, rules, MUST, PATIENCE};
use edgeproxy::transparent::needs::{Family, Needs, Place};
use edgeproxy::transparent::socket::{udp_from, Rung};
use edgeproxy::transparent::udp_endpoints::UdpEndpoints;
use host::{sysctl, Host};
use namespaces::{in_namespaces, ip, run};

/// How long a test waits for what must not come.
const NEVER: Duration = Duration::from_millis(150);

/// The hosts of the drawing; only addresses, no rules.
fn hosts() -> Host {
    let container = Host::new();
    // Link-local addresses are used at once, as `nodad` has it for the others.
    let without_detection = || sysctl("net.ipv6.conf.default.accept_dad", "0").unwrap();
    container.run(without_detection);
    without_detection();
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
    // Neighbours are found from link-local addresses, which take a moment: until the container refuses a connection.
    let refused = TcpStream::connect_timeout(&"[fd00::2]:9".parse().unwrap(), PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    container
}

fn add(address: &str, device: &str) -> String {
    // Without `nodad` an IPv6 address could not be used at once.
    format!("address add {address} dev {device}{}", if address.contains(':') { " nodad" } else { "" })
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
fn marks_that_others_give_and_restore_do_no_harm() {
    in_namespaces("marks_that_others_give_and_restore_do_no_harm", || {
        let container = hosts();
        install(Needs::ALL);
        // As hosts with several uplinks do: each connection is marked, and what is sent takes the connection's mark.
        let others = "table inet uplinks {
            chain first { type filter hook output priority -160; ct direction original ct mark set 5
            }
            chain last { type route hook output priority -140; meta mark set ct mark
            }
        }";
        run(Command::new("nft").arg(others));
        for (place, family) in Place::ALL.iter().flat_map(|place| Family::ALL.map(|family| (*place, family))) {
            let (tcp, udp) = backends(&container, place, family);
            assert!(tcp_sees(&tcp, client(family, 4242), PATIENCE), "{place:?} {family:?}");
            assert!(udp_sees(&udp, client(family, 4242), PATIENCE), "{place:?} {family:?}");
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
