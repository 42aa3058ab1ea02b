//! BitTorrent: the handshake between peers (BEP 3) over TCP; over UDP a query of the DHT (BEP 5), the first message to a
//! tracker (BEP 15), and the first of uTP (BEP 29).

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

/// The bencoded begin of a query: its arguments, in the order of their names.
const QUERY: &[u8] = b"d1:ad";
/// One of the first of them, the sender's id of 20 bytes.
const ID: &[u8] = b"2:id20:";
const ID_WITHIN: usize = 32;
/// The magic of a tracker, and the action "connect".
const CONNECT: [u8; 12] = [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0];
const CONNECT_LENGTH: usize = 16;
/// `ST_SYN` of version 1 without extensions.
const SYN: [u8; 2] = [0x41, 0];
const SYN_LENGTH: usize = 20;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(Scan::new(bytes).literal(b"\x13BitTorrent protocol"))
}

/// A whole datagram.
pub(crate) fn sniff_datagram(datagram: &[u8]) -> Sniffed {
    let tracker = datagram.starts_with(&CONNECT) && datagram.len() == CONNECT_LENGTH;
    let begin = datagram.get(..ID_WITHIN).unwrap_or_default();
    let query = begin.starts_with(QUERY) && begin.windows(ID.len()).any(|part| part == ID);
    nameless(require(query || tracker || utp(datagram).is_ok()))
}

fn utp(datagram: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(datagram);
    require(datagram.len() == SYN_LENGTH)?;
    scan.literal(&SYN)?;
    scan.take(2 + 4)?; // connection, time
    scan.literal(&[0; 4])?; // no time of the other side is known yet
    scan.take(4 + 2)?; // window, sequence
    scan.literal(&[0; 2]) // nothing is acknowledged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        let samples: [&[u8]; 1] = [b"\x13BitTorrent protocol"];
        for bytes in samples {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 2] = [b"\x14", b"\x13BitTorrent Protocol"];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn its_first_datagrams_are_known() {
        let query = b"d1:ad2:bsi1e2:id20:abcdefghijklmnopqrst";
        let connect = [&CONNECT[..], b"code"].concat();
        let syn = [&SYN[..], &[7; 6], &[0; 4], &[7; 6], &[0; 2]].concat();
        for datagram in [query.to_vec(), connect.clone(), syn.clone()] {
            assert_eq!(sniff_datagram(&datagram), yes(None), "{}", datagram.escape_ascii());
        }
        let later = [&syn[..18], &[0, 1]].concat();
        let known = [&syn[..8], &[1], &syn[9..]].concat();
        for datagram in [
            b"d1:rd2:id20:abcdefghijklmnopqrst".to_vec(),
            [&connect[..], &[0]].concat(),
            later,
            known,
            syn[..19].to_vec(),
        ] {
            assert_eq!(sniff_datagram(&datagram), Sniffed::No, "{}", datagram.escape_ascii());
        }
    }
}
