//! SOCKS 4, 4a and 5 (RFC 1928): the request of the former, the greeting of the latter.

use super::authority::of_host;
use super::scan::{named, nameless, require, settled, Scan, Stop};
use super::{Found, Sniffed};

const LONGEST_TEXT: usize = 255;
/// RFC 1928 and its registry know methods 0 to 9, and 0x80 to 0xfe for private use.
const LAST_METHOD: u8 = 9;
const MOST_METHODS: u8 = 10;

/// The name is the host that a 4a client wants to be connected with.
pub(crate) fn sniff4(bytes: &[u8]) -> Sniffed {
    settled(request4(bytes))
}

pub(crate) fn sniff5(bytes: &[u8]) -> Sniffed {
    nameless(greeting5(bytes))
}

fn request4(bytes: &[u8]) -> Result<Found, Stop> {
    let mut scan = Scan::new(bytes);
    scan.literal(&[4])?;
    scan.byte_of(|command| matches!(command, 1 | 2))?;
    require(scan.u16()? != 0)?;
    let address = scan.u32()?;
    require(address != 0)?;
    text(&mut scan)?; // the user
    let by_name = address <= 0xff; // 0.0.0.x stands for "the name follows"
    Ok(named(if by_name { of_host(text(&mut scan)?) } else { None }))
}

fn text<'a>(scan: &mut Scan<'a>) -> Result<&'a [u8], Stop> {
    scan.until(0, LONGEST_TEXT, |byte| byte >= b' ')
}

fn greeting5(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    scan.literal(&[5])?;
    let methods = scan.byte_of(|count| (1..=MOST_METHODS).contains(&count))?;
    for _ in 0..methods {
        scan.byte_of(|method| method <= LAST_METHOD || (0x80..0xff).contains(&method))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn a_4a_request_has_a_name_and_a_4_request_has_none() {
        let by_name = b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00Box.Example\x00";
        assert_eq!(cut_everywhere(sniff4, by_name), yes(Some("box.example")));
        assert_eq!(cut_everywhere(sniff4, b"\x04\x02\x00\x50\xc0\x00\x02\x01\x00"), yes(None));
    }

    #[test]
    fn a_4_request_is_for_somewhere() {
        for bytes in
            [&b"\x04\x03"[..], b"\x04\x01\0\0", b"\x04\x01\0\x50\0\0\0\0", b"\x04\x01\0\x50\x01\x02\x03\x04\x01"]
        {
            assert_eq!(sniff4(bytes), Sniffed::No, "{bytes:?}");
        }
        let endless = [b"\x04\x01\0\x50\x01\x02\x03\x04".as_slice(), &[b'a'; LONGEST_TEXT + 1]].concat();
        assert_eq!(sniff4(&endless), Sniffed::No);
    }

    #[test]
    fn a_greeting_offers_methods_that_exist() {
        assert_eq!(cut_everywhere(sniff5, &[5, 4, 0, 1, 2, 0x80]), yes(None));
        for bytes in [&[5, 0][..], &[5, 11], &[5, 1, 10], &[5, 1, 0xff], &[4]] {
            assert_eq!(sniff5(bytes), Sniffed::No, "{bytes:?}");
        }
    }
}
