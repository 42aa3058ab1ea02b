//! One port for several backends. The kernel gives each socket that asks for none a port of its own, whatever it leads to, and
//! has some 28,000 of them (`ip_local_port_range`, ip(7)). Once these are in use, a flow has the port of one that leads to
//! another backend: the kernel brings each its own answers.
//!
//! By SO_REUSEPORT, which lets nobody in but sockets of the same user that have it too (socket(7)). With SO_REUSEADDR any user of
//! this host could have the port as well, towards the same backend, and be given what that says. The kernel deals datagrams out
//! among such sockets only where none of them is connected to who sent them (`compute_score` in its net/ipv4/udp.c).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use super::socket::{canonical, DialError, Rung, UdpToBackend, Why};
use super::udp_endpoints::{Claim, UdpEndpoints};

/// Takes no byte of a datagram: it is dropped (`BPF_RET | BPF_K`, the kernel's networking/filter.rst).
const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// What comes of asking for a port: a socket; none by any port; or another one may do.
pub(crate) type Lent<T = UdpToBackend> = ControlFlow<Option<T>>;

/// Whether no port was left for a socket that asked for none.
pub(crate) fn is_out_of_ports(error: &DialError) -> bool {
    matches!(error, DialError::Connect(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL))
}

/// Whether one port can lead to both.
pub(crate) fn may_share(one: SocketAddr, other: SocketAddr) -> bool {
    let (one, other) = (canonical(one), canonical(other));
    one != other && one.is_ipv4() == other.is_ipv4()
}

/// A socket by the port of another one, which others may have from now on; that is in `claimed`.
pub(crate) fn lend(
    lender: BorrowedFd<'_>,
    claimed: &mut Option<Box<Claim>>,
    to: SocketAddr,
    endpoints: &UdpEndpoints,
) -> Lent {
    let to = canonical(to);
    let Some(bound) = share_towards(lender, claimed, to, endpoints) else { return ControlFlow::Continue(()) };
    // What is wrong with the way there is wrong by any port.
    ControlFlow::Break(bound.connected(to))
}

fn share_towards(
    lender: BorrowedFd<'_>,
    claimed: &mut Option<Box<Claim>>,
    to: SocketAddr,
    endpoints: &UdpEndpoints,
) -> Option<Deaf> {
    // Where all of a port is taken, all of its flows are asked: no call of the kernel for those that share it.
    let from = claimed.as_ref().map_or_else(|| port_of(lender), |claim| Some(claim.from()))?;
    // First, or the lender would share its port with nobody.
    let claim = endpoints.claim(from, to)?;
    if claimed.is_none() {
        let own = claim_shared(lender, endpoints)?;
        SockRef::from(&lender).set_reuse_port(true).ok()?;
        *claimed = Some(Box::new(own));
    }
    Deaf::at(from, claim)
}

/// Whether others may have the port of a socket.
pub(crate) fn is_shared(socket: BorrowedFd<'_>) -> bool {
    SockRef::from(&socket).reuse_port().is_ok_and(|is_shared| is_shared)
}

/// The claim of a socket that shares its port.
pub(crate) fn claim_shared(socket: BorrowedFd<'_>, endpoints: &UdpEndpoints) -> Option<Claim> {
    endpoints.claim(port_of(socket)?, SockRef::from(&socket).peer_addr().ok()?.as_socket()?)
}

/// A socket with a port, but without a backend. What comes for it belongs to others, for example to a flow of that port that has
/// ended, and it must not take that for its own backend's: it hears nothing.
struct Deaf {
    socket: Socket,
    claim: Claim,
}

impl Deaf {
    fn at(from: SocketAddr, claim: Claim) -> Option<Self> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(from), kind, Some(Protocol::UDP)).ok()?;
        socket.attach_filter(&[NOTHING]).ok()?;
        socket.set_reuse_port(true).ok()?;
        socket.bind(&from.into()).ok()?;
        Some(Self { socket, claim })
    }

    /// It hears its backend.
    fn connected(self, to: SocketAddr) -> Option<UdpToBackend> {
        let Self { socket, claim } = self;
        socket.connect(&to.into()).ok()?;
        socket.detach_filter().ok()?;
        Some(UdpToBackend { socket: socket.into(), rung: Rung::Own(Why::Asked), claim: Some(claim) })
    }
}

