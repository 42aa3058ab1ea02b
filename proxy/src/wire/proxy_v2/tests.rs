use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn fields<'a>() -> Fields<'a> {
    Fields::bare(Announced::Stream, "192.0.2.1:56324".parse().unwrap(), "198.51.100.1:443".parse().unwrap())
}

fn read(bytes: &[u8]) -> ProxyHeader {
    match parse(bytes) {
        Parse::Done { value, consumed } if consumed == bytes.len() => value,
        other @ (Parse::Done { .. } | Parse::NeedMore | Parse::Refuse(_)) => panic!("{other:?}"),
    }
}

#[test]
fn each_field_of_the_builder_is_in_the_header() {
    let plain = read(&fields().build());
    assert_eq!((plain.transport, plain.tlvs.is_empty()), (HeaderTransport::Stream, true));
    let datagram = read(&Fields { transport: Announced::Datagram, ..fields() }.build());
    assert_eq!(datagram.transport, HeaderTransport::Datagram);
    assert_eq!(read(&Fields { alpn: Some(b"h2"), ..fields() }.build()).tlvs.alpn(), Some(b"h2".as_slice()));
    let named = read(&Fields { authority: Some("nas.example"), ..fields() }.build());
    assert_eq!(named.tlvs.authority(), Some("nas.example"));
    assert_eq!(read(&Fields { unique_id: Some(b"1"), ..fields() }.build()).tlvs.unique_id(), Some(b"1".as_slice()));
    assert!(read(&Fields { crc32c: true, ..fields() }.build()).tlvs.crc32c().is_some());
    let elsewhere = read(&Fields { client: "[2001:db8::1]:1".parse().unwrap(), ..fields() }.build());
    let (client, destination) = elsewhere.addresses.unwrap();
    assert_eq!(
        (client.to_string(), destination.to_string()),
        ("[2001:db8::1]:1".into(), "[::ffff:198.51.100.1]:443".into())
    );
}

#[test]
fn what_a_peer_said_of_the_client_is_said_again_byte_for_byte_and_nothing_else() {
    let ssl = b"\x20\x00\x10\x01\x00\x00\x00\x00\x21\x00\x08TLSv1.3a".as_slice();
    let of_client = [b"\xe1\x00\x02\x00\xff", ssl, b"\x30\x00\x01n", b"\x02\x00\x01b", b"\xef\x00\x00"].concat();
    let others =
        [b"\x04\x00\x01\x00".as_slice(), b"\x05\x00\x01i", b"\x03\x00\x04\0\0\0\0", b"\x06\x00\x00", b"\xf0\x00\x00"];
    let received = Tlvs::read(&[others.concat(), of_client.clone()].concat()).unwrap();
    let fields = Fields { received: Some(&received), ..fields() };
    assert_eq!(read(&fields.build()).tlvs.as_bytes(), of_client);
    assert_eq!(fields.encoded_len(), fields.build().len());
    let all = Fields { alpn: Some(b"h2"), authority: Some("a"), unique_id: Some(b"u"), crc32c: true, ..fields };
    let found = read(&all.build()).tlvs;
    assert!(found.as_bytes().starts_with(&of_client) && found.crc32c().is_some());
    assert_eq!((found.authority(), found.alpn(), found.unique_id()), (Some("b"), Some(&b"h2"[..]), Some(&b"u"[..])));
    assert_eq!(found.iter().filter(|one| matches!(one, tlv::Tlv::Authority(_))).count(), 1);
}

#[test]
fn what_a_peer_said_is_left_out_where_the_header_would_become_too_long() {
    let custom =
        |kind, length: usize| [&[kind][..], &u16::try_from(length).unwrap().to_be_bytes(), &vec![7; length]].concat();
    let client = "[2001:db8::1]:1".parse().unwrap();
    let own = Fields { unique_id: Some(&[1; 128]), crc32c: true, client, ..fields() };
    let room = MAX_LENGTH - own.encoded_len() - 3;
    for (length, is_there) in [(room, true), (room + 1, false)] {
        let received = Tlvs::read(&[custom(0xe1, length), custom(0xe2, 0)].concat()).unwrap();
        let header = Fields { received: Some(&received), ..own }.build();
        let found = read(&header).tlvs;
        assert_eq!((found.value(0xe1).is_some(), found.value(0xe2).is_some()), (is_there, !is_there), "{length}");
        assert!(found.unique_id().is_some() && header.len() <= MAX_LENGTH);
    }
}

