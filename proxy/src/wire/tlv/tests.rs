use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], length.as_slice(), value].concat()
}

#[test]
fn accessors_say_what_the_first_of_each_type_says() {
    let ssl = [&[1, 0, 0, 0, 0], tlv(ssl::VERSION, b"TLSv1.3").as_slice(), tlv(ssl::CN, b"\xff").as_slice()].concat();
    let block = [
        tlv(0xe0, b"custom"),
        tlv(ALPN, b"h2"),
        tlv(ALPN, b"h3"),
        tlv(AUTHORITY, "bücher.example".as_bytes()),
        tlv(UNIQUE_ID, b"\x00id"),
        tlv(NETNS, b"edge"),
        tlv(SSL, &ssl),
    ]
    .concat();
    let tlvs = Tlvs::read(&block).unwrap();
    assert_eq!(tlvs.alpn(), Some(b"h2".as_slice()));
    assert_eq!(tlvs.authority(), Some("bücher.example"));
    assert_eq!(tlvs.unique_id(), Some(b"\x00id".as_slice()));
    assert_eq!(tlvs.netns(), Some("edge"));
    assert_eq!(tlvs.value(0xe0), Some(b"custom".as_slice()));
    assert_eq!(tlvs.value(0xe1), None);
    let found = tlvs.ssl().unwrap();
    assert_eq!((found.client, found.verify), (1, 0));
    assert_eq!((found.text(ssl::VERSION), found.text(ssl::CN), found.text(ssl::CIPHER)), (Some("TLSv1.3"), None, None));
    assert_eq!(found.fields().count(), 2);
    assert_eq!(tlvs.iter().count(), 7);
}

#[test]
fn a_block_without_tlvs_has_none() {
    let none = Tlvs::read(b"").unwrap();
    assert!(none.is_empty());
    assert_eq!(none, Tlvs::default());
    assert_eq!((none.alpn(), none.authority(), none.unique_id(), none.netns()), (None, None, None, None));
    assert_eq!((none.ssl(), none.crc32c()), (None, None));
}

#[test]
fn every_cut_of_a_block_is_refused_but_between_two() {
    let block = [tlv(ALPN, b"h2"), tlv(AUTHORITY, b"a.example")].concat();
    for cut in 0..block.len() {
        let expected = match cut {
            0 | 5 => Ok(()),
            1 | 2 | 6 | 7 => Err(HeaderRefusal::TlvCut),
            _ => Err(HeaderRefusal::TlvOverrun),
        };
        assert_eq!(Tlvs::read(&block[..cut]).map(|_| ()), expected, "{cut}");
    }
}

proptest! {
    #[test]
    fn none_is_lost_and_order_is_kept(list in vec((0xe0_u8..=0xff, vec(any::<u8>(), 0..40)), 0..12)) {
        let block: Vec<u8> = list.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
        let tlvs = Tlvs::read(&block).unwrap();
        let expected: Vec<Tlv<'_>> = list.iter().map(|(kind, value)| Tlv::Other { kind: *kind, value }).collect();
        prop_assert_eq!(tlvs.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!(tlvs.as_bytes(), block);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(block in vec(any::<u8>(), 0..300)) {
        if let Ok(tlvs) = Tlvs::read(&block) {
            prop_assert_eq!(tlvs.as_bytes(), block);
        }
    }
}
