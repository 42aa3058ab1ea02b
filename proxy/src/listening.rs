//! The sockets at which clients arrive: one for each worker and endpoint, so that the kernel spreads clients over workers
//! (`SO_REUSEPORT`, socket(7)). They outlive configurations: a reload that keeps an endpoint keeps its sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::model::{Arrival, Listener, Timeouts, Transport};
use crate::{kernel, mend, multipath};

/// Connections that wait to be accepted, at most; the kernel's own bound is `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Bytes that a UDP socket may hold for a worker that is busy; the kernel's own bound is `net.core.rmem_max`.
const UDP_BUFFER: usize = 4 * 1024 * 1024;

/// How long a handshake may take that has begun: a long way there and back, or within this host.
const FAR_HANDSHAKE: Duration = Duration::from_secs(1);
const NEAR_HANDSHAKE: Duration = Duration::from_millis(20);

/// An endpoint of a listener. Two configurations that name the same one mean the same sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    pub(crate) is_tproxy: bool,
    /// Its sockets are of Multipath TCP, or were to be where the kernel makes none.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_multipath: bool,
}

/// Left out, an endpoint is what an older process says and understands.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's way
fn is_false(value: &bool) -> bool {
    !value
}

impl Endpoint {
    pub(crate) fn new(transport: Transport, address: SocketAddr, arrival: Arrival) -> Self {
        Self { transport, address, is_tproxy: arrival == Arrival::Tproxy, is_multipath: false }
    }

    /// One of a listener.
    pub(crate) fn of(listener: &Listener, transport: Transport, address: SocketAddr) -> Self {
        let is_multipath = listener.mptcp && transport == Transport::Tcp;
        Self { is_multipath, ..Self::new(transport, address, listener.arrival) }
    }

    /// Whether one socket cannot be bound here while another is there, unless both share.
    fn overlaps(&self, other: &Self) -> bool {
        let (one, another) = (self.address, other.address);
        let is_either_any = one.ip().is_unspecified() || another.ip().is_unspecified();
        let is_same_address = one.ip() == another.ip() || (one.is_ipv4() == another.is_ipv4() && is_either_any);
        self.transport == other.transport && one.port() == another.port() && is_same_address
    }
}

/// Why an endpoint cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("{transport} {address}: {cause}{}", mend::of_listener(cause))]
pub(crate) struct ListenError {
    pub(crate) transport: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) cause: io::Error,
}

/// An endpoint and its sockets: one for each worker, or as many as an earlier process of this proxy had workers. The control
/// thread keeps these; workers get copies.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) endpoint: Endpoint,
    pub(crate) sockets: Vec<OwnedFd>,
}

impl Bound {
    /// Has the kernel refuse whoever begins to connect, and let in those whose handshake is under way, whom it resets when the
    /// socket is closed: a listener is looked up for SYN segments alone. Between the last accept and the end of the socket nobody
    /// comes then. How long a handshake may be under way; none, where the kernel does not let it, or nobody connects.
    pub(crate) fn refuse_newcomers(&self) -> Option<Duration> {
        let Endpoint { transport, address, is_tproxy, .. } = self.endpoint;
        let is_reached = is_tproxy || !address.ip().is_loopback();
        let refuses = |socket: &OwnedFd| kernel::bind_to_no_device(socket.as_fd()).is_ok();
        let are_refused = transport == Transport::Tcp && self.sockets.iter().all(refuses);
        are_refused.then_some(if is_reached { FAR_HANDSHAKE } else { NEAR_HANDSHAKE })
    }
}

/// Sockets of an endpoint that an earlier process had, with further ones where that had fewer workers. Of UDP there are no
/// further ones: the kernel would spread the datagrams of flows anew. Where it had more workers, some serve several.
///
/// # Errors
///
/// As [`bind_all`].
pub(crate) fn widen(
    endpoint: Endpoint,
    mut sockets: Vec<OwnedFd>,
    workers: usize,
    timeouts: &Timeouts,
) -> Result<Bound, ListenError> {
    let missing = workers.saturating_sub(sockets.len());
    if let Some(first) = sockets.first().filter(|_| endpoint.transport == Transport::Tcp && missing > 0) {
        let own = SockRef::from(first).local_addr().map_err(|cause| fault(endpoint, cause))?;
        let address = own.as_socket().unwrap_or(endpoint.address);
        let further =
            share(Endpoint { address, ..endpoint }, missing, timeouts).map_err(|cause| fault(endpoint, cause))?;
        sockets.extend(further);
    }
    Ok(Bound { endpoint, sockets })
}

/// Binds endpoints: all of them, or none. `held` are those that this process has.
///
/// # Errors
///
/// As [`bind`], of the first that fails.
pub(crate) fn bind_all(
    endpoints: &[Endpoint],
    held: &[Endpoint],
    workers: usize,
    timeouts: &Timeouts,
) -> Result<Vec<Bound>, ListenError> {
    let bound = |endpoint: &Endpoint| {
        let is_ours = held.iter().any(|own| own.overlaps(endpoint));
        Ok(Bound { endpoint: *endpoint, sockets: bind(*endpoint, is_ours, workers, timeouts)? })
    };
    endpoints.iter().map(bound).collect()
}

