//! Bytes of an IPv4 packet to what a NAT asks of it: who to whom, and for ICMP errors about whom. Pure, and total: any
//! bytes give an answer.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes of an IPv4 header without options (RFC 791).
pub(crate) const IP_HEADER: usize = 20;
/// Bytes of an ICMP header; an error's inner packet follows (RFC 792).
const ICMP_HEADER: usize = 8;
/// What an ICMP error quotes at least of the inner packet after its IP header (RFC 792).
const LEAST_QUOTED: usize = 8;
const TCP_HEADER: usize = 20;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What has ports, or an identifier in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP queries; the identifier is the port of the one who asks, the other has port 0 (RFC 5508).
    Icmp,
}

impl Protocol {
    /// Its name, as in configuration and report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// From whom to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Protocol of both endpoints.
    pub protocol: Protocol,
    /// The sender.
    pub source: SocketAddrV4,
    /// The receiver.
    pub destination: SocketAddrV4,
}

/// The flags of a TCP segment that a NAT heeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags {
    /// It opens.
    pub syn: bool,
    /// It acknowledges.
    pub ack: bool,
    /// It closes one direction.
    pub fin: bool,
    /// It aborts.
    pub rst: bool,
}

impl TcpFlags {
    /// Whether it is the first of a connection.
    #[must_use]
    pub fn is_opening(self) -> bool {
        self.syn && !self.ack && !self.rst
    }
}

/// What a packet of a flow is to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// UDP.
    Datagram,
    /// TCP.
    Segment(TcpFlags),
    /// An ICMP query: echo or timestamp.
    Query,
    /// The answer to one.
    Answer,
}

/// A packet as the table sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// TCP, UDP, or an ICMP query or answer.
    Flow {
        /// Its ends.
        flow: Flow,
        /// Its part.
        signal: Signal,
    },
    /// An ICMP error about a packet of a flow.
    Error {
        /// Who complains.
        from: Ipv4Addr,
        /// To whom.
        to: Ipv4Addr,
        /// Whether it says destination unreachable or time exceeded, what ICMP-eating boxes eat.
        is_unreachable_or_exceeded: bool,
        /// The ends of the packet complained of.
        about: Flow,
    },
    /// Any other.
    Other {
        /// The sender.
        source: Ipv4Addr,
    },
}

/// Where the headers begin, in bytes from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Header after the IP header.
    pub transport: usize,
    /// Of an ICMP error: its inner IP header, and the header after that.
    pub inner: Option<(usize, usize)>,
}

/// Why bytes are no packet that can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Not IPv4, or its lengths contradict each other. So is a packet beyond 65531 bytes, which no queue gives whole.
    Malformed,
    /// A piece of a packet; the kernel puts pieces together before they come here.
    Fragment,
}

/// Reads a packet.
///
/// # Errors
/// The bytes are no whole IPv4 packet.
pub fn parse(bytes: &[u8]) -> Result<(Packet, Layout), Unreadable> {
    let header = Header::read(bytes).ok_or(Unreadable::Malformed)?;
    if header.is_fragment() {
        return Err(Unreadable::Fragment);
    }
    let transport = bytes.get(header.len..header.total).ok_or(Unreadable::Malformed)?;
    let whole = Layout { transport: header.len, inner: None };
    if let Some((flow, signal)) = read_flow(&header, transport) {
        let is_cut = matches!(signal, Signal::Segment(_)) && transport.len() < TCP_HEADER;
        return if is_cut { Err(Unreadable::Malformed) } else { Ok((Packet::Flow { flow, signal }, whole)) };
    }
    if matches!(header.protocol, TCP | UDP) {
        return Err(Unreadable::Malformed);
    }
    Ok(read_error(&header, transport).unwrap_or((Packet::Other { source: header.source }, whole)))
}

fn read_error(header: &Header, icmp: &[u8]) -> Option<(Packet, Layout)> {
    let kind = *icmp.first()?;
    // Destination unreachable, source quench, time exceeded, parameter problem. A redirect is between neighbours.
    if header.protocol != ICMP || !matches!(kind, 3 | 4 | 11 | 12) {
        return None;
    }
    let quoted = icmp.get(ICMP_HEADER..)?;
    let inner = Header::read(quoted)?;
    if inner.fragment_offset() != 0 {
        return None;
    }
    let (about, _) = read_flow(&inner, quoted.get(inner.len..)?)?;
    let packet = Packet::Error {
        from: header.source,
        to: header.destination,
        is_unreachable_or_exceeded: matches!(kind, 3 | 11),
        about,
    };
    let at = header.len + ICMP_HEADER;
    Some((packet, Layout { transport: header.len, inner: Some((at, at + inner.len)) }))
}

fn read_flow(header: &Header, transport: &[u8]) -> Option<(Flow, Signal)> {
    if transport.len() < LEAST_QUOTED {
        return None;
    }
    let (protocol, source, destination, signal) = match header.protocol {
        TCP => {
            let flags = transport.get(13).map_or_else(TcpFlags::default, |byte| tcp_flags(*byte));
            (Protocol::Tcp, word(transport, 0)?, word(transport, 2)?, Signal::Segment(flags))
        }
        UDP => (Protocol::Udp, word(transport, 0)?, word(transport, 2)?, Signal::Datagram),
        ICMP => match transport.first()? {
            8 | 13 => (Protocol::Icmp, word(transport, 4)?, 0, Signal::Query),
            0 | 14 => (Protocol::Icmp, 0, word(transport, 4)?, Signal::Answer),
            _ => return None,
        },
        _ => return None,
    };
    let source = SocketAddrV4::new(header.source, source);
    let destination = SocketAddrV4::new(header.destination, destination);
    Some((Flow { protocol, source, destination }, signal))
}

