use super::*;
use crate::wire::proxy_v2::{Announced, Fields};
use crate::wire::tlv::Tlvs;
use crate::wire::{proxy_header, Parse};

fn key() -> HopKey {
    let secret: Vec<u8> = (0..32).collect();
    HopKey::of(&secret).unwrap()
}

const STAMP: Stamp = Stamp { time: 1_790_000_000_123, nonce: *b"0123456789abcdef" };

fn fields(key: &HopKey) -> Fields<'_> {
    let (client, destination) = ("203.0.113.7:40000".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    Fields { signed: Some((key, STAMP)), ..Fields::bare(Announced::Stream, client, destination) }
}

/// One of each form, with its name.
fn signed() -> Vec<Vec<u8>> {
    let key = key();
    let of_client = Tlvs::read(b"\x04\0\x01\0\xe1\0\x02ab").unwrap();
    let full = Fields {
        alpn: Some(b"h2"),
        authority: Some("nas.example"),
        unique_id: Some(&[7; 16]),
        crc32c: true,
        received: Some(&of_client),
        ..fields(&key)
    };
    let datagram =
        Fields { transport: Announced::Datagram, client: "[2001:db8::1]:1".parse().unwrap(), ..fields(&key) };
    vec![fields(&key).build(), full.build(), datagram.build(), proxy_v2::signed_local(&key, STAMP)]
}

fn is_right(header: &[u8]) -> bool {
    read(header).is_ok_and(|signature| key().has_signed(header, &signature))
}

#[test]
fn what_is_signed_is_right_and_is_a_header_like_any_other() {
    for header in signed() {
        assert!(is_right(&header), "{header:02x?}");
        assert_eq!(read(&header).unwrap().stamp, STAMP);
        match proxy_v2::parse(&header) {
            Parse::Done { consumed, .. } => assert_eq!(consumed, header.len()),
            other @ (Parse::NeedMore | Parse::Refuse(_)) => panic!("{other:?}"),
        }
    }
}

/// Made by `tests/proxy/proxy_protocol.py`, with Python's `hmac` and a CRC-32C of its own.
#[test]
fn headers_are_those_that_another_program_makes_of_the_same() {
    let key = key();
    let bytes = |hex: &str| -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    };
    assert_eq!(fields(&key).build(), bytes(include_str!("vectors/plain.hex")));
    assert_eq!(Fields { crc32c: true, ..fields(&key) }.build(), bytes(include_str!("vectors/checksum.hex")));
    assert_eq!(proxy_v2::signed_local(&key, STAMP), bytes(include_str!("vectors/local.hex")));
}

#[test]
fn no_bit_of_a_signed_header_can_be_another() {
    for header in signed() {
        for bit in 0..header.len() * 8 {
            let mut wrong = header.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let is_taken = match proxy_header::detect_and_parse(&wrong) {
                Parse::Done { consumed, .. } => is_right(&wrong[..consumed]),
                Parse::NeedMore | Parse::Refuse(_) => false,
            };
            // What came over UDP is parsed as such.
            let is_taken =
                is_taken || proxy_v2::parse_datagram(&wrong).is_ok_and(|(_, length)| is_right(&wrong[..length]));
            assert!(!is_taken, "bit {bit} of {header:02x?}");
        }
    }
}

#[test]
fn no_prefix_of_a_signed_header_is_signed_and_what_follows_is_not_looked_at() {
    for header in signed() {
        for end in 0..header.len() {
            assert_eq!(proxy_v2::parse(&header[..end]), Parse::NeedMore);
            assert!(!is_right(&header[..end]), "{end} bytes");
        }
        assert!(!is_right(&[&header[..], b"x"].concat()), "the header is given alone");
    }
}

#[test]
fn another_key_has_not_signed_it() {
    let other = HopKey::of(&[9; 32]).unwrap();
    let header = fields(&key()).build();
    assert!(!other.has_signed(&header, &read(&header).unwrap()));
    assert!(other != key() && other.name() != key().name());
    assert_eq!(format!("{other:?}"), "HopKey");
}

#[test]
fn a_header_without_a_signature_and_one_with_a_strange_one_are_told_apart() {
    let key = key();
    let bare = Fields { signed: None, ..fields(&key) };
    let with = |tlvs: &[u8]| {
        let received = Tlvs::read(tlvs).unwrap();
        let mut header = bare.build();
        header.extend_from_slice(received.as_bytes());
        header[15] += u8::try_from(tlvs.len()).unwrap();
        header
    };
    for absent in [b"PROXY UNKNOWN\r\n".to_vec(), proxy_v2::LOCAL.to_vec(), bare.build(), with(b"\xe9\0\0"), vec![]] {
        assert_eq!(read(&absent), Err(Unsigned::Absent), "{absent:02x?}");
    }
    let short = [&[KIND, 0, 56][..], &[0; 56]].concat();
    let version = [&[KIND, 0, 57, 2][..], &[0; 56]].concat();
    let mut twice = fields(&key).build();
    let second = twice[twice.len() - ROOM.len()..].to_vec();
    twice.extend_from_slice(&second);
    twice[15] += u8::try_from(second.len()).unwrap();
    for malformed in [with(&short), with(&version), twice] {
        assert_eq!(read(&malformed), Err(Unsigned::Malformed), "{malformed:02x?}");
    }
}

#[test]
fn a_signature_is_made_anew_in_place() {
    for mut header in signed() {
        let (before, stamp) = (header.clone(), Stamp { time: STAMP.time + 5_000, nonce: [1; 16] });
        key().sign(&mut header, stamp);
        assert!(is_right(&header) && header != before && header.len() == before.len());
        assert_eq!(read(&header).unwrap().stamp, stamp);
        assert!(matches!(proxy_v2::parse(&header), Parse::Done { .. }), "its checksum too");
        key().sign(&mut header, STAMP);
        assert_eq!(header, before);
    }
}

#[test]
fn a_peers_signature_is_not_passed_on() {
    let key = key();
    let header = fields(&key).build();
    let Parse::Done { value, .. } = proxy_v2::parse(&header) else { panic!("not read") };
    assert!(value.tlvs.value(KIND).is_some());
    let next = Fields { received: Some(&value.tlvs), signed: None, ..fields(&key) };
    assert_eq!(next.build(), Fields { received: None, ..next }.build());
    assert_eq!(next.build().len(), next.encoded_len());
}
