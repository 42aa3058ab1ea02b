//! First bytes of real clients, and the laws that all parsers keep for them: each cut needs more until one answer stays, and
//! no protocol is taken for another.

use std::collections::BTreeSet;
use std::path::Path;
use std::slice::from_ref;

use proptest::prelude::*;

use super::{dispatch, fuzz, Found, Sniffed};
use crate::config::model::{Protocol, Transport};

pub(crate) fn yes(name: Option<&str>) -> Sniffed {
    Sniffed::Yes(Found { name: name.map(str::to_owned), ..Found::default() })
}

/// The answer to all of `bytes`; each begin of them needs more, or is answered as they are, and what follows changes nothing.
pub(crate) fn cut_everywhere(sniff: impl Fn(&[u8]) -> Sniffed, bytes: &[u8]) -> Sniffed {
    let whole = sniff(bytes);
    let mut settled = false;
    for end in 0..=bytes.len() {
        let answer = sniff(&bytes[..end]);
        assert!(end > 0 || answer == Sniffed::NeedMore, "nothing may be anything");
        settled |= answer != Sniffed::NeedMore;
        assert!(!settled || answer == whole, "the first {end} bytes: {answer:?}, all: {whole:?}");
    }
    for follows in [&b"\0"[..], b"\xff\xff\xff", b"\r\n\r\nHost: b\r\n\r\n"] {
        assert_eq!(sniff(&[bytes, follows].concat()), whole, "{follows:?} follows");
    }
    whole
}

struct Vector {
    file: String,
    transport: Transport,
    protocol: Protocol,
    name: Option<String>,
    bytes: Vec<u8>,
}

/// `# where it is from`, then `tcp PROTOCOL NAME` or `udp PROTOCOL -`, then the bytes in hexadecimal.
fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/sniff");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let vectors: Vec<_> = paths.iter().map(|path| vector(path)).collect();
    assert!(vectors.len() >= 25, "only {} vectors", vectors.len());
    vectors
}

fn vector(path: &Path) -> Vector {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut words = lines.next().unwrap().split(' ');
    let transport = match words.next() {
        Some("tcp") => Transport::Tcp,
        Some("udp") => Transport::Udp,
        other => panic!("{}: {other:?}", path.display()),
    };
    let protocol = words.next().unwrap();
    let protocol = *fuzz::ALL.iter().find(|it| format!("{it:?}") == protocol).unwrap();
    let name = words.next().filter(|name| *name != "-").map(str::to_owned);
    let digits: Vec<u8> = lines.flat_map(str::bytes).filter(u8::is_ascii_hexdigit).collect();
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    assert!(!bytes.is_empty(), "{}", path.display());
    Vector { file: path.file_name().unwrap().to_string_lossy().into_owned(), transport, protocol, name, bytes }
}

fn answer(protocol: Protocol, vector: &Vector) -> Sniffed {
    match vector.transport {
        Transport::Tcp => dispatch::of_stream(protocol, &vector.bytes),
        Transport::Udp => dispatch::of_datagrams(protocol, from_ref(&vector.bytes)),
    }
}

#[test]
fn each_is_what_it_is() {
    for vector in vectors() {
        let expected = yes(vector.name.as_deref());
        match vector.transport {
            Transport::Tcp => {
                let sniff = |bytes: &[u8]| dispatch::of_stream(vector.protocol, bytes);
                assert_eq!(cut_everywhere(sniff, &vector.bytes), expected, "{}", vector.file);
            }
            Transport::Udp => assert_eq!(answer(vector.protocol, &vector), expected, "{}", vector.file),
        }
    }
}

#[test]
fn none_is_something_else_or_leaves_another_protocol_open() {
    for vector in vectors() {
        for other in fuzz::ALL.into_iter().filter(|it| *it != vector.protocol) {
            assert_eq!(answer(other, &vector), Sniffed::No, "{} as {other:?}", vector.file);
        }
    }
}

#[test]
fn each_protocol_has_a_vector() {
    let elsewhere = [Protocol::Tls, Protocol::Quic, Protocol::Dtls];
    let had: BTreeSet<_> = vectors().iter().map(|vector| vector.protocol).collect();
    for protocol in fuzz::ALL.into_iter().filter(|it| !elsewhere.contains(it)) {
        assert!(had.contains(&protocol), "{protocol:?}");
    }
}

#[test]
fn a_cut_datagram_never_needs_more() {
    let udp = vectors().into_iter().filter(|vector| vector.transport == Transport::Udp);
    let cut = udp.flat_map(|vector| (0..vector.bytes.len()).map(move |end| vector.bytes[..end].to_vec()));
    for datagram in cut {
        for protocol in fuzz::ALL.into_iter().filter(|it| !matches!(it, Protocol::Quic | Protocol::Dtls)) {
            assert_ne!(dispatch::of_datagrams(protocol, from_ref(&datagram)), Sniffed::NeedMore, "{protocol:?}");
        }
    }
}

#[test]
fn the_laws_hold_for_all_vectors() {
    vectors().iter().for_each(|vector| fuzz::sniff(&vector.bytes));
}

proptest! {
    #[test]
    fn the_laws_hold_for_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz::sniff(&bytes);
    }

    /// Damaged vectors come further than noise does.
    #[test]
    fn the_laws_hold_for_damaged_vectors(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = which.get(&vectors()).bytes.clone();
        *at.get_mut(&mut bytes) = byte;
        fuzz::sniff(&bytes);
    }
}
