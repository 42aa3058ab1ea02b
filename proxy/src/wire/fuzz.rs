//! The bodies of the fuzz targets (`proxy/fuzz`): each states the laws of one parser for arbitrary bytes, and fails by an
//! assertion. Unit tests run them over the kept corpus and over random bytes.

use std::fmt::Debug;

use super::header::{HeaderTransport, ProxyHeader};
use super::proxy_v2::{Announced, Fields};
use super::signature::{self, HopKey};
use super::tlv::Tlvs;
use super::udp_preface::{self, DatagramPreface, DatagramRule, PeerFraming};
use super::{proxy_header, proxy_v1, proxy_v2, spp, Parse};

/// Bytes after a decision that are given one by one; then the whole input is given at once.
const BYTES_AFTER: usize = 4;

/// The laws of [`Parse`] for one input: before a decision every prefix needs more; the decision stays whatever follows; a value
/// takes exactly the bytes with which it was first decided.
pub fn every_prefix<T: Debug + PartialEq, R: Debug + PartialEq>(bytes: &[u8], parse: impl Fn(&[u8]) -> Parse<T, R>) {
    let prefix = |length: usize| bytes.get(..length).unwrap_or(bytes);
    let decided = (0..=bytes.len()).map(|length| (length, parse(prefix(length))));
    let Some((length, answer)) = decided.into_iter().find(|(_, answer)| *answer != Parse::NeedMore) else { return };
    if let Parse::Done { consumed, .. } = &answer {
        assert_eq!(*consumed, length, "a value is decided with its last byte");
    }
    for longer in (length..=bytes.len()).take(BYTES_AFTER).chain([bytes.len()]) {
        assert_eq!(parse(prefix(longer)), answer, "decided after {length} bytes, asked again after {longer}");
    }
}

/// PROXY headers of both versions, of streams and of datagrams, and Cloudflare's.
pub fn proxy_header(bytes: &[u8]) {
    every_prefix(bytes, proxy_header::detect_and_parse);
    every_prefix(bytes, proxy_v1::parse);
    every_prefix(bytes, proxy_v2::parse);
    if let Parse::Done { value, consumed } = proxy_header::detect_and_parse(bytes) {
        rebuilt(&value);
        signed(bytes.get(..consumed).unwrap_or_default());
        let is_v2 = bytes.starts_with(proxy_v2::SIGNATURE);
        // Who is named by a stream's header is not by a datagram's.
        let is_of_both = is_v2 && value.addresses.is_none();
        assert_eq!(proxy_v2::parse_datagram(bytes).ok(), is_of_both.then_some((value, consumed)));
    }
    if let Ok(header) = spp::parse_datagram(bytes) {
        rebuilt(&header);
    }
    datagrams(bytes);
}

/// Whatever a header has in place of a signature, no key has made it; and signed in its place, it is one.
fn signed(header: &[u8]) {
    let Some(key) = HopKey::of(b"nobody who writes corpora has it") else { return };
    let Ok(found) = signature::read(header) else { return };
    assert!(!key.has_signed(header, &found));
    let mut again = header.to_vec();
    key.sign(&mut again, found.stamp);
    let read = signature::read(&again);
    assert!(read.is_ok_and(|read| read.stamp == found.stamp && key.has_signed(&again, &read)));
    assert!(matches!(proxy_header::detect_and_parse(&again), Parse::Done { consumed, .. } if consumed == again.len()));
}

/// What was read can be said again, in every form that has a place for it.
fn rebuilt(header: &ProxyHeader) {
    assert_eq!(Tlvs::read(header.tlvs.as_bytes()).as_ref(), Ok(&header.tlvs));
    assert_eq!(header.tlvs.is_empty(), header.tlvs.iter().next().is_none());
    let Some((client, destination)) = header.addresses else { return };
    let transport = match header.transport {
        HeaderTransport::Stream => Announced::Stream,
        HeaderTransport::Datagram => Announced::Datagram,
        HeaderTransport::Unspecified => return,
    };
    let fields = Fields {
        alpn: header.tlvs.alpn(),
        authority: header.tlvs.authority(),
        unique_id: header.tlvs.unique_id(),
        crc32c: true,
        received: Some(&header.tlvs),
        ..Fields::bare(transport, client, destination)
    };
    let built = fields.build();
    assert_eq!(built.len(), fields.encoded_len());
    let Parse::Done { value, consumed } = proxy_v2::parse(&built) else {
        assert!(built.is_empty(), "what was built is not read: {built:02x?}");
        return;
    };
    assert_eq!((value.addresses, value.transport, consumed), (header.addresses, header.transport, built.len()));
    assert_eq!(value.tlvs.unique_id(), header.tlvs.unique_id());

    let line = proxy_v1::build(client, destination);
    assert!(line.len() <= proxy_v1::MAX_LENGTH);
    let read = |bytes: &[u8]| match proxy_v1::parse(bytes) {
        Parse::Done { value, .. } => value.addresses,
        Parse::NeedMore | Parse::Refuse(_) => None,
    };
    assert_eq!(read(&line), header.addresses);
    assert_eq!(
        spp::parse_datagram(&spp::build(client, destination)).ok().and_then(|read| read.addresses),
        header.addresses
    );
}

/// Whatever was learned of a peer's socket, a payload begins within its datagram and headers come from nothing but its bytes.
fn datagrams(bytes: &[u8]) {
    let framings = [PeerFraming::Unheard, PeerFraming::Every, PeerFraming::First, PeerFraming::Spp, PeerFraming::Bare];
    for rule in [DatagramRule::Auto, DatagramRule::Every, DatagramRule::First, DatagramRule::Spp] {
        for learned in framings {
            match udp_preface::read(rule, learned, bytes) {
                Ok((then, DatagramPreface::Header { payload_at, .. })) => {
                    assert!(payload_at <= bytes.len());
                    assert!(then != PeerFraming::Unheard && then != PeerFraming::Bare);
                }
                Ok((then, DatagramPreface::Continued)) => assert_eq!(then, PeerFraming::First),
                Ok((then, DatagramPreface::Missing)) => assert!(then == learned || then == PeerFraming::Bare),
                Err(_broken) => {
                    assert!(bytes.starts_with(proxy_v2::SIGNATURE) || bytes.starts_with(&spp::MAGIC));
                }
            }
        }
    }
}
