//! The reset that answers a refused SYN (RFC 9293 section 3.5.2).

use crate::checksum;
use crate::packet::{long, word, Layout};

const RST_ACK: u8 = 0x14;

/// A whole IPv4 packet from the SYN's receiver to its sender; None if the bytes end too soon.
pub(crate) fn answer(syn: &[u8], layout: &Layout) -> Option<Vec<u8>> {
    let (source, destination) = (syn.get(16..20)?, syn.get(12..16)?);
    let at = layout.transport;
    let acknowledged = long(syn, at + 4)?.wrapping_add(1);
    let mut segment = [word(syn, at + 2)?.to_be_bytes(), word(syn, at)?.to_be_bytes()].concat();
    segment.extend([0; 4]);
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([0x50, RST_ACK, 0, 0, 0, 0, 0, 0]);
    let sum = checksum::of(&[source, destination, &[0, 6, 0, 20], &segment]);
    checksum::put(&mut segment, 16, sum);
    // Length 40, do not fragment, time to live 64, TCP.
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    let sum = checksum::of(&[&packet]);
    checksum::put(&mut packet, 10, sum);
    packet.extend(segment);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{parse, Packet, Signal, TcpFlags};
    use crate::samples::{endpoint, sums_are_right, tcp, SYN};

    #[test]
    fn it_goes_back_and_acknowledges_the_syn() {
        let syn = tcp("203.0.113.9:5555", "198.51.100.1:80", SYN);
        let reset = answer(&syn, &parse(&syn).unwrap().1).unwrap();
        assert!(sums_are_right(&reset));
        let Packet::Flow { flow, signal } = parse(&reset).unwrap().0 else { panic!() };
        assert_eq!((flow.source, flow.destination), (endpoint("198.51.100.1:80"), endpoint("203.0.113.9:5555")));
        assert_eq!(signal, Signal::Segment(TcpFlags { rst: true, ack: true, ..TcpFlags::default() }));
        assert_eq!(long(&reset, 28), Some(8)); // the sample's sequence number is 7
    }
}
