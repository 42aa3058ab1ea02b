//! HTTP/2 with prior knowledge (RFC 9113, section 3.4): the preface, then the first request's `:authority`.

use super::authority::of_authority;
use super::hpack::authority;
use super::scan::{named, settled, Scan, Stop};
use super::{Found, Sniffed};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes in which the first request must stand, or it has no name here.
const MOST: usize = 8192;
/// The default of `SETTINGS_MAX_FRAME_SIZE`, which only the server could raise.
const LONGEST_FRAME: u32 = 1 << 14;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    settled(first_request(bytes))
}

/// Whether the preface is there; a client may await the server's settings before its first request.
pub(crate) fn is_certain(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE)
}

fn first_request(bytes: &[u8]) -> Result<Found, Stop> {
    Scan::new(bytes).literal(PREFACE)?;
    let window = bytes.get(..MOST).unwrap_or(bytes);
    let frames = window.get(PREFACE.len()..).unwrap_or_default();
    match request_headers(&mut Scan::new(frames)) {
        Ok(found) => Ok(found),
        Err(Stop::NeedMore) if window.len() < MOST => Err(Stop::NeedMore),
        Err(Stop::NeedMore | Stop::No) => Ok(Found::default()), // whatever comes, the preface stands
    }
}

/// A header block that goes on in other frames counts as far as its first frame goes.
fn request_headers(scan: &mut Scan<'_>) -> Result<Found, Stop> {
    loop {
        let length = scan.number(3, 0..=LONGEST_FRAME)?;
        let (kind, flags) = (scan.u8()?, scan.u8()?);
        scan.u32()?;
        let payload = scan.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        if kind == HEADERS {
            return Ok(named(block(payload, flags).ok().and_then(authority).and_then(|it| of_authority(&it))));
        }
    }
}

/// Without padding and priority (6.2).
fn block(payload: &[u8], flags: u8) -> Result<&[u8], Stop> {
    let mut scan = Scan::new(payload);
    let padding = if flags & PADDED == 0 { 0 } else { usize::from(scan.u8()?) };
    if flags & PRIORITY != 0 {
        scan.take(5)?;
    }
    scan.take(scan.rest().len().checked_sub(padding).ok_or(Stop::No)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE, &frames.concat()].concat()
    }

    #[test]
    fn the_authority_of_the_first_request_is_the_name() {
        let headers = [&[0x82, 0x86, 0x84, 0x41, 9][..], b"A.example"].concat();
        let padded = [&[2, 0, 0, 0, 0, 16][..], &headers, &[0, 0]].concat();
        for (flags, payload) in [(4, &headers), (0x2c, &padded)] {
            let bytes = connection(&[frame(4, 0, &[0; 6]), frame(8, 0, &[0, 1, 0, 0]), frame(HEADERS, flags, payload)]);
            assert_eq!(cut_everywhere(sniff, &bytes), yes(Some("a.example")));
        }
    }

    #[test]
    fn after_the_preface_it_is_http2_whatever_follows() {
        let oversized = connection(&[vec![0xff; 9]]);
        let overpadded = connection(&[frame(HEADERS, PADDED, &[9, 0x82])]);
        let endless = connection(&[frame(4, 0, &[0; 6]), frame(0xee, 0, &[0; MOST])]);
        for bytes in [oversized, overpadded, endless] {
            assert_eq!(cut_everywhere(sniff, &bytes), yes(None));
        }
        assert!(is_certain(PREFACE) && !is_certain(&PREFACE[..23]));
        assert_eq!(sniff(PREFACE), Sniffed::NeedMore);
        assert_eq!(sniff(b"PRI * HTTP/2.1"), Sniffed::No);
    }
}
