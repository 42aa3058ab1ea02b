//! Lines as those who read them find them, whatever clients chose.

use std::io::ErrorKind;

use proptest::prelude::*;
use serde_json::{json, Value};

use super::*;

pub(in crate::operation) fn plain(unique_id: &UniqueId) -> Record<'_> {
    Record {
        time: UNIX_EPOCH + Duration::new(1_709_210_096, 123_456_789),
        unique_id,
        listener: "web",
        transport: Transport::Tcp,
        peer: "[2001:db8::7]:40000".parse().unwrap(),
        client: "203.0.113.7:50000".parse().unwrap(),
        original_dst: "198.51.100.1:443".parse().unwrap(),
        protocol: None,
        server_name: None,
        alpn: &[],
        ech: false,
        rule: None,
        backend: None,
        target: None,
        source: None,
        subflows: None,
        header_in: HeaderIn::NotExpected,
        header_out: HeaderOut::None,
        bytes_in: 0,
        bytes_out: 0,
        preface: None,
        connect: None,
        total: Duration::ZERO,
        close: CloseReason::Denied,
        left_out: 0,
    }
}

fn parsed(record: &Record<'_>) -> Value {
    let mut line = Vec::new();
    record.write(&mut line);
    assert!(line.ends_with(b"}\n"));
    let inside = &line[..line.len() - 1];
    assert!(inside.iter().all(|byte| (b' '..=b'~').contains(byte)), "{}", String::from_utf8_lossy(inside));
    serde_json::from_slice(inside).unwrap()
}

#[test]
fn each_field_is_in_the_line() {
    let id = UniqueId::Own([0xab; 16]);
    let alpn = [b"h2".to_vec(), b"http/1.1".to_vec()];
    let record = Record {
        protocol: Some(Protocol::Tls),
        server_name: Some("git.nas.example.net"),
        alpn: &alpn,
        ech: true,
        rule: Some("names"),
        backend: Some("home"),
        target: Some("100.64.0.2:4443".parse().unwrap()),
        source: Some(SourceUsed::ClientEndpoint),
        subflows: Some(2),
        header_in: HeaderIn::V2,
        header_out: HeaderOut::V1,
        bytes_in: 517,
        bytes_out: u64::MAX,
        preface: Some(Duration::from_micros(120)),
        connect: Some(Duration::from_millis(3)),
        total: Duration::from_secs(9),
        close: CloseReason::IoError(ErrorKind::BrokenPipe),
        left_out: 6,
        ..plain(&id)
    };
    let expected = json!({
        "time": "2024-02-29T12:34:56.123456Z", "unique_id": "ab".repeat(16), "listener": "web", "transport": "tcp",
        "peer": "[2001:db8::7]:40000", "client": "203.0.113.7:50000", "original_dst": "198.51.100.1:443",
        "protocol": "tls", "server_name": "git.nas.example.net", "alpn": ["h2", "http/1.1"], "ech": true, "rule": "names",
        "backend": "home", "target": "100.64.0.2:4443", "source": "client_endpoint", "backend_subflows": 2, "header_in": "v2",
        "header_out": "v1", "bytes_in": 517, "bytes_out": u64::MAX, "preface_us": 120, "connect_us": 3_000,
        "total_us": 9_000_000, "close": "io_error", "close_detail": "broken_pipe",
        "left_out": 6,
    });
    assert_eq!(parsed(&record), expected);
}

#[test]
fn what_is_unknown_is_left_out() {
    let id = UniqueId::Own([0; 16]);
    let line = parsed(&plain(&id));
    for absent in [
        "server_name",
        "alpn",
        "ech",
        "rule",
        "backend",
        "target",
        "source",
        "backend_subflows",
        "connect_us",
        "close_detail",
        "left_out",
    ] {
        assert_eq!(line.get(absent), None, "{absent}");
    }
    assert_eq!(line["close"], "denied");
}

#[test]
fn hostile_names_stay_inside_their_string() {
    let id = UniqueId::Own([0; 16]);
    let names = ["a\",\"close\":\"x", "\\", "\u{1b}[2J\u{7f}\0\r\n", "\u{2028}\u{202e}\u{9b}", "😀é", ""];
    for name in names {
        let alpn = [name.as_bytes().to_vec(), b"\xff\xfe\"".to_vec()];
        let line = parsed(&Record { server_name: Some(name), alpn: &alpn, rule: Some(name), ..plain(&id) });
        assert_eq!((&line["server_name"], &line["rule"]), (&json!(name), &json!(name)));
        assert_eq!((&line["alpn"][1], &line["close"]), (&json!("\\xff\\xfe\""), &json!("denied")));
    }
}

#[test]
fn a_line_is_bounded_whatever_clients_chose() {
    let id = UniqueId::Given([b'x'; 128].as_slice().into());
    let name = "\u{10ffff}".repeat(20_000);
    let alpn = vec![vec![0; 255]; 1_000];
    let mut line = Vec::new();
    Record { server_name: Some(&name), alpn: &alpn, ..plain(&id) }.write(&mut line);
    assert!(line.len() < 6 * 1024, "{}", line.len());
}

#[test]
fn days_are_those_of_the_calendar() {
    for (days, date) in [(0, (1970, 1, 1)), (58, (1970, 2, 28)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29))] {
        assert_eq!(civil(days), date);
    }
    assert_eq!((civil(47_540), civil(47_541)), ((2100, 2, 28), (2100, 3, 1)));
    assert_eq!(civil(364), (1970, 12, 31));
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back(name in "\\PC{0,40}|[\\x00-\\x1f\"\\\\]{0,9}", word in prop::collection::vec(any::<u8>(), 0..40)) {
        let id = UniqueId::Given(word.clone().into());
        let line = parsed(&Record { server_name: Some(&name), alpn: &[word], backend: Some(&name), ..plain(&id) });
        prop_assert_eq!(&line["server_name"], &json!(name));
        prop_assert_eq!(&line["backend"], &json!(name));
    }
}
