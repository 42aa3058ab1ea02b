//! Sockets towards backends: from the client's endpoint where that can be, one rung of a ladder lower where it cannot.
//!
//! The rungs: the client's address and port; its address and a port that the kernel picks; the proxy's own address. Two
//! transparent proxies on one host both want the client's endpoint, and the kernel gives it to both as long as they lead to
//! different backends and both set SO_REUSEADDR; where it does not, the second rung keeps the address at least.
//!
//! No socket carries a mark. Rules know these sockets by their being transparent, which needs no further capability, and a
//! marked packet to a backend elsewhere would be led back by the very rule that brings the answers in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};

use super::udp_endpoints::{Claim, UdpEndpoints};
use crate::config::model::Source;
use crate::multipath;

/// Which source a backend sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rung {
    /// The client's address and port.
    Client,
    /// The client's address; the port is the kernel's choice.
    ClientAddress,
    /// The proxy's own address.
    Own(Why),
}

/// Why a backend sees the proxy's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The configuration says so, or the caller named no client (it is on this host, on the backend's, or its neighbour).
    Asked,
    /// The client's address could not be used.
    Fault(ClientFault),
}

/// Why a client's address cannot be the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum ClientFault {
    /// One is IPv4, the other IPv6.
    #[error("client and backend are not of one address family")]
    OtherFamily,
    /// Unspecified, multicast, broadcast, loopback from elsewhere, or link-local: nobody can be answered there.
    #[error("nothing can be sent from the client's address")]
    NoSource,
    /// Every port that could be tried is taken.
    #[error("the client's endpoint is in use")]
    InUse,
    /// `IP_TRANSPARENT` was refused: it takes CAP_NET_RAW or CAP_NET_ADMIN (ip(7)).
    #[error("IP_TRANSPARENT is not permitted: it takes CAP_NET_RAW")]
    NotPermitted,
}

/// How a backend is connected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// Bytes will be written as soon as it is connected.
    pub speaks_at_once: bool,
    /// From the proxy's own address by Multipath TCP, where kernel and backend have it.
    pub is_multipath: bool,
}

