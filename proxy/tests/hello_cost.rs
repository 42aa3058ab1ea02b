//! What it costs to read a hello. Measures, so it runs alone: `cargo test --release --test hello_cost -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)] // these are tests, helpers too; the figures are for a person

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use edgeproxy::sniff::{quic, tls, Sniffed};

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)).unwrap()
}

fn datagrams(name: &str) -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    vector(name).split(|&byte| byte == b'\n').map(|line| line.chunks(2).map(byte).collect()).collect()
}

/// The median of many runs.
fn median(what: &str, runs: usize, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (middle, late) = (times[runs / 2], times[runs * 99 / 100]);
    eprintln!("{what}: median {middle:?}, 99th percentile {late:?}");
    middle
}

#[test]
#[ignore = "measures times; run by itself, in a release build"]
fn a_quic_route_decision_takes_at_most_50_microseconds() {
    for name in ["rfc9001_a2", "chromium", "quic_go_v1", "quic_go_v2", "aioquic_v1_long"] {
        let flow = datagrams(&format!("quic_initial/{name}.hex"));
        let took = median(&format!("QUIC, {name}"), 20_000, || {
            let mut reader = quic::InitialReader::default();
            let answer = flow
                .iter()
                .map(|datagram| reader.push(black_box(datagram)))
                .find(|answer| *answer != Sniffed::NeedMore);
            assert!(matches!(answer, Some(Sniffed::Yes(_))));
        });
        assert!(took <= Duration::from_micros(50), "{name}: {took:?}");
    }
}

#[test]
#[ignore = "measures times; run by itself, in a release build"]
fn a_tls_hello_costs_in_proportion_to_its_bytes_however_it_is_cut() {
    let whole = vector("client_hello/chromium.bin");
    median("TLS, Chromium's hello in one piece", 20_000, || {
        assert!(matches!(tls::parse(black_box(&whole)), Sniffed::Yes(_)));
    });
    median("TLS, Chromium's hello byte by byte", 2_000, || {
        let mut reader = tls::HelloReader::default();
        assert!(whole.iter().any(|byte| reader.push(&[*byte]) != Sniffed::NeedMore));
    });
    let dribble = |length: usize| {
        // Records of one byte that never complete the hello: what an attacker would send.
        let begin = [1, 0, 0xff, 0xff, 3, 3].into_iter().chain(std::iter::repeat(7)).take(length);
        let stream: Vec<u8> = begin.flat_map(|byte| [22, 3, 1, 0, 1, byte]).collect();
        median(&format!("TLS, {length} records of one byte, byte by byte"), 50, || {
            let mut reader = tls::HelloReader::default();
            assert!(stream.iter().all(|byte| reader.push(black_box(&[*byte])) == Sniffed::NeedMore));
        })
    };
    let (short, long) = (dribble(8_000), dribble(64_000));
    assert!(long < short * 16, "eight times the bytes: {short:?}, {long:?}");
}