fn tcp_flags(byte: u8) -> TcpFlags {
    TcpFlags { fin: byte & 0x01 != 0, syn: byte & 0x02 != 0, rst: byte & 0x04 != 0, ack: byte & 0x10 != 0 }
}

/// The IPv4 header, as far as it matters here.
struct Header {
    len: usize,
    total: usize,
    fragment: u16,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let len = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || len < IP_HEADER || bytes.len() < len {
            return None;
        }
        Some(Self {
            len,
            total: usize::from(word(bytes, 2)?),
            fragment: word(bytes, 6)?,
            protocol: *bytes.get(9)?,
            source: address(bytes, 12)?,
            destination: address(bytes, 16)?,
        })
    }

    /// In units of eight bytes.
    fn fragment_offset(&self) -> u16 {
        self.fragment & 0x1fff
    }

    fn is_fragment(&self) -> bool {
        let more_follow = self.fragment & 0x2000 != 0;
        more_follow || self.fragment_offset() != 0
    }
}

/// The 16 bits at an offset, in network order.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}

/// The 32 bits at an offset, in network order.
pub(crate) fn long(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    long(bytes, at).map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{echo, icmp_error, tcp, udp, SYN};
    use proptest::prelude::*;

    fn endpoint(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn ports_and_flags_are_read() {
        let (packet, layout) = parse(&tcp("192.168.1.2:4000", "198.51.100.9:80", SYN)).unwrap();
        let flow = Flow {
            protocol: Protocol::Tcp,
            source: endpoint("192.168.1.2:4000"),
            destination: endpoint("198.51.100.9:80"),
        };
        let signal = Signal::Segment(TcpFlags { syn: true, ..TcpFlags::default() });
        assert_eq!(packet, Packet::Flow { flow, signal });
        assert_eq!(layout, Layout { transport: 20, inner: None });
    }

    #[test]
    fn the_identifier_is_the_port_of_the_one_who_asks() {
        for (kind, source, destination) in [(8, "10.0.0.1:77", "10.0.0.2:0"), (0, "10.0.0.1:0", "10.0.0.2:77")] {
            let (packet, _) = parse(&echo(kind, "10.0.0.1", "10.0.0.2", 77)).unwrap();
            let Packet::Flow { flow, .. } = packet else { panic!("{packet:?}") };
            assert_eq!((flow.source, flow.destination), (endpoint(source), endpoint(destination)));
        }
    }

    #[test]
    fn an_error_tells_whom_it_is_about() {
        let inner = udp("198.51.100.1:4000", "203.0.113.9:53", b"question");
        let (packet, layout) = parse(&icmp_error(3, "203.0.113.1", "198.51.100.1", &inner[..28])).unwrap();
        let Packet::Error { from, to, is_unreachable_or_exceeded, about } = packet else { panic!("{packet:?}") };
        assert_eq!((from, to), (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(198, 51, 100, 1)));
        assert!(is_unreachable_or_exceeded);
        assert_eq!(about.destination, endpoint("203.0.113.9:53"));
        assert_eq!(layout.inner, Some((28, 48)));
    }

    #[test]
    fn fragments_and_cut_packets_are_not_judged() {
        let mut piece = udp("10.0.0.1:1", "10.0.0.2:2", b"x");
        piece[6] = 0x20;
        assert_eq!(parse(&piece), Err(Unreadable::Fragment));
        for whole in [tcp("10.0.0.1:1", "10.0.0.2:2", SYN), udp("10.0.0.1:1", "10.0.0.2:2", b"payload")] {
            for length in 0..whole.len() {
                assert_eq!(parse(&whole[..length]), Err(Unreadable::Malformed), "{length} bytes");
            }
        }
    }

    /// A later piece begins with anything but ports.
    #[test]
    fn an_error_about_a_later_fragment_is_about_no_flow() {
        let mut inner = udp("198.51.100.1:4000", "203.0.113.9:53", b"question");
        inner[7] = 1;
        let error = icmp_error(3, "203.0.113.1", "198.51.100.1", &inner);
        assert_eq!(parse(&error).unwrap().0, Packet::Other { source: Ipv4Addr::new(203, 0, 113, 1) });
    }

    #[test]
    fn other_protocols_and_redirects_are_other() {
        let mut gre = udp("10.0.0.1:1", "10.0.0.2:2", b"x");
        gre[9] = 47;
        assert_eq!(parse(&gre).unwrap().0, Packet::Other { source: Ipv4Addr::new(10, 0, 0, 1) });
        let inner = udp("198.51.100.1:4000", "203.0.113.9:53", b"question");
        let redirect = icmp_error(5, "203.0.113.1", "198.51.100.1", &inner);
        assert_eq!(parse(&redirect).unwrap().0, Packet::Other { source: Ipv4Addr::new(203, 0, 113, 1) });
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        /// Bytes that are likelier to get deep into the parser: a plausible header, then anything.
        #[test]
        fn anything_after_a_header_gives_an_answer(
            protocol in prop_oneof![Just(1u8), Just(6), Just(17), any::<u8>()],
            kind in prop_oneof![Just(3u8), Just(11), Just(8), any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..80),
            words in 5u8..16,
        ) {
            let mut bytes = vec![0x40 | words, 0, 0, 0, 0, 0, 0, 0, 64, protocol];
            bytes.resize(usize::from(words) * 4, 1);
            bytes.push(kind);
            bytes.extend(rest);
            let total = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&total.to_be_bytes());
            if let Ok((_, layout)) = parse(&bytes) {
                prop_assert!(layout.transport <= bytes.len());
                prop_assert!(layout.inner.map_or(true, |(ip, transport)| ip < transport && transport <= bytes.len()));
            }
        }
    }
}