/// Why there is no connection to a backend.
#[derive(Debug, Error)]
pub enum DialError {
    /// The client's address cannot be used, and the proxy's own may not take its place.
    #[error("{0}")]
    Client(ClientFault),
    /// This process or host could not make a socket (descriptors, memory).
    #[error("no socket: {0}")]
    Socket(#[source] io::Error),
    /// The backend, or the way to it, refused.
    #[error("not connected: {0}")]
    Connect(#[source] io::Error),
}

/// A connection to a backend, and whose address it sees. `client` is whom the backend shall see: `None` where that must be
/// the proxy (see [`super::local_addresses::LocalAddresses::same_host`]), port 0 where the client's own port must not be
/// tried (a backend that is the original destination itself). It waits as long as
/// the kernel does; deadlines are the caller's.
///
/// # Errors
/// When no rung that `source` allows led to a connection.
pub async fn connect_tcp(
    client: Option<SocketAddr>,
    source: Source,
    to: SocketAddr,
    manner: Manner,
) -> Result<(TcpStream, Rung), DialError> {
    let to = canonical(to);
    let (client, or_own) = match (source, client) {
        (Source::Own, _) | (Source::Client { .. }, None) => return own_tcp(to, manner, Why::Asked).await,
        (Source::Client { or_own }, Some(client)) => (canonical(client), or_own),
    };
    let fault = match usable(client, to) {
        Err(fault) => fault,
        // On the heap, for most connections need none of it.
        Ok(()) => match Box::pin(connect_from(client, to, manner.speaks_at_once)).await? {
            Ok(connected) => return Ok(connected),
            Err(fault) => fault,
        },
    };
    if or_own {
        own_tcp(to, manner, Why::Fault(fault)).await
    } else {
        Err(DialError::Client(fault))
    }
}

/// The two rungs of the client's address. The inner error leaves the last rung open, the outer one ends the attempt.
async fn connect_from(
    client: SocketAddr,
    to: SocketAddr,
    speaks_at_once: bool,
) -> Result<Result<(TcpStream, Rung), ClientFault>, DialError> {
    for (from, rung) in rungs(client) {
        let socket = match transparent(from, Type::STREAM) {
            Ok(socket) => socket,
            Err(Bound::Fault(ClientFault::InUse)) => continue,
            Err(Bound::Fault(fault)) => return Ok(Err(fault)),
            Err(Bound::Socket(error)) => return Err(DialError::Socket(error)),
        };
        match connect(socket, to, speaks_at_once).await {
            Ok(stream) => return Ok(Ok((stream, rung))),
            // The whole tuple is in use (tcp(7)): bind() cannot know, for it does not know the backend.
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(DialError::Connect(error)),
        }
    }
    Ok(Err(ClientFault::InUse))
}

async fn own_tcp(to: SocketAddr, manner: Manner, why: Why) -> Result<(TcpStream, Rung), DialError> {
    let socket = multipath::stream(to, manner.is_multipath).map_err(DialError::Socket)?;
    let stream = connect(socket, to, manner.speaks_at_once).await.map_err(DialError::Connect)?;
    Ok((stream, Rung::Own(why)))
}

async fn connect(socket: Socket, to: SocketAddr, speaks_at_once: bool) -> io::Result<TcpStream> {
    if speaks_at_once {
        // The acknowledgement that ends the handshake goes with the first bytes instead of alone (TCP_QUICKACK, tcp(7)): one
        // packet less. Without bytes to come it would be late, and a server that speaks first with it. Whoever has written
        // turns it on again. Multipath TCP has no such option, and sends that packet.
        let _ = socket.set_tcp_quickack(false);
    }
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// A connected UDP socket towards a backend.
#[derive(Debug)]
pub struct UdpToBackend {
    /// It never blocks.
    pub socket: std::net::UdpSocket,
    /// Whose address the backend sees.
    pub rung: Rung,
    /// The endpoint is this flow's until this is dropped; keep it as long as the socket.
    pub claim: Option<Claim>,
}

/// As [`connect_tcp`], for UDP. `endpoints` is the process's one list of the endpoints in use: the kernel lets two sockets
/// with SO_REUSEADDR have the same two ends, and gives one of them all that comes for both.
///
/// # Errors
/// When no rung that `source` allows led to a socket.
pub fn udp_from(
    client: Option<SocketAddr>,
    source: Source,
    to: SocketAddr,
    endpoints: &UdpEndpoints,
) -> Result<UdpToBackend, DialError> {
    let to = canonical(to);
    let (client, or_own) = match (source, client) {
        (Source::Own, _) | (Source::Client { .. }, None) => return own_udp(to, Why::Asked),
        (Source::Client { or_own }, Some(client)) => (canonical(client), or_own),
    };
    let fault = match usable(client, to) {
        Err(fault) => fault,
        Ok(()) => match udp_from_client(client, to, endpoints)? {
            Ok(bound) => return Ok(bound),
            Err(fault) => fault,
        },
    };
    if or_own {
        own_udp(to, Why::Fault(fault))
    } else {
        Err(DialError::Client(fault))
    }
}

fn udp_from_client(
    client: SocketAddr,
    to: SocketAddr,
    endpoints: &UdpEndpoints,
) -> Result<Result<UdpToBackend, ClientFault>, DialError> {
    for (from, rung) in rungs(client) {
        let claim = if from.port() == 0 { None } else { endpoints.claim(from, to) };
        if from.port() != 0 && claim.is_none() {
            continue;
        }
        let socket = match transparent(from, Type::DGRAM) {
            Ok(socket) => socket,
            Err(Bound::Fault(ClientFault::InUse)) => continue,
            Err(Bound::Fault(fault)) => return Ok(Err(fault)),
            Err(Bound::Socket(error)) => return Err(DialError::Socket(error)),
        };
        match socket.connect(&to.into()) {
            Ok(()) => return Ok(Ok(UdpToBackend { socket: socket.into(), rung, claim })),
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(DialError::Connect(error)),
        }
    }
    Ok(Err(ClientFault::InUse))
}

fn own_udp(to: SocketAddr, why: Why) -> Result<UdpToBackend, DialError> {
    let socket = open(to, Type::DGRAM).map_err(DialError::Socket)?;
    socket.connect(&to.into()).map_err(|error| DialError::Connect(as_of_tcp(error)))?;
    Ok(UdpToBackend { socket: socket.into(), rung: Rung::Own(why), claim: None })
}

/// No port is left for a socket that asks for none: over UDP the kernel says EAGAIN (`inet_dgram_connect` in its
/// net/ipv4/af_inet.c), over TCP that there is no address.
fn as_of_tcp(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => io::Error::from_raw_os_error(libc::EADDRNOTAVAIL),
        _ => error,
    }
}

/// Endpoints of a client to try, the best first.
fn rungs(client: SocketAddr) -> impl Iterator<Item = (SocketAddr, Rung)> {
    let exact = (client.port() != 0).then_some((client, Rung::Client));
    exact.into_iter().chain([(SocketAddr::new(client.ip(), 0), Rung::ClientAddress)])
}

/// Why a socket is not bound to a client's endpoint.
enum Bound {
    Fault(ClientFault),
    Socket(io::Error),
}

/// A socket with a client's endpoint.
fn transparent(client: SocketAddr, kind: Type) -> Result<Socket, Bound> {
    let socket = open(client, kind).map_err(Bound::Socket)?;
    let permitted = match client {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    match permitted {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Bound::Fault(ClientFault::NotPermitted))
        }
        Err(error) => return Err(Bound::Socket(error)),
    }
    if client.port() != 0 {
        socket.set_reuse_address(true).map_err(Bound::Socket)?;
    } else if kind == Type::STREAM {
        // The port is chosen when the backend is known, so that one port serves connections to many (ip(7)). Without
        // SO_REUSEADDR: the kernel must not pick a port whose tuple would be shared.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).map_err(|errno| Bound::Socket(errno.into()))?;
    }
    match socket.bind(&client.into()) {
        Ok(()) => Ok(socket),
        // EACCES: a port below ip_unprivileged_port_start without CAP_NET_BIND_SERVICE; another port will do.
        Err(error) if is_taken(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Bound::Fault(ClientFault::InUse))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(Bound::Fault(ClientFault::NoSource)),
        Err(error) => Err(Bound::Socket(error)),
    }
}

fn open(family_of: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    Socket::new(Domain::for_address(family_of), kind.nonblocking().cloexec(), Some(protocol))
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Whether packets can have this source on the way to this backend. What `bind` would take in another meaning, or
/// `connect` refuse in an unclear way, is refused here.
fn usable(client: SocketAddr, to: SocketAddr) -> Result<(), ClientFault> {
    let answerable = match client.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST),
        // A link-local address binds the socket to its link, and most backends are not there.
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || is_link_local(ip)),
    };
    if client.is_ipv4() != to.is_ipv4() {
        Err(ClientFault::OtherFamily)
    } else if !answerable || client.ip().is_loopback() && !to.ip().is_loopback() {
        Err(ClientFault::NoSource)
    } else {
        Ok(())
    }
}

