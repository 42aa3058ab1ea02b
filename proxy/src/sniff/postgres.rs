//! PostgreSQL: the untyped first message of a client (manual, "Message Formats"). `SSLRequest` is answered by the server
//! with one byte before TLS begins, so no name can be had here.

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const MAJOR: u32 = 3;
/// `MAX_STARTUP_PACKET_LENGTH` of the server.
const LONGEST: u32 = 10_000;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(first_message(bytes))
}

fn first_message(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    let length = scan.number(4, 8..=LONGEST)?;
    scan.next_is(|high| matches!(high, 0 | 4))?; // of a version, or of a request
    let code = scan.u32()?;
    require(match code {
        SSL | GSS => length == 8,
        CANCEL => (16..=12 + 256).contains(&length), // version 3.2 has keys of up to 256 bytes
        version => version >> 16 == MAJOR && length > 8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn message(length: u32, code: u32) -> Vec<u8> {
        [length.to_be_bytes(), code.to_be_bytes()].concat()
    }

    #[test]
    fn each_first_message_is_known_by_its_code_and_length() {
        for (length, code) in
            [(8, SSL), (8, GSS), (16, CANCEL), (44, CANCEL), (41, 0x30000), (9, 0x30002), (10_000, 0x3270f)]
        {
            assert_eq!(cut_everywhere(sniff, &message(length, code)), yes(None), "{length} {code}");
        }
        for (length, code) in
            [(9, SSL), (7, SSL), (8, 0x30000), (10_001, 0x30000), (15, CANCEL), (269, CANCEL), (41, 0x20000)]
        {
            assert_eq!(sniff(&message(length, code)), Sniffed::No, "{length} {code}");
        }
        assert_eq!(sniff(&[0, 1]), Sniffed::No);
        assert_eq!(sniff(&[0, 0, 0, 41, 1]), Sniffed::No);
    }
}