/// Binds an endpoint once for each worker, TCP sockets listening. Nothing is left bound when one of them fails.
///
/// # Errors
///
/// What the kernel said, with the endpoint; also when anybody else is bound there, even with `SO_REUSEPORT`.
fn bind(endpoint: Endpoint, is_ours: bool, workers: usize, timeouts: &Timeouts) -> Result<Vec<OwnedFd>, ListenError> {
    let fault = |cause| fault(endpoint, cause);
    // The kernel would let a second proxy of the same user share the port in silence. Beside a socket of our own nobody else's
    // can be, and this one would be refused as well.
    let probe = bound(endpoint, is_ours).map_err(fault)?;
    // Port 0 is one port for all workers.
    let port = probe.local_addr().map_err(fault)?.as_socket().map_or(endpoint.address.port(), |own| own.port());
    drop(probe);
    let endpoint = Endpoint { address: SocketAddr::new(endpoint.address.ip(), port), ..endpoint };
    share(endpoint, workers, timeouts).map_err(fault)
}

fn fault(endpoint: Endpoint, cause: io::Error) -> ListenError {
    let transport = match endpoint.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    ListenError { transport, address: endpoint.address, cause }
}

fn share(endpoint: Endpoint, count: usize, timeouts: &Timeouts) -> io::Result<Vec<OwnedFd>> {
    let listening = |_| {
        let socket = bound(endpoint, true)?;
        if endpoint.transport == Transport::Tcp {
            prepare_tcp(&socket, timeouts)?;
            socket.listen(BACKLOG)?;
        }
        Ok(socket.into())
    };
    (0..count).map(listening).collect()
}

fn bound(endpoint: Endpoint, is_shared: bool) -> io::Result<Socket> {
    let socket = match endpoint.transport {
        Transport::Tcp => multipath::stream(endpoint.address, endpoint.is_multipath)?,
        Transport::Udp => {
            let kind = Type::DGRAM.nonblocking().cloexec();
            Socket::new(Domain::for_address(endpoint.address), kind, Some(Protocol::UDP))?
        }
    };
    if endpoint.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if endpoint.is_tproxy {
        match endpoint.address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    match endpoint.transport {
        Transport::Tcp => socket.set_reuse_address(true)?,
        Transport::Udp => socket.set_recv_buffer_size(UDP_BUFFER)?,
    }
    socket.set_reuse_port(is_shared)?;
    socket.bind(&endpoint.address.into())?;
    Ok(socket)
}

/// What accepted connections take over from the socket that they were accepted at, which spares calls for each.
fn prepare_tcp(socket: &Socket, timeouts: &Timeouts) -> io::Result<()> {
    as_far_as_known(socket.set_tcp_nodelay(true))?;
    keep_alive(&SockRef::from(socket), timeouts)
}

/// The same for one that was accepted at a socket of Multipath TCP, which may not have had it to pass on.
pub(crate) fn prepare_accepted(stream: &SockRef<'_>, timeouts: &Timeouts) {
    // A kernel that refuses it is no reason to refuse a client.
    let _ = stream.set_tcp_nodelay(true);
    let _ = keep_alive(stream, timeouts);
}

/// Multipath TCP has fewer options than TCP, and on older kernels still fewer: TCP_NODELAY from Linux 5.17, those of keepalive
/// from 6.10, TCP_USER_TIMEOUT nowhere, for what one way does not carry another one may.
fn as_far_as_known(set: io::Result<()>) -> io::Result<()> {
    match set {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP)) => Ok(()),
        done => done,
    }
}

/// Probes that an end may leave without an answer. They go out each quarter of the idle time, so an end that is gone is found
/// after twice that time; the kernel's own figures would make it eleven minutes more (tcp(7)).
const PROBES: u32 = 4;