/// fe80::/10 (RFC 4291 section 2.5.6).
fn is_link_local(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [first, ..] if first & 0xffc0 == 0xfe80)
}

/// IPv4 written as IPv6 (`::ffff:0:0/96`) is IPv4. A scope remains; a flow label is nobody's source.
pub(crate) fn canonical(endpoint: SocketAddr) -> SocketAddr {
    match (endpoint.ip().to_canonical(), endpoint) {
        (IpAddr::V6(ip), SocketAddr::V6(whole)) => SocketAddrV6::new(ip, whole.port(), 0, whole.scope_id()).into(),
        (ip, _) => SocketAddr::new(ip, endpoint.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_unicast_of_the_backends_family_can_be_a_source() {
        let cases = [
            ("203.0.113.7:4242", "127.0.0.1:80", Ok(())),
            ("[2001:db8::7]:4242", "[::1]:80", Ok(())),
            ("127.0.0.1:4242", "127.0.0.2:80", Ok(())),
            ("127.0.0.1:4242", "192.0.2.1:80", Err(ClientFault::NoSource)),
            ("[::1]:4242", "[2001:db8::1]:80", Err(ClientFault::NoSource)),
            ("0.0.0.0:4242", "127.0.0.1:80", Err(ClientFault::NoSource)),
            ("224.0.0.1:4242", "127.0.0.1:80", Err(ClientFault::NoSource)),
            ("255.255.255.255:4242", "127.0.0.1:80", Err(ClientFault::NoSource)),
            ("[::]:4242", "[::1]:80", Err(ClientFault::NoSource)),
            ("[fe80::1]:4242", "[::1]:80", Err(ClientFault::NoSource)),
            ("[ff02::1]:4242", "[::1]:80", Err(ClientFault::NoSource)),
            ("203.0.113.7:4242", "[::1]:80", Err(ClientFault::OtherFamily)),
            ("[2001:db8::7]:4242", "127.0.0.1:80", Err(ClientFault::OtherFamily)),
        ];
        for (client, to, expected) in cases {
            assert_eq!(usable(at(client), at(to)), expected, "{client} to {to}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4_and_scopes_remain() {
        assert_eq!(canonical(at("[::ffff:203.0.113.7]:1")), at("203.0.113.7:1"));
        assert_eq!(canonical(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 7, 3).into()).to_string(), "[::1%3]:1");
    }

    #[test]
    fn a_client_without_a_port_starts_one_rung_lower() {
        let of = |client| rungs(at(client)).collect::<Vec<_>>();
        let lower = (at("203.0.113.7:0"), Rung::ClientAddress);
        assert_eq!(of("203.0.113.7:4242"), [(at("203.0.113.7:4242"), Rung::Client), lower]);
        assert_eq!(of("203.0.113.7:0"), [lower]);
    }
}
