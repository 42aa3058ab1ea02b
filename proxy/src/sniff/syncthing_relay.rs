//! Syncthing's relay: the request to join a session (Relay Protocol v1, "Session mode"). All else that Syncthing says over TCP
//! is TLS, with the application protocol `bep/1.0` or `bep-relay`.

use super::scan::{nameless, Scan};
use super::Sniffed;

/// The magic, and the type of the request.
const JOIN: [u8; 8] = [0x9e, 0x79, 0xbc, 0x40, 0, 0, 0, 3];

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(Scan::new(bytes).literal(&JOIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        assert_eq!(cut_everywhere(sniff, &JOIN), yes(None));
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 3] = [&[0x9f], &[0x9e, 0x79, 0xbc, 0x41], &[0x9e, 0x79, 0xbc, 0x40, 0, 0, 0, 2]];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