#[test]
fn a_header_takes_of_the_mtu_what_the_catalogue_says() {
    let v6 = Fields::bare(Announced::Datagram, "[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
    let checked = |fields| Fields { crc32c: true, ..fields }.encoded_len();
    assert_eq!((fields().encoded_len(), v6.encoded_len()), (28, 52));
    assert_eq!((checked(fields()), checked(v6)), (35, 59));
}

#[test]
fn a_header_is_appended_to_what_a_buffer_holds_and_its_checksum_is_its_own() {
    let fields = Fields { crc32c: true, ..fields() };
    let mut buffer = b"before".to_vec();
    fields.append_to(&mut buffer);
    assert_eq!(buffer[6..], fields.build());
    read(&buffer[6..]);
}

#[test]
fn a_value_that_no_receiver_takes_is_left_out() {
    let long = "a".repeat(256);
    let fits = Fields {
        alpn: Some(&long.as_bytes()[..255]),
        authority: Some(&long[..255]),
        unique_id: Some(&long.as_bytes()[..128]),
        ..fields()
    };
    assert_eq!(read(&fits.build()).tlvs.iter().count(), 3);
    let over = Fields {
        alpn: Some(long.as_bytes()),
        authority: Some(&long),
        unique_id: Some(&long.as_bytes()[..129]),
        ..fields()
    };
    assert_eq!(over.build(), fields().build());
    assert_eq!(over.encoded_len(), 28);
}

#[test]
fn local_is_read_as_the_peers_own() {
    assert_eq!(read(LOCAL), ProxyHeader::without_addresses(Command::Local, HeaderTransport::Unspecified));
}

#[test]
fn the_lengths_that_do_not_hold_the_addresses_are_all_refused() {
    for (family_transport, needed) in [(0x11, 12_u8), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        for length in 0..=needed {
            let fixed = [SIGNATURE.as_slice(), &[0x21, family_transport, 0, length]].concat();
            let refused = Parse::Refuse(HeaderRefusal::V2AddressesCut(usize::from(length)));
            let expected = if length < needed { refused } else { Parse::NeedMore };
            assert_eq!(parse(&fixed), expected, "{family_transport:#04x} {length}");
        }
    }
}

#[test]
fn each_byte_of_the_fixed_part_is_judged_when_it_comes() {
    let at = |bytes: &[u8]| parse(&[SIGNATURE.as_slice(), bytes].concat());
    assert_eq!(at(&[0x11]), Parse::Refuse(HeaderRefusal::V2Version(1)));
    assert_eq!(at(&[0x22]), Parse::Refuse(HeaderRefusal::V2Command(2)));
    assert_eq!(at(&[0x21, 0x41]), Parse::Refuse(HeaderRefusal::V2Family(4)));
    assert_eq!(at(&[0x21, 0x13]), Parse::Refuse(HeaderRefusal::V2Transport(3)));
    assert_eq!(at(&[0x21, 0x11, 0x10]), Parse::NeedMore);
    assert_eq!(at(&[0x21, 0x11, 0xff, 0xff]), Parse::Refuse(HeaderRefusal::V2TooLong(65551)));
}

#[test]
fn any_changed_bit_of_a_checked_header_is_noticed_after_its_fixed_part() {
    let header = Fields { authority: Some("nas.example"), crc32c: true, ..fields() }.build();
    let right = parse(&header);
    for bit in 16 * 8..header.len() * 8 {
        let mut wrong = header.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        match parse(&wrong) {
            Parse::Refuse(_) => {}
            // The checksum's own type may become another: then the header has none. What it says is then not its sum.
            Parse::Done { value, .. } => assert!(value.tlvs.crc32c().is_none() && parse(&wrong) != right, "bit {bit}"),
            Parse::NeedMore => panic!("bit {bit} must not change the length"),
        }
    }
}

proptest! {
    #[test]
    fn what_is_built_is_read(
        client: (IpAddr, u16),
        destination: (IpAddr, u16),
        datagram: bool,
        alpn in option::of(vec(any::<u8>(), 0..=255)),
        authority in option::of("[a-zé.]{0,60}"),
        unique_id in option::of(vec(any::<u8>(), 0..=128)),
        crc32c: bool,
        after: Vec<u8>,
    ) {
        let (client, destination) = (SocketAddr::from(client), SocketAddr::from(destination));
        let transport = if datagram { Announced::Datagram } else { Announced::Stream };
        let fields = Fields {
            alpn: alpn.as_deref(),
            authority: authority.as_deref(),
            unique_id: unique_id.as_deref(),
            crc32c,
            ..Fields::bare(transport, client, destination)
        };
        let header = fields.build();
        prop_assert_eq!(header.len(), fields.encoded_len());
        let bytes = [header.as_slice(), &after].concat();
        let Parse::Done { value, consumed } = parse(&bytes) else { panic!("{bytes:02x?}") };
        prop_assert_eq!(consumed, header.len());
        let refused = if datagram { None } else { Some(HeaderRefusal::V2OtherTransport) };
        prop_assert_eq!(parse_datagram(&bytes).err(), refused);
        prop_assert_eq!(value.addresses, Some(Endpoints::of(client, destination).pair()));
        prop_assert_eq!(value.transport == HeaderTransport::Datagram, datagram);
        prop_assert_eq!(value.tlvs.alpn(), alpn.as_deref());
        prop_assert_eq!(value.tlvs.authority(), authority.as_deref());
        prop_assert_eq!(value.tlvs.unique_id(), unique_id.as_deref());
        prop_assert_eq!(value.tlvs.crc32c().is_some(), crc32c);
    }
}
