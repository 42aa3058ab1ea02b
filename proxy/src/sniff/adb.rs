//! Android's debug bridge over TCP: the message with which a client connects (`protocol.txt` of adb).

use super::scan::{nameless, Scan};
use super::Sniffed;

/// Version, most bytes of a message, length of the text, its sum: whatever they are.
const NUMBERS: usize = 4 * 4;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    let mut scan = Scan::new(bytes);
    let read =
        scan.literal(b"CNXN").and_then(|()| scan.take(NUMBERS)).and_then(|_| scan.literal(&b"CNXN".map(|byte| !byte)));
    nameless(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn the_command_twice_is_enough() {
        let bytes = [&b"CNXN"[..], &[7; 16], &[0xbc, 0xb1, 0xa7, 0xb1]].concat();
        assert_eq!(cut_everywhere(sniff, &bytes), yes(None));
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let other = [&b"CNXN"[..], &[7; 16], &[0xbc, 0xb1, 0xa7, 0xb0]].concat();
        let samples: [&[u8]; 3] = [b"D", b"CNXM", &other];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
