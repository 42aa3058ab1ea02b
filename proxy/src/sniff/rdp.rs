//! RDP: the X.224 connection request in a TPKT (MS-RDPBCGR, section 2.2.1.1; RFC 1006, section 6).

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

/// TPKT header, then X.224: length, code, two references, class.
const SHORTEST: u32 = 11;
/// The length of the X.224 part, which does not count itself, is one octet below 255.
const LONGEST: u32 = 4 + 1 + 254;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(connection_request(bytes))
}

fn connection_request(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    scan.literal(&[3, 0])?;
    let length = scan.number(2, SHORTEST..=LONGEST)?;
    let inner = scan.u8()?;
    require(u32::from(inner) == length - 5)?;
    scan.literal(&[0xe0, 0, 0])?;
    scan.u16()?;
    scan.literal(&[0])?;
    if length == SHORTEST {
        return Ok(());
    }
    // A cookie or token, RDP_NEG_REQ, or the correlation info. ISO over TCP for machines (S7) has 0xc0 to 0xc2 here.
    scan.byte_of(|first| first.is_ascii_alphabetic() || matches!(first, 1 | 6)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn request(rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(11 + rest.len()).unwrap();
        let mut bytes = vec![3, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([u8::try_from(length - 5).unwrap_or(0xff), 0xe0, 0, 0, 0x12, 0x34, 0]);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn lengths_are_numbers_without_a_sign() {
        for cookie in [0, 1, 10, 117, 118, 200, 226] {
            let cookie = [b"Cookie: mstshash=".as_slice(), &vec![b'a'; cookie], b"\r\n"].concat();
            assert_eq!(cut_everywhere(sniff, &request(&cookie)), yes(None), "{}", cookie.len());
        }
        assert_eq!(cut_everywhere(sniff, &request(b"")), yes(None));
        assert_eq!(cut_everywhere(sniff, &request(&[1, 0, 8, 0, 11, 0, 0, 0])), yes(None));
    }

    #[test]
    fn what_is_no_request_for_rdp_is_none() {
        assert_eq!(sniff(&request(&[0xc0, 1, 10])), Sniffed::No);
        assert_eq!(sniff(&request(&[b'a'; 249])), Sniffed::No);
        for bytes in [&[3, 1][..], &[3, 0, 2], &[3, 0, 0, 10], &[3, 0, 0, 11, 7], &[3, 0, 0, 11, 6, 0xd0]] {
            assert_eq!(sniff(bytes), Sniffed::No, "{bytes:?}");
        }
    }
}
