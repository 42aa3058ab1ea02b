use std::path::Path;

use regex::Regex;

use super::*;
use crate::config::model::{Rule, Transport};
use crate::route::decide::{decide, Arrived, Decision};
use crate::route::sample::{arrived, config, rule, speaking};

fn vector(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file)).unwrap()
}

fn named(pattern: &str, backend: usize) -> Rule {
    Rule { server_name: Some(Regex::new(pattern).unwrap()), ..rule(backend) }
}

fn backend(decision: Decision) -> Option<usize> {
    match decision {
        Decision::Forward { backend, .. } => Some(backend.0),
        Decision::NeedMore => None,
        other @ (Decision::Refuse { .. } | Decision::NoRule) => panic!("{other:?}"),
    }
}

/// caddy-l4 #455 with the bytes of Chromium: a hello with a post-quantum key in two segments, whatever their border.
#[test]
fn a_hello_in_segments_is_led_by_its_name_although_later_rules_know_at_once() {
    let config =
        config(vec![named(r"\.elsewhere$", 0), named(r"^chromium\.", 1), speaking(&[Protocol::Http1], 2), rule(3)]);
    let hello = vector("client_hello/chromium.bin");
    assert!(hello.len() > 1460, "more than one segment");
    for cut in 1..hello.len() {
        let mut preface = TcpPreface::new(hello[..cut].to_vec());
        assert_eq!(backend(decide(&config, &arrived(), &mut preface)), None, "the first {cut} bytes");
        preface.extend(&hello[cut..]);
        assert_eq!(backend(decide(&config, &arrived(), &mut preface)), Some(1), "cut at {cut}");
    }
}

#[test]
fn a_hello_in_datagrams_is_led_by_its_name() {
    let config = config(vec![speaking(&[Protocol::Dns], 0), named(r"^chromium\.example$", 1), rule(2)]);
    let lines = String::from_utf8(vector("quic_initial/chromium.hex")).unwrap();
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    let datagrams: Vec<Vec<u8>> = lines.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect();
    assert_eq!(datagrams.len(), 2);
    let udp = Arrived { transport: Transport::Udp, ..arrived() };
    for order in [[0, 1], [1, 0]] {
        let mut preface = DatagramPreface::new(datagrams[order[0]].clone());
        assert_eq!(backend(decide(&config, &udp, &mut preface)), None, "{order:?}");
        assert!(preface.push(datagrams[order[1]].clone()));
        assert_eq!(backend(decide(&config, &udp, &mut preface)), Some(1), "{order:?}");
    }
}

#[test]
fn a_connection_is_asked_again_only_while_it_needs_more() {
    let mut preface = TcpPreface::default();
    assert_eq!((preface.is(Protocol::Ssh), preface.is(Protocol::Http1)), (Sniffed::NeedMore, Sniffed::NeedMore));
    preface.extend(b"SSH");
    assert_eq!((preface.is(Protocol::Ssh), preface.is(Protocol::Http1)), (Sniffed::NeedMore, Sniffed::NeedMore));
    preface.extend(b"-2.0-a\r\n");
    assert_eq!(preface.answers.0, BTreeMap::new());
    assert_eq!((preface.is(Protocol::Ssh), preface.is(Protocol::Http1)), (Sniffed::Yes(Found::default()), Sniffed::No));
    let expected = [(Protocol::Http1, Sniffed::No), (Protocol::Ssh, Sniffed::Yes(Found::default()))];
    assert_eq!(preface.answers.0, BTreeMap::from(expected));
    assert_eq!(preface.found(), Some((Protocol::Ssh, &Found::default())));
    assert_eq!(
        (preface.bytes(), preface.clone().into_bytes().as_slice()),
        (&b"SSH-2.0-a\r\n"[..], &b"SSH-2.0-a\r\n"[..])
    );
}

#[test]
fn a_known_answer_is_not_looked_up_again() {
    let mut answers = Answers::default();
    assert_eq!(answers.ask(Protocol::Ssh, || Sniffed::NeedMore), Sniffed::NeedMore);
    assert_eq!(answers.ask(Protocol::Ssh, || Sniffed::No), Sniffed::No);
    assert_eq!(answers.ask(Protocol::Ssh, || panic!("asked again")), Sniffed::No);
    assert_eq!(answers.found(), None);
}

#[test]
fn who_needs_no_name_need_not_wait_for_it() {
    let mut request = TcpPreface::new(b"GET / HTTP/1.1\r\nHost: a".to_vec());
    assert_eq!(
        (request.is(Protocol::Http1), request.is_certainly(Protocol::Http1)),
        (Sniffed::NeedMore, Sniffed::Yes(Found::default()))
    );
    let mut preface = TcpPreface::new(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
    assert_eq!(
        (preface.is(Protocol::Http2), preface.is_certainly(Protocol::Http2)),
        (Sniffed::NeedMore, Sniffed::Yes(Found::default()))
    );
    assert_eq!(preface.is_certainly(Protocol::Http1), Sniffed::No);
}

#[test]
fn silence_is_not_spoken_once_there_is_a_byte() {
    let mut preface = TcpPreface::default();
    assert_eq!(preface.is(Protocol::Silence), Sniffed::NeedMore);
    preface.silence_passed();
    assert_eq!(
        (preface.is(Protocol::Silence), preface.is(Protocol::Ssh)),
        (Sniffed::Yes(Found::default()), Sniffed::No)
    );
    preface.extend(b"S");
    assert_eq!((preface.is(Protocol::Silence), preface.is(Protocol::Ssh)), (Sniffed::No, Sniffed::NeedMore));
}

#[test]
fn datagrams_are_kept_in_order_up_to_a_bound() {
    let mut preface = DatagramPreface::new(vec![0]);
    for number in 1..MOST_DATAGRAMS {
        assert!(preface.push(vec![u8::try_from(number).unwrap()]));
    }
    assert!(!preface.push(vec![9]));
    let kept: Vec<_> = (0..MOST_DATAGRAMS).map(|number| vec![u8::try_from(number).unwrap()]).collect();
    assert_eq!((preface.datagrams(), preface.clone().into_datagrams()), (kept.as_slice(), kept.clone()));
}

#[test]
fn the_first_datagram_is_whole() {
    let mut preface = DatagramPreface::new(vec![1, 0, 0]);
    assert_eq!(preface.is(Protocol::Wireguard), Sniffed::No);
    assert_eq!((preface.is(Protocol::Silence), preface.is(Protocol::Ssh)), (Sniffed::No, Sniffed::No));
    let mut keepalive = DatagramPreface::new([vec![4, 0, 0, 0], vec![7; 28]].concat());
    assert_eq!(keepalive.is(Protocol::Wireguard), Sniffed::Yes(Found::default()));
    assert_eq!(keepalive.found(), Some((Protocol::Wireguard, &Found::default())));
}
