//! New endpoints for a packet: addresses, ports and every checksum that covers them, in place.

use std::net::SocketAddrV4;

use crate::checksum::{put, Change};
use crate::packet::{word, Flow, Layout, Packet, Protocol, Signal};

const IP_SUM: usize = 10;
const IP_SOURCE: usize = 12;
const IP_DESTINATION: usize = 16;
const TCP_SUM: usize = 16;
const UDP_SUM: usize = 6;
const ICMP_SUM: usize = 2;
const ICMP_IDENTIFIER: usize = 4;

/// The ends to be replaced. Those of the outer header of an ICMP error count by their address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The sender.
    pub source: Option<SocketAddrV4>,
    /// The receiver.
    pub destination: Option<SocketAddrV4>,
    /// The sender of the packet that an ICMP error is about.
    pub about_source: Option<SocketAddrV4>,
    /// Its receiver.
    pub about_destination: Option<SocketAddrV4>,
}

/// Applies it to the bytes that `packet` and `layout` were read from.
pub fn apply(bytes: &mut [u8], packet: &Packet, layout: &Layout, rewrite: &Rewrite) {
    match packet {
        Packet::Flow { flow, signal } => {
            let asks = !matches!(signal, Signal::Answer);
            let ends = Ends { ip: 0, transport: layout.transport, protocol: Some(flow.protocol), asks };
            ends.replace(bytes, rewrite.source, rewrite.destination);
        }
        Packet::Error { about, .. } => {
            if let Some((ip, transport)) = layout.inner {
                let ends = Ends { ip, transport, protocol: Some(about.protocol), asks: asks(about) };
                let inside = ends.replace(bytes, rewrite.about_source, rewrite.about_destination);
                fix(bytes, layout.transport + ICMP_SUM, inside);
            }
            let outer = Ends { ip: 0, transport: layout.transport, protocol: None, asks: true };
            outer.replace(bytes, rewrite.source, rewrite.destination);
        }
        Packet::Other { .. } => {}
    }
}

/// Whether the inner packet of an error is a query rather than an answer: its sender has the identifier.
fn asks(about: &Flow) -> bool {
    about.source.port() != 0 || about.destination.port() == 0
}

/// Where the fields of one pair of ends are.
struct Ends {
    ip: usize,
    transport: usize,
    protocol: Option<Protocol>,
    asks: bool,
}

impl Ends {
    /// Returns what changed in all, its own checksums included.
    fn replace(&self, bytes: &mut [u8], source: Option<SocketAddrV4>, destination: Option<SocketAddrV4>) -> Change {
        let mut addresses = Change::default();
        let mut ports = Change::default();
        for (end, field, is_source) in [(source, IP_SOURCE, true), (destination, IP_DESTINATION, false)] {
            let Some(end) = end else { continue };
            let [a, b, c, d] = end.ip().octets();
            addresses = addresses.and(put(bytes, self.ip + field, u16::from_be_bytes([a, b]))).and(put(
                bytes,
                self.ip + field + 2,
                u16::from_be_bytes([c, d]),
            ));
            if let Some(at) = self.port_field(is_source) {
                ports = ports.and(put(bytes, at, end.port()));
            }
        }
        let header_sum = fix(bytes, self.ip + IP_SUM, addresses);
        let transport_sum = match self.protocol {
            Some(Protocol::Tcp) => fix(bytes, self.transport + TCP_SUM, addresses.and(ports)),
            Some(Protocol::Udp) => fix_udp(bytes, self.transport + UDP_SUM, addresses.and(ports)),
            Some(Protocol::Icmp) => fix(bytes, self.transport + ICMP_SUM, ports),
            None => Change::default(),
        };
        addresses.and(ports).and(header_sum).and(transport_sum)
    }

    fn port_field(&self, is_source: bool) -> Option<usize> {
        match self.protocol? {
            Protocol::Tcp | Protocol::Udp => Some(self.transport + if is_source { 0 } else { 2 }),
            Protocol::Icmp => (is_source == self.asks).then_some(self.transport + ICMP_IDENTIFIER),
        }
    }
}

/// Nothing where the field is beyond the end: an ICMP error quotes a packet's first bytes only.
fn fix(bytes: &mut [u8], at: usize, change: Change) -> Change {
    match word(bytes, at) {
        Some(old) => put(bytes, at, change.applied_to(old)),
        None => Change::default(),
    }
}

