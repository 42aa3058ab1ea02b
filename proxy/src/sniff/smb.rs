//! SMB over TCP (MS-SMB2, section 2.1): the first message, of version 1 or later ones, behind its length.

use super::scan::{nameless, Scan, Stop};
use super::Sniffed;

/// The header of SMB 1.
const SHORTEST: u32 = 32;
const LONGEST: u32 = 1 << 16;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(message(bytes))
}

fn message(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    scan.number(4, SHORTEST..=LONGEST)?; // the highest byte is a type, and 0
    scan.byte_of(|version| matches!(version, 0xfe | 0xff))?;
    scan.literal(b"SMB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        let samples: [&[u8]; 3] = [b"\0\0\0\x2f\xffSMB", b"\0\0\x01\0\xfeSMB", b"\0\x01\0\0\xfeSMB"];
        for bytes in samples {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 5] = [b"\x81", b"\0\x02", b"\0\0\0\x1f", b"\0\0\0\x2f\xfdS", b"\0\0\0\x2f\xffSMA"];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
