//! Every file of `tests/vectors/proxy_header`: bytes in hexadecimal, below what is expected of them.
//!
//! ```text
//! # why this one
//! # stream: ...       what `proxy_header::detect_and_parse` says
//! # datagram: ...     what `proxy_v2::parse_datagram` says
//! # spp: ...          what `spp::parse_datagram` says
//! # rebuilds: FORM    from what was read, the same bytes are built again
//! ```

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // all of this crate is a test

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use edgeproxy::wire::header::{Command, HeaderRefusal, HeaderTransport, ProxyHeader};
use edgeproxy::wire::proxy_header::detect_and_parse;
use edgeproxy::wire::proxy_v2::{Announced, Fields};
use edgeproxy::wire::tlv::{Ssl, Tlv};
use edgeproxy::wire::{fuzz, proxy_v1, proxy_v2, spp, Parse};

struct Vector {
    name: String,
    expected: Vec<(String, String)>,
    bytes: Vec<u8>,
}

#[test]
fn every_vector_is_read_as_it_says() {
    let vectors = vectors();
    assert!(!vectors.is_empty(), "no vectors");
    for vector in &vectors {
        assert!(!vector.expected.is_empty(), "{}: expects nothing", vector.name);
        for (key, expected) in &vector.expected {
            let found = match key.as_str() {
                "stream" => stream(&vector.bytes),
                "datagram" => datagram(proxy_v2::parse_datagram(&vector.bytes)),
                "spp" => datagram(spp::parse_datagram(&vector.bytes).map(|header| (header, spp::LENGTH))),
                "rebuilds" => rebuild(expected, &vector.bytes),
                other => panic!("{}: what is {other}?", vector.name),
            };
            assert_eq!(&found, expected, "{}: {key}", vector.name);
        }
    }
}

#[test]
fn the_laws_hold_for_every_vector_and_every_cut_of_it() {
    for vector in vectors() {
        for cut in 0..=vector.bytes.len().min(160) {
            fuzz::proxy_header(&vector.bytes[..cut]);
        }
        fuzz::proxy_header(&vector.bytes);
        let followed = [vector.bytes.as_slice(), b"\r\n\r\n\0\r\nQUIT\n"].concat();
        fuzz::proxy_header(&followed);
    }
}

#[test]
fn every_refusal_has_a_vector() {
    let known = [
        HeaderRefusal::V1TooLong,
        HeaderRefusal::V1LineEnd,
        HeaderRefusal::V1Fields,
        HeaderRefusal::V1Protocol,
        HeaderRefusal::V1Address,
        HeaderRefusal::V1Port,
        HeaderRefusal::V2Missing,
        HeaderRefusal::V2Version(0),
        HeaderRefusal::V2Command(0),
        HeaderRefusal::V2Family(0),
        HeaderRefusal::V2Transport(0),
        HeaderRefusal::V2OtherTransport,
        HeaderRefusal::V2TooLong(0),
        HeaderRefusal::V2AddressesCut(0),
        HeaderRefusal::V2Cut,
        HeaderRefusal::TlvCut,
        HeaderRefusal::TlvOverrun,
        HeaderRefusal::AuthorityEncoding,
        HeaderRefusal::Crc32cLength(0),
        HeaderRefusal::Crc32cTwice,
        HeaderRefusal::Crc32cMismatch,
        HeaderRefusal::UniqueIdLength(0),
        HeaderRefusal::SslCut(0),
        HeaderRefusal::SslTlvCut,
        HeaderRefusal::SslTlvOverrun,
        HeaderRefusal::NetnsEncoding,
        HeaderRefusal::SppMissing,
        HeaderRefusal::SppCut,
    ];
    let mut labels: BTreeSet<String> = known.iter().map(|refusal| refused(refusal.label())).collect();
    assert_eq!(labels.len(), known.len(), "two refusals share a label");
    labels.insert(refused("not_a_header"));
    let found: BTreeSet<String> = vectors()
        .into_iter()
        .flat_map(|vector| vector.expected)
        .map(|(_, expected)| expected)
        .filter(|expected| expected.starts_with("refuse "))
        .collect();
    assert_eq!(found, labels);
}

fn vectors() -> Vec<Vector> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/proxy_header");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| vector(file.file_name().unwrap().to_string_lossy().into_owned(), file)).collect()
}