/// Zero means that there is none (RFC 768), so none stays none and a sum of zero is written as all ones.
fn fix_udp(bytes: &mut [u8], at: usize, change: Change) -> Change {
    match word(bytes, at) {
        None | Some(0) => Change::default(),
        Some(old) => match change.applied_to(old) {
            0 => put(bytes, at, 0xffff),
            sum => put(bytes, at, sum),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;
    use crate::samples::{echo, endpoint, icmp_error, sums_are_right, tcp, udp, ACK};
    use proptest::prelude::*;

    fn rewritten(bytes: &[u8], rewrite: &Rewrite) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let (packet, layout) = parse(&bytes).unwrap();
        apply(&mut bytes, &packet, &layout, rewrite);
        bytes
    }

    #[test]
    fn what_is_written_is_what_a_sender_would_have_written() {
        let rewrite = Rewrite {
            source: Some(endpoint("198.51.100.1:9")),
            destination: Some(endpoint("203.0.113.5:6")),
            ..Rewrite::default()
        };
        let datagram = rewritten(&udp("10.0.0.1:1", "10.0.0.2:2", b"odd"), &rewrite);
        assert_eq!(datagram, udp("198.51.100.1:9", "203.0.113.5:6", b"odd"));
        let segment = rewritten(&tcp("10.0.0.1:1", "10.0.0.2:2", ACK), &rewrite);
        assert_eq!(segment, tcp("198.51.100.1:9", "203.0.113.5:6", ACK));
        let request = rewritten(&echo(8, "10.0.0.1", "10.0.0.2", 77), &rewrite);
        assert_eq!(request, echo(8, "198.51.100.1", "203.0.113.5", 9));
        let reply = rewritten(&echo(0, "10.0.0.1", "10.0.0.2", 77), &rewrite);
        assert_eq!(reply, echo(0, "198.51.100.1", "203.0.113.5", 6));
    }

    #[test]
    fn a_datagram_without_checksum_keeps_none() {
        let mut bytes = udp("10.0.0.1:1", "10.0.0.2:2", b"x");
        bytes[26..28].copy_from_slice(&[0, 0]);
        let rewrite = Rewrite { source: Some(endpoint("198.51.100.1:9")), ..Rewrite::default() };
        assert_eq!(rewritten(&bytes, &rewrite)[26..28], [0, 0]);
    }

    #[test]
    fn a_datagrams_sum_of_zero_is_written_as_all_ones() {
        let rewrite = Rewrite { source: Some(endpoint("198.51.100.1:9")), ..Rewrite::default() };
        let sends = |source, word: u16| udp(source, "10.0.0.2:2", &word.to_be_bytes());
        let word = (0..=u16::MAX).find(|word| sends("198.51.100.1:9", *word)[26..28] == [0xff, 0xff]).unwrap();
        assert_eq!(rewritten(&sends("10.0.0.1:1", word), &rewrite), sends("198.51.100.1:9", word));
    }

    #[test]
    fn an_error_is_about_the_packet_that_was_sent() {
        let rewrite = Rewrite {
            destination: Some(endpoint("192.168.1.2:0")),
            about_source: Some(endpoint("192.168.1.2:4000")),
            ..Rewrite::default()
        };
        type Sender = fn(&str) -> Vec<u8>;
        let senders: [Sender; 3] = [
            |source| udp(source, "203.0.113.9:53", b"a question"),
            |source| tcp(source, "203.0.113.9:80", ACK),
            |source| {
                let (address, identifier) = source.split_once(':').unwrap();
                echo(8, address, "203.0.113.9", identifier.parse().unwrap())
            },
        ];
        for sender in senders {
            let (outside, inside) = (sender("198.51.100.1:9999"), sender("192.168.1.2:4000"));
            for quoted in [28, outside.len()] {
                let error = rewritten(&icmp_error(11, "203.0.113.1", "198.51.100.1", &outside[..quoted]), &rewrite);
                assert_eq!(error, icmp_error(11, "203.0.113.1", "192.168.1.2", &inside[..quoted]));
                assert!(sums_are_right(&error));
            }
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_where_it_was(
            source: (u32, u16), destination: (u32, u16), other: (u32, u16), payload: Vec<u8>, kind in 0..3
        ) {
            let end = |(address, port): (u32, u16)| SocketAddrV4::new(address.into(), port);
            let text = |pair| end(pair).to_string();
            let bytes = match kind {
                0 => udp(&text(source), &text(destination), &payload),
                1 => tcp(&text(source), &text(destination), ACK),
                _ => echo(8, &end(source).ip().to_string(), &end(destination).ip().to_string(), source.1),
            };
            let there = Rewrite { source: Some(end(other)), ..Rewrite::default() };
            let back = Rewrite { source: Some(end(source)), ..Rewrite::default() };
            let translated = rewritten(&bytes, &there);
            prop_assert!(sums_are_right(&translated));
            prop_assert_eq!(rewritten(&translated, &back), bytes);
        }
    }
}
