//! Dials of candidates at which nobody is: whose failures speak against them.

use std::net::TcpListener;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::chain::tests::epoch;

/// A backend at whose port nobody listens.
fn nobody_there(source: &str) -> Epoch {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a port").port();
    epoch(&format!(
        "[listener.in]\ntcp = [\"127.0.0.1:1\"]\n[[rule]]\nto = \"b\"\n[backend.b]\ntargets = [\"127.0.0.1:{port}\"]\n\
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
    let [one, same, other] = ["203.0.113.1:1", "203.0.113.1:2", "203.0.113.2:1"];
    let epoch = nobody_there("client_or_own");
    assert!(is_usable_after_dials_of(&epoch, &[one, same, one, same]).await, "it may be banned there");
    assert!(!is_usable_after_dials_of(&epoch, &[other]).await);
    let epoch = nobody_there("own");
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

#[tokio::test(start_paused = true)]
async fn an_address_that_had_no_time_to_answer_has_not_failed() {
    let ((first, _one), (late, _other)) = (deaf("127.0.0.1"), deaf("127.0.0.2"));
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a port");
    let epoch = nobody_there("own");
    let caller = Caller {
        client: "203.0.113.1:1".parse().expect("an address"),
        original_dst: "192.0.2.1:1".parse().expect("an address"),
        arrival: Arrival::Direct,
        captures: &Captures::default(),
        speaks_at_once: false,
    };
    for (limit, failed) in [(300, vec![closed, first]), (600, vec![closed, first, late])] {
        let backend = Backend { connect_timeout: Duration::from_millis(limit), ..epoch.config().backends[0].clone() };
        let tried = reach(&LocalAddresses::default(), &backend, &[closed, first, late], caller).await;
        assert_eq!(tried.outcome.map_err(|failure| failure.reason).err(), Some(CloseReason::BackendTimeout));
        let noted: Vec<_> = tried.failures.iter().map(|(to, _)| *to).collect();
        assert_eq!(noted, failed, "of {limit} ms");
    }
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
        let error = socket.take_error().expect("asked").expect("a reset");
        let failure = failure(&DialError::Connect(error));
        assert_eq!((failure.reason, failure.is_of_candidate), (CloseReason::BackendRefused, true), "{has_ended}");
    }
}
