//! One port for several backends. The kernel gives each socket that asks for none a port of its own, whatever it leads to, and
//! has some 28,000 of them (`ip_local_port_range`, ip(7)). Once these are in use, a flow has the port of one that leads to
//! another backend: the kernel brings each its own answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::socket::{canonical, DialError, Rung, UdpToBackend, Why};
use super::udp_endpoints::{Claim, UdpEndpoints};

/// Whether no port was left for a socket that asked for none.
pub(crate) fn is_out_of_ports(error: &DialError) -> bool {
    matches!(error, DialError::Connect(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL))
}

/// Lets others have the port of a connected socket, towards other backends.
pub(crate) fn share(socket: BorrowedFd<'_>, endpoints: &UdpEndpoints) -> Option<Claim> {
    let claim = endpoints.claim(port_of(socket)?, SockRef::from(&socket).peer_addr().ok()?.as_socket()?)?;
    SockRef::from(&socket).set_reuse_address(true).ok()?;
    Some(claim)
}

/// The claim of a socket that came from another process of this proxy, if others may have its port.
pub(crate) fn shared_before(socket: BorrowedFd<'_>, endpoints: &UdpEndpoints) -> Option<Claim> {
    SockRef::from(&socket).reuse_address().ok().filter(|is_shared| *is_shared)?;
    share(socket, endpoints)
}

/// A socket by the port of another one that shares it. None: one by that port leads there already, or it cannot be had.
pub(crate) fn udp_by_port_of(lender: BorrowedFd<'_>, to: SocketAddr, endpoints: &UdpEndpoints) -> Option<UdpToBackend> {
    let (from, to) = (port_of(lender)?, canonical(to));
    if from.is_ipv4() != to.is_ipv4() {
        return None;
    }
    let claim = Some(endpoints.claim(from, to)?);
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(from), kind, Some(Protocol::UDP)).ok()?;
    socket.set_reuse_address(true).ok()?;
    socket.bind(&from.into()).ok()?;
    socket.connect(&to.into()).ok()?;
    Some(UdpToBackend { socket: socket.into(), rung: Rung::Own(Why::Asked), claim })
}

/// Its port, at no address: by which one it leaves is for the way to the backend to say.
fn port_of(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    let own = SockRef::from(&socket).local_addr().ok()?.as_socket()?;
    let any = if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Some(SocketAddr::new(any, own.port()))
}