fn vector(name: String, file: &PathBuf) -> Vector {
    let text = fs::read_to_string(file).unwrap();
    let (comments, hex): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
    let expected = comments
        .iter()
        .skip(1) // the reason
        .map(|line| line.trim_start_matches("# ").split_once(": ").unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let digits = hex.concat();
    assert!(digits.len() % 2 == 0, "{name}: half a byte");
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    Vector { name, expected, bytes }
}

fn stream(bytes: &[u8]) -> String {
    match detect_and_parse(bytes) {
        Parse::Done { value, consumed } => done(&value, consumed),
        Parse::NeedMore => "more".to_owned(),
        Parse::Refuse(refusal) => refused(refusal.label()),
    }
}

fn datagram(answer: Result<(ProxyHeader, usize), HeaderRefusal>) -> String {
    answer.map_or_else(|refusal| refused(refusal.label()), |(header, payload_at)| done(&header, payload_at))
}

fn refused(label: &str) -> String {
    format!("refuse {label}")
}

fn done(header: &ProxyHeader, consumed: usize) -> String {
    let command = match header.command {
        Command::Local => "local",
        Command::Proxy => "proxy",
    };
    let transport = match header.transport {
        HeaderTransport::Unspecified => "unspecified",
        HeaderTransport::Stream => "stream",
        HeaderTransport::Datagram => "datagram",
    };
    let addresses = header.addresses.map_or("own".to_owned(), |(client, original)| format!("{client}>{original}"));
    let tlvs: String = header.tlvs.iter().map(|tlv| format!(" {}", described(tlv))).collect();
    format!("done {consumed} {command} {transport} {addresses}{tlvs}")
}

fn described(tlv: Tlv<'_>) -> String {
    match tlv {
        Tlv::Alpn(value) => format!("alpn={}", value.escape_ascii()),
        Tlv::Authority(name) => format!("authority={name}"),
        Tlv::Crc32c(sum) => format!("crc32c={sum:08x}"),
        Tlv::Noop(value) => format!("noop={}", value.len()),
        Tlv::UniqueId(value) => format!("unique_id={}", hexadecimal(value)),
        Tlv::Ssl(ssl) => format!("ssl={},{}[{}]", ssl.client, ssl.verify, within(ssl)),
        Tlv::Netns(name) => format!("netns={name}"),
        Tlv::Other { kind, value } => format!("{kind:02x}={}", hexadecimal(value)),
    }
}

fn within(ssl: Ssl<'_>) -> String {
    let fields: Vec<String> =
        ssl.fields().map(|(kind, value)| format!("{kind:02x}={}", value.escape_ascii())).collect();
    fields.join(" ")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The form, if building what was read gives the bytes again.
fn rebuild(form: &str, bytes: &[u8]) -> String {
    let header = match (proxy_v1::parse(bytes), proxy_v2::parse(bytes)) {
        (Parse::Done { value, .. }, _) | (_, Parse::Done { value, .. }) => value,
        _ => spp::parse_datagram(bytes).unwrap(),
    };
    if form == "local" {
        return same(form, bytes, proxy_v2::LOCAL);
    }
    let (client, destination) = header.addresses.unwrap();
    match form {
        "v1" => same(form, bytes, &proxy_v1::build(client, destination)),
        "spp" => same(form, bytes, &spp::build(client, destination)),
        _ => same(form, bytes, &fields(&header).build()),
    }
}

fn fields(header: &ProxyHeader) -> Fields<'_> {
    let (client, destination) = header.addresses.unwrap();
    let transport = if header.transport == HeaderTransport::Datagram { Announced::Datagram } else { Announced::Stream };
    Fields {
        alpn: header.tlvs.alpn(),
        authority: header.tlvs.authority(),
        unique_id: header.tlvs.unique_id(),
        crc32c: header.tlvs.iter().any(|tlv| matches!(tlv, Tlv::Crc32c(_))),
        ..Fields::bare(transport, client, destination)
    }
}

fn same(form: impl Display, bytes: &[u8], built: &[u8]) -> String {
    if bytes.starts_with(built) {
        form.to_string()
    } else {
        format!("other bytes: {}", hexadecimal(built))
    }
}
