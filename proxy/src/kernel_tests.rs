//! What the calls of [`super`] tell, by real sockets on loopback.

use std::net::UdpSocket;
use std::os::fd::AsFd;

use super::*;

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("a socket");
    receive_details(socket.as_fd(), address.starts_with('['), false).expect("the kernel has these");
    socket
}

#[test]
fn a_batch_tells_sender_and_destination_of_each_datagram() {
    for (wildcard, own) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1")] {
        let receiver = socket(wildcard);
        let own: IpAddr = own.parse().expect("an address");
        let to = SocketAddr::new(own, receiver.local_addr().expect("bound").port());
        let sender = UdpSocket::bind((own, 0)).expect("a socket");
        sender.send_to(b"one", to).expect("sent");
        sender.send_to(b"", to).expect("sent");
        let mut batch = Batch::new();
        assert_eq!(batch.receive(receiver.as_fd()).expect("both are here"), 2);
        let seen: Vec<_> = batch.messages().collect();
        assert_eq!(seen.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), [b"one".as_slice(), b""]);
        for (message, _) in seen {
            assert_eq!(message.peer, sender.local_addr().ok());
            assert_eq!(message.destination, Some(own));
        }
        let nothing = batch.receive(receiver.as_fd()).expect_err("no more");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(batch.messages().count(), 0);
    }
}

#[test]
fn what_is_sent_in_segments_arrives_joined_or_cut_but_whole() {
    let receiver = socket("127.0.0.1:0");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let route = Route { to: receiver.local_addr().ok(), segment: Some(100), ..Route::default() };
    let bytes: Vec<u8> = (0..=250).collect();
    let pieces = [IoSlice::new(&bytes[..70]), IoSlice::new(&bytes[70..])];
    assert_eq!(send(sender.as_fd(), &pieces, route).expect("sent"), 251);
    let mut batch = Batch::new();
    batch.receive(receiver.as_fd()).expect("all is here");
    let datagrams: Vec<_> = batch.messages().flat_map(|(message, all)| all.chunks(message.segment.max(1))).collect();
    assert_eq!(datagrams, [&bytes[..100], &bytes[100..200], &bytes[200..]]);
}

#[test]
fn a_reply_leaves_from_the_address_that_it_is_told_to() {
    for (wildcard, from) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
        let sender = socket(wildcard);
        let from: IpAddr = from.parse().expect("an address");
        let loopback = if from.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let receiver = UdpSocket::bind(loopback).expect("a socket");
        let route = Route { to: receiver.local_addr().ok(), from: Some(from), segment: Some(2) };
        send(sender.as_fd(), &[IoSlice::new(b"reply")], route).expect("sent");
        let mut buffer = [0; 9];
        let (count, peer) = receiver.recv_from(&mut buffer).expect("received");
        assert_eq!((&buffer[..count], peer.ip()), (b"re".as_slice(), from));
        assert_eq!(Some(peer.port()), sender.local_addr().ok().map(|address| address.port()));
    }
}

#[test]
fn a_socket_is_told_whether_it_may_cut_datagrams() {
    for (address, level, option) in [
        ("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    ] {
        let socket = UdpSocket::bind(address).expect("a socket");
        let is_ipv6 = address.starts_with('[');
        for (allowed, expected) in [(false, libc::IP_PMTUDISC_PROBE), (true, libc::IP_PMTUDISC_WANT)] {
            allow_fragments(socket.as_fd(), is_ipv6, allowed).expect("an option of all kernels");
            let (mut value, mut length) = (0, size_of::<libc::c_int>() as libc::socklen_t);
            // SAFETY: both point to what outlives the call, and the length is that of the value.
            let answer = unsafe {
                libc::getsockopt(socket.as_raw_fd(), level, option, ptr::addr_of_mut!(value).cast(), &mut length)
            };
            assert_eq!((answer, value), (0, expected), "{address} {allowed}");
        }
    }
}
