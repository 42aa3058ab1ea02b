//! Dials of candidates at which nobody is: whose failures speak against them.

use std::net::TcpListener;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::chain::tests::epoch;

/// A port that refuses, and that nobody else takes while what holds it is there.
fn closed() -> (SocketAddr, Socket) {
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    (held.local_addr().ok().and_then(|at| at.as_socket()).expect("an endpoint"), held)
}

/// A backend that refuses.
fn nobody_there(source: &str, at: SocketAddr) -> Epoch {
    epoch(&format!(
        "[listener.in]\ntcp = [\"127.0.0.1:1\"]\n[[rule]]\nto = \"b\"\n[backend.b]\ntargets = [\"{at}\"]\n\
         source = \"{source}\"\nconnect_timeout = \"100ms\"\neject = {{failures = 2, duration = \"1h\"}}\n"
    ))
}

async fn is_usable_after_dials_of(epoch: &Epoch, clients: &[&str]) -> bool {
    for client in clients {
        let caller = Caller {
            client: client.parse().expect("an address"),
            original_dst: "192.0.2.1:1".parse().expect("an address"),
            arrival: Arrival::Direct,
            captures: &Captures::default(),
            speaks_at_once: false,
        };
        dial(epoch, &LocalAddresses::default(), BackendId(0), caller).await.expect_err("nobody is there");
    }
    epoch.generation.candidates(BackendId(0))[0].condition.is_usable(Transport::Tcp, Instant::now().into_std())
}

#[tokio::test]
async fn a_candidate_that_sees_clients_is_not_ejected_for_one_of_them() {
    // A process that may not use their addresses fails by its own; nothing but the loopback device is used in any case.
    let (at, _held) = closed();
    let [one, same, other] = ["203.0.113.1:1", "203.0.113.1:2", "203.0.113.2:1"];
    let epoch = nobody_there("client_or_own", at);
    assert!(is_usable_after_dials_of(&epoch, &[one, same, one, same]).await, "it may be banned there");
    assert!(!is_usable_after_dials_of(&epoch, &[other]).await);
    let epoch = nobody_there("own", at);
    assert!(is_usable_after_dials_of(&epoch, &[one]).await);
    assert!(!is_usable_after_dials_of(&epoch, &[same]).await, "the proxy is whom it does not answer");
}

/// A port that answers no SYN, as its queue of connections is full (listen(2)), for as long as what fills it is there.
fn deaf(address: &str) -> (SocketAddr, Vec<Socket>) {
    let server = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    server.bind(&SocketAddr::new(address.parse().expect("an address"), 0).into()).expect("bound");
    server.listen(0).expect("listens");
    let at = server.local_addr().ok().and_then(|at| at.as_socket()).expect("an endpoint");
    let fill = || {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_nonblocking(true).expect("non-blocking");
        let _ = client.connect(&at.into()); // it begins
        client
    };
    let clients: Vec<_> = (0..10).map(|_| fill()).collect();
    (at, clients.into_iter().chain([server]).collect())
}

/// What comes of dialling these, where each may answer within this time.
async fn tried(addresses: &[SocketAddr], limit: Duration) -> Tried {
    let epoch = nobody_there("own", ([192, 0, 2, 1], 1).into());
    let backend = Backend { connect_timeout: limit, ..epoch.config().backends[0].clone() };
    let caller = Caller {
        client: "203.0.113.1:1".parse().expect("an address"),
        original_dst: "192.0.2.1:1".parse().expect("an address"),
        arrival: Arrival::Direct,
        captures: &Captures::default(),
        speaks_at_once: false,
    };
    reach(&LocalAddresses::default(), &backend, addresses, caller).await
}

fn reasons(tried: Tried) -> (CloseReason, Vec<(SocketAddr, CloseReason)>) {
    let whole = tried.outcome.map_err(|failure| failure.reason).expect_err("nobody answers");
    (whole, tried.failures.into_iter().map(|(to, failure)| (to, failure.reason)).collect())
}

/// The clock stands still but for timers: nothing that the kernel may tell sooner or later plays a part.
#[tokio::test(start_paused = true)]
async fn an_address_that_had_no_time_to_answer_has_not_failed() {
    let ((first, _one), (late, _other)) = (deaf("127.0.0.1"), deaf("127.0.0.2"));
    for (limit, failed) in [(300, vec![first]), (600, vec![first, late])] {
        let tried = tried(&[first, late], Duration::from_millis(limit)).await;
        let failed = failed.into_iter().map(|to| (to, CloseReason::BackendTimeout)).collect();
        assert_eq!(reasons(tried), (CloseReason::BackendTimeout, failed), "of {limit} ms");
    }
}

#[tokio::test]
async fn each_address_that_refuses_has_failed() {
    let ((one, _held), (other, _too)) = (closed(), closed());
    let (whole, mut failed) = reasons(tried(&[one, other], Duration::from_secs(60)).await);
    failed.sort_by_key(|(to, _)| *to != one);
    assert_eq!(failed, [one, other].map(|to| (to, CloseReason::BackendRefused)));
    assert_eq!(whole, CloseReason::BackendRefused);
}

/// Waits until the kernel has an error of the socket to tell.
fn await_error(socket: &Socket) {
    use nix::poll::{poll, PollFd, PollFlags};
    use std::os::fd::AsFd;
    // Errors are told though nobody asks (poll(2)).
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    assert_eq!(poll(&mut asked, 30_000_u16), Ok(1), "the reset comes");
}

#[test]
fn a_candidate_that_resets_before_anybody_knows_that_it_is_connected_has_refused() {
    for has_ended in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.connect(&listener.local_addr().expect("bound").into()).expect("connected");
        let (accepted, _) = listener.accept().expect("accepted");
        if has_ended {
            accepted.shutdown(std::net::Shutdown::Write).expect("ended");
        }
        socket2::SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(accepted);
        await_error(&socket);
        let error = socket.take_error().expect("asked").expect("a reset");
        let failure = failure(&DialError::Connect(error));
        assert_eq!((failure.reason, failure.is_of_candidate), (CloseReason::BackendRefused, true), "{has_ended}");
    }
}