/// Its port, at no address: by which one it leaves is for the way to the backend to say.
fn port_of(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    let own = SockRef::from(&socket).local_addr().ok()?.as_socket()?;
    let any = if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Some(SocketAddr::new(any, own.port()))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn backend(host: &str) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        let at = socket.local_addr().unwrap();
        (socket, at)
    }

    /// A socket whose port the kernel chose, as flows have theirs.
    fn lender(to: SocketAddr) -> UdpSocket {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None).unwrap();
        socket.connect(&to.into()).unwrap();
        socket.into()
    }

    fn heard(socket: &UdpSocket) -> Vec<u8> {
        let mut bytes = [0; 16];
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let count = socket.recv(&mut bytes).unwrap();
        bytes[..count].to_vec()
    }

    fn hears_nothing(socket: &UdpSocket) -> bool {
        socket.set_nonblocking(true).unwrap();
        socket.recv(&mut [0; 16]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    #[test]
    fn each_of_many_sockets_at_one_port_hears_its_own_backend_alone() {
        for host in ["127.0.0.1", "::1"] {
            let backends: Vec<_> = (0..16).map(|_| backend(host)).collect();
            let (endpoints, mut claimed) = (UdpEndpoints::default(), None);
            let first = lender(backends[0].1);
            assert!(!is_shared(first.as_fd()));
            let mut flows = Vec::new();
            for (_, to) in &backends[1..] {
                let lent = lend(first.as_fd(), &mut claimed, *to, &endpoints);
                let ControlFlow::Break(Some(UdpToBackend { socket, claim, .. })) = lent else {
                    panic!("{host}: {lent:?}")
                };
                assert!(is_shared(socket.as_fd()) && is_shared(first.as_fd()));
                flows.push((socket, claim));
            }
            let sockets: Vec<_> = std::iter::once(&first).chain(flows.iter().map(|(socket, _)| socket)).collect();
            let ours = first.local_addr().unwrap();
            for round in 0..4 {
                for (number, (backend, _)) in backends.iter().enumerate() {
                    backend.send_to(&[round, u8::try_from(number).unwrap()], ours).unwrap();
                }
                for (number, socket) in sockets.iter().enumerate() {
                    assert_eq!(socket.local_addr().unwrap(), ours);
                    assert_eq!(heard(socket), [round, u8::try_from(number).unwrap()]);
                    assert!(hears_nothing(socket));
                }
            }
        }
    }

    #[test]
    fn nobody_can_have_a_shared_port_by_reusing_its_address() {
        let ((_one, one_at), (_two, two_at)) = (backend("127.0.0.1"), backend("127.0.0.1"));
        let (endpoints, mut claimed) = (UdpEndpoints::default(), None);
        let first = lender(one_at);
        let lent = lend(first.as_fd(), &mut claimed, two_at, &endpoints);
        assert!(matches!(lent, ControlFlow::Break(Some(_))));
        let from = port_of(first.as_fd()).unwrap();
        for at in [from, first.local_addr().unwrap()] {
            let thief = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            thief.set_reuse_address(true).unwrap();
            assert_eq!(thief.bind(&at.into()).unwrap_err().kind(), ErrorKind::AddrInUse, "{at}");
        }
    }

    #[test]
    fn what_comes_before_the_backend_is_known_is_not_taken_for_its_answer() {
        for host in ["127.0.0.1", "::1"] {
            let ((one, one_at), (two, two_at), (stranger, _)) = (backend(host), backend(host), backend(host));
            let (endpoints, mut claimed) = (UdpEndpoints::default(), None);
            let first = lender(one_at);
            let ours = first.local_addr().unwrap();
            let deaf = share_towards(first.as_fd(), &mut claimed, two_at, &endpoints).unwrap();
            for socket in [&one, &two, &stranger] {
                socket.send_to(b"early", ours).unwrap();
            }
            let lent = deaf.connected(two_at).unwrap();
            assert!(hears_nothing(&lent.socket));
            assert_eq!(heard(&first), b"early");
            two.send_to(b"its own", ours).unwrap();
            assert_eq!(heard(&lent.socket), b"its own");
        }
    }

    #[test]
    fn who_can_lend_nothing_is_not_marked() {
        let (_one, at) = backend("127.0.0.1");
        let (endpoints, mut claimed) = (UdpEndpoints::default(), None);
        let first = lender(at);
        let _taken = endpoints.claim(port_of(first.as_fd()).unwrap(), "127.0.0.2:53".parse().unwrap()).unwrap();
        let lent = lend(first.as_fd(), &mut claimed, "127.0.0.2:53".parse().unwrap(), &endpoints);
        assert!(matches!(lent, ControlFlow::Continue(())));
        assert!(claimed.is_none() && !is_shared(first.as_fd()));
    }

    #[test]
    fn a_way_that_no_port_leads_ends_the_asking() {
        let (_one, at) = backend("127.0.0.1");
        let (endpoints, mut claimed) = (UdpEndpoints::default(), None);
        let first = lender(at);
        // Needs SO_BROADCAST (udp(7)).
        let lent = lend(first.as_fd(), &mut claimed, "255.255.255.255:53".parse().unwrap(), &endpoints);
        assert!(matches!(lent, ControlFlow::Break(None)), "{lent:?}");
    }

    #[test]
    fn one_port_leads_to_others_of_the_same_family() {
        let cases = [
            ("192.0.2.1:53", "192.0.2.1:54", true),
            ("192.0.2.1:53", "192.0.2.1:53", false),
            ("192.0.2.1:53", "[::ffff:192.0.2.1]:53", false),
            ("192.0.2.1:53", "[::ffff:192.0.2.2]:53", true),
            ("192.0.2.1:53", "[2001:db8::1]:53", false),
            ("[2001:db8::1]:53", "[2001:db8::2]:53", true),
        ];
        for (one, other, expected) in cases {
            assert_eq!(may_share(one.parse().unwrap(), other.parse().unwrap()), expected, "{one} {other}");
        }
    }
}
