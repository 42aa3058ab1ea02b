//! OpenVPN: the reset with which a client begins, over UDP or, behind its length, over TCP (openvpn(8); `doc/tls-crypt-v2.txt`
//! of its sources). What follows its opcode and session id is plain, signed (`tls-auth`) or sealed (`tls-crypt`).

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

/// `P_CONTROL_HARD_RESET_CLIENT_V1`, `_V2`, `_V3`, above the three bits of the key id, which is 0.
const RESETS: [u8; 3] = [1 << 3, 7 << 3, 10 << 3];
/// Opcode, session id, no acknowledgement, packet id.
const SHORTEST: u32 = 14;
/// With the client's wrapped key of `tls-crypt-v2`.
const LONGEST: u32 = 2048;
const SESSION: usize = 8;
/// A packet id begins with 1 and grows with each repetition.
const LAST_PACKET: u32 = 16;
/// The packet id of a client that knows stateless handshakes (`EARLY_NEG_START`).
const EARLY: u32 = 0x0f00_0000;
/// Octets of the signatures in use: none (`tls-crypt` has its own behind the packet id), MD5, SHA-1, SHA-224, SHA-256, SHA-384,
/// SHA-512.
const SIGNATURES: [usize; 7] = [0, 16, 20, 28, 32, 48, 64];
/// What follows the packet id of a signed or sealed reset at least: the time and a plain reset's rest.
const AFTER_PACKET_ID: usize = 4 + 5;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(in_stream(bytes))
}

/// A whole datagram.
pub(crate) fn sniff_datagram(datagram: &[u8]) -> Sniffed {
    nameless(reset(datagram))
}

fn in_stream(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    let length = scan.number(2, SHORTEST..=LONGEST)?;
    scan.next_is(|opcode| RESETS.contains(&opcode))?;
    reset(scan.take(usize::try_from(length).unwrap_or(usize::MAX))?)
}

fn reset(packet: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(packet);
    scan.byte_of(|opcode| RESETS.contains(&opcode))?;
    scan.take(SESSION)?;
    let rest = scan.rest();
    let plain = rest == [0; 5];
    require(plain || SIGNATURES.iter().any(|&signature| has_packet_id(rest, signature)))
}

fn has_packet_id(rest: &[u8], at: usize) -> bool {
    let mut scan = Scan::new(rest);
    let id = scan.take(at).and_then(|_| scan.u32());
    let begins = id.is_ok_and(|id| (1..=LAST_PACKET).contains(&(id & !EARLY)));
    begins && scan.rest().len() >= AFTER_PACKET_ID
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn packet(opcode: u8, rest: &[u8]) -> Vec<u8> {
        [&[opcode][..], b"session!", rest].concat()
    }

    fn over_tcp(packet: &[u8]) -> Vec<u8> {
        [&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], packet].concat()
    }

    #[test]
    fn plain_signed_and_sealed_resets_are_known_over_both_transports() {
        let mut packets = vec![packet(0x38, &[0; 5]), packet(0x50, &[&[15, 0, 0, 1][..], &[9; 300]].concat())];
        for signature in SIGNATURES {
            let rest = [&vec![0xab; signature][..], &[0, 0, 0, 2], &[0x66; 4], &[0; 5]].concat();
            packets.push(packet(0x38, &rest));
        }
        for packet in packets {
            assert_eq!(sniff_datagram(&packet), yes(None), "{packet:?}");
            assert_eq!(cut_everywhere(sniff, &over_tcp(&packet)), yes(None), "{packet:?}");
        }
    }

    #[test]
    fn other_packets_are_none() {
        for packet in [packet(0x38, &[0; 4]), packet(0x38, &[0; 6]), packet(0x40, &[0; 5]), packet(0x38, &[0xab; 40])] {
            assert_eq!(sniff_datagram(&packet), Sniffed::No, "{packet:?}");
            assert_eq!(sniff(&over_tcp(&packet)), Sniffed::No, "{packet:?}");
        }
        assert_eq!([sniff(&[0, 13]), sniff(&[9]), sniff(&[0, 14, 0x39])], [Sniffed::No, Sniffed::No, Sniffed::No]);
    }
}
