//! TeamSpeak 3: the datagram with which a client asks for a connection.

use super::scan::{nameless, Scan};
use super::Sniffed;

/// In place of a sum, the number of the packet, no client yet, and the kind, not encrypted.
const INIT: &[u8] = b"TS3INIT1\0\x65\0\0\x88";
/// The client's version, and the first step.
const VERSION: usize = 4;

/// A whole datagram.
pub(crate) fn sniff_datagram(datagram: &[u8]) -> Sniffed {
    let mut scan = Scan::new(datagram);
    nameless(scan.literal(INIT).and_then(|()| scan.take(VERSION)).and_then(|_| scan.literal(&[0])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_first_step_is_known() {
        assert_eq!(cut_everywhere(sniff_datagram, &[INIT, &[6, 0x3b, 0xec, 0xe9, 0]].concat()), yes(None));
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let later = [INIT, &[6, 0x3b, 0xec, 0xe9, 2]].concat();
        let samples: [&[u8]; 4] = [b"U", b"TS3INIT2", b"TS3INIT1\0\x66", &later];
        for bytes in samples {
            assert_eq!(sniff_datagram(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
