use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::fuzz;
use crate::wire::proxy_v2::{Announced, Fields};

#[test]
fn the_first_byte_that_differs_decides_that_there_is_no_header() {
    for beginning in [proxy_v2::SIGNATURE.as_slice(), proxy_v1::BEGINNING] {
        for at in 0..beginning.len() {
            assert_eq!(detect_and_parse(&beginning[..at]), Parse::NeedMore);
            let differs = [&beginning[..at], b"#"].concat();
            assert_eq!(detect_and_parse(&differs), Parse::Refuse(StreamRefusal::NotAHeader), "{differs:?}");
        }
    }
}

#[test]
fn a_broken_header_is_not_the_absence_of_one() {
    let broken = |bytes: &[u8]| match detect_and_parse(bytes) {
        Parse::Refuse(refusal) => refusal,
        other @ (Parse::NeedMore | Parse::Done { .. }) => panic!("{other:?}"),
    };
    assert_eq!(broken(b"PROXY UDP4\r\n"), StreamRefusal::Broken(HeaderRefusal::V1Protocol));
    assert_eq!(broken(b"\r\n\r\n\0\r\nQUIT\n\x31"), StreamRefusal::Broken(HeaderRefusal::V2Version(3)));
    assert_eq!(broken(b"\r\n\r\n\0\r\nQUIT\n\x31").label(), "v2_version");
    assert_eq!(broken(b"GET"), StreamRefusal::NotAHeader);
    assert_eq!(broken(b"GET").label(), "not_a_header");
}

/// Bytes that come far into the parsers: a fixed part that is sound, and an announced length that fits what follows.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let family = prop_oneof![Just(0x11_u8), Just(0x12), Just(0x21), Just(0x22), Just(0x31), Just(0), any::<u8>()];
    let tlv = (prop_oneof![0_u8..=5, Just(0x20_u8), Just(0x30), any::<u8>()], vec(any::<u8>(), 0..20), -1_i32..=1);
    let v2 = (family, vec(any::<u8>(), 0..=40), vec(tlv, 0..5), -2_i32..=2).prop_map(|(family, start, tlvs, off)| {
        let tlvs = tlvs.into_iter().flat_map(|(kind, value, off)| {
            let length = (i32::try_from(value.len()).unwrap() + off).max(0);
            [vec![kind, 0, u8::try_from(length).unwrap()], value].concat()
        });
        let body: Vec<u8> = start.into_iter().chain(tlvs).collect();
        let length = u16::try_from((i32::try_from(body.len()).unwrap() + off).max(0)).unwrap();
        [proxy_v2::SIGNATURE.as_slice(), &[0x21, family], &length.to_be_bytes(), &body].concat()
    });
    let v1 =
        "PROXY (TCP4|TCP6|UNKNOWN) ([0-9.]{0,16}|[0-9a-f:]{0,20})( [0-9]{1,6}){0,3}\r?\n?".prop_map(String::into_bytes);
    prop_oneof![3 => v2, 1 => v1]
}

proptest! {
    #[test]
    fn the_laws_hold_for_arbitrary_bytes(bytes in vec(any::<u8>(), 0..200)) {
        fuzz::proxy_header(&bytes);
    }

    #[test]
    fn the_laws_hold_for_what_is_nearly_right(bytes in nearly_right()) {
        fuzz::proxy_header(&bytes);
    }

    #[test]
    fn the_laws_hold_for_a_header_with_a_changed_byte(at in 0_usize..63, byte: u8, crc32c: bool) {
        let (client, destination) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let fields = Fields { authority: Some("a.example"), alpn: Some(b"h2"), crc32c, ..Fields::bare(Announced::Stream, client, destination) };
        let mut header = fields.build();
        if let Some(place) = header.get_mut(at) {
            *place = byte;
        }
        fuzz::proxy_header(&header);
    }
}