/// Lets the kernel find out that the other end is gone.
pub(crate) fn keep_alive(socket: &SockRef<'_>, timeouts: &Timeouts) -> io::Result<()> {
    let interval = (timeouts.keepalive / PROBES).max(Duration::from_secs(1));
    let probing = TcpKeepalive::new().with_time(timeouts.keepalive).with_interval(interval).with_retries(PROBES);
    as_far_as_known(socket.set_tcp_keepalive(&probing))?;
    as_far_as_known(socket.set_tcp_user_timeout(timeouts.user_timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(transport: Transport, address: &str, port: u16) -> Endpoint {
        Endpoint::new(transport, SocketAddr::new(address.parse().expect("an address"), port), Arrival::Direct)
    }

    #[test]
    fn an_endpoint_of_one_way_is_written_as_processes_write_it_that_know_no_other() {
        let plain = endpoint(Transport::Tcp, "192.0.2.1", 443);
        let older = r#"{"transport":"tcp","address":"192.0.2.1:443","is_tproxy":false}"#;
        assert_eq!(serde_json::to_string(&plain).expect("JSON"), older);
        assert_eq!(serde_json::from_str::<Endpoint>(older).expect("an endpoint"), plain);
        let several = Endpoint { is_multipath: true, ..plain };
        let written = serde_json::to_string(&several).expect("JSON");
        assert_eq!(serde_json::from_str::<Endpoint>(&written).expect("an endpoint"), several);
    }

    fn timeouts() -> Timeouts {
        let second = Duration::from_secs(1);
        Timeouts {
            header: second,
            preface: second,
            silence: second,
            idle: second,
            half_closed: second,
            udp_one_way: second,
            udp_idle: second,
            drain: second,
            drain_delay: second,
            handed_over: second,
            keepalive: second,
            user_timeout: None,
        }
    }

    #[test]
    fn a_socket_that_knows_no_option_of_tcp_is_listened_at_all_the_same() {
        // Those of Unix have none, as those of Multipath TCP on older kernels.
        let (socket, _other) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a pair");
        assert_eq!(socket.set_tcp_nodelay(true).map_err(|error| error.raw_os_error()), Err(Some(libc::EOPNOTSUPP)));
        prepare_tcp(&socket, &Timeouts { user_timeout: Some(Duration::from_secs(1)), ..timeouts() }).expect("prepared");
        let closed = as_far_as_known(Err(io::Error::from_raw_os_error(libc::EINVAL)));
        assert!(closed.is_err(), "all else counts");
    }

    #[test]
    fn what_a_listener_could_not_pass_on_is_set_where_clients_are_accepted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let (accepted, _) = listener.accept().expect("accepted");
        let (socket, second) = (SockRef::from(&accepted), Duration::from_secs(1));
        let seen = || {
            let kept = (socket.keepalive().ok(), socket.tcp_keepalive_time().ok(), socket.tcp_keepalive_retries().ok());
            (socket.tcp_nodelay().ok(), kept, socket.tcp_user_timeout().ok().flatten())
        };
        assert_eq!((seen().0, seen().1 .0), (Some(false), Some(false)));
        prepare_accepted(&socket, &Timeouts { user_timeout: Some(2 * second), ..timeouts() });
        assert_eq!(seen(), (Some(true), (Some(true), Some(second), Some(PROBES)), Some(2 * second)));
    }

    #[test]
    fn an_endpoint_within_one_of_our_own_can_be_had_and_one_of_another_process_cannot() {
        let timeouts = timeouts();
        for transport in [Transport::Tcp, Transport::Udp] {
            // Below those that the kernel gives to other tests, on any address (ip_local_port_range of ip(7)).
            let free = |port: &u16| bound(endpoint(transport, "0.0.0.0", *port), false).is_ok();
            let first = 10_000 + u16::try_from(std::process::id() % 8_000).expect("small");
            let port = (first..20_000).find(free).expect("a free port");
            let wide = [endpoint(transport, "0.0.0.0", port)];
            let narrow = [endpoint(transport, "127.0.0.1", port)];
            for (first, second) in [(wide, narrow), (narrow, wide)] {
                let held = bind_all(&first, &[], 2, &timeouts).expect("free");
                assert!(bind_all(&second, &[], 2, &timeouts).is_err(), "{second:?} is taken");
                let other_port = [endpoint(transport, "0.0.0.0", port.wrapping_add(1))];
                assert!(bind_all(&second, &other_port, 2, &timeouts).is_err(), "{second:?} is not ours");
                bind_all(&second, &first, 2, &timeouts).expect("ours");
                drop(held);
            }
        }
    }

    #[test]
    fn whoever_comes_is_refused_and_whoever_waits_stays() {
        use std::io::Read;
        use std::net::TcpStream;

        for is_multipath in [false, true] {
            let endpoint = Endpoint { is_multipath, ..endpoint(Transport::Tcp, "127.0.0.1", 0) };
            let first = bound(endpoint, true).expect("free");
            let address = first.local_addr().expect("bound").as_socket().expect("an address");
            let second = bound(Endpoint { address, ..endpoint }, true).expect("shared");
            [&first, &second].iter().for_each(|socket| socket.listen(BACKLOG).expect("it listens"));
            let bound = Bound { endpoint, sockets: vec![first.into(), second.into()] };
            let early: Vec<_> = (0..8).map(|_| TcpStream::connect(address).expect("let in")).collect();
            let refuses = bound.refuse_newcomers();
            if is_multipath && refuses.is_none() {
                continue; // an older kernel, where they are closed as they are
            }
            assert_eq!(refuses, Some(NEAR_HANDSHAKE));
            let refused = TcpStream::connect(address).expect_err("refused");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let waiting = |socket| std::iter::from_fn(|| SockRef::from(socket).accept().ok()).collect::<Vec<_>>();
            let accepted: Vec<_> = bound.sockets.iter().flat_map(waiting).collect();
            assert_eq!(accepted.len(), early.len());
            accepted.iter().for_each(|(stream, _)| assert_eq!(stream.send(b"x").expect("sent"), 1));
            early.into_iter().for_each(|mut stream| stream.read_exact(&mut [0]).expect("connected"));
        }
    }
}
