//! STUN and TURN (RFC 8489, section 5): the header with its magic cookie.

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
/// The bit of the class that responses have and that requests and indications have not.
const RESPONSE: u16 = 0x0100;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(header(bytes).map(|_| ()))
}

/// A whole datagram: one message fills it.
pub(crate) fn sniff_datagram(datagram: &[u8]) -> Sniffed {
    nameless(header(datagram).and_then(|length| require(datagram.len() == HEADER + usize::from(length))))
}

fn header(bytes: &[u8]) -> Result<u16, Stop> {
    let mut scan = Scan::new(bytes);
    scan.next_is(|first| first < 0x40)?;
    require(scan.u16()? & RESPONSE == 0)?;
    let length = scan.u16()?;
    require(length % 4 == 0)?;
    scan.literal(&COOKIE)?;
    scan.take(12)?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn message(kind: u16, length: u16) -> Vec<u8> {
        let transaction = b"transaction!";
        let attributes = vec![0; usize::from(length)];
        [&kind.to_be_bytes()[..], &length.to_be_bytes(), &COOKIE, transaction, &attributes].concat()
    }

    #[test]
    fn requests_and_indications_are_known() {
        for (kind, length) in [(1, 0), (1, 8), (3, 36), (0x16, 12), (0x11, 0)] {
            assert_eq!(sniff_datagram(&message(kind, length)), yes(None), "{kind}");
            assert_eq!(cut_everywhere(sniff, &message(kind, length)), yes(None), "{kind}");
        }
    }

    #[test]
    fn others_are_none() {
        let mut trailing = message(1, 8);
        trailing.push(0);
        for datagram in [message(0x101, 0), message(0x111, 0), message(1, 7), message(0x4001, 0), trailing] {
            assert_eq!(sniff_datagram(&datagram), Sniffed::No, "{datagram:?}");
        }
        assert_eq!(sniff(&[0, 1, 0, 0, 0x21, 0x13]), Sniffed::No);
    }
}
