//! The body of each fuzz target over the inputs that are kept for it (`proxy/fuzz/corpus/TARGET`).

#![allow(clippy::unwrap_used)] // all of this crate is a test

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use edgeproxy::{config, names, operation, sniff, wire};

type Body = fn(&[u8]);

/// Every target and its body.
const TARGETS: &[(&str, Body)] = &[
    ("admin_request", operation::fuzz::admin_request),
    ("client_hello", |bytes| drop(sniff::fuzz::client_hello(bytes))),
    ("config", config::fuzz::config),
    ("dns_answer", names::fuzz::answer),
    ("handed_over", operation::fuzz::handed_over),
    ("header_block", sniff::fuzz::header_block),
    ("metrics_request", operation::fuzz::metrics_request),
    ("proxy_header", wire::fuzz::proxy_header),
    ("quic_initial", |bytes| drop(sniff::fuzz::quic_initial(bytes))),
    ("sniff", sniff::fuzz::sniff),
    ("system_files", names::fuzz::system_files),
];

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_kept_input_obeys_the_laws() {
    for (target, body) in TARGETS {
        let inputs: Vec<PathBuf> =
            fs::read_dir(fuzz().join("corpus").join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for input in inputs {
            body(&fs::read(input).unwrap());
        }
    }
}

#[test]
fn every_target_is_known_here() {
    let names = |folder: &str| -> BTreeSet<String> {
        fs::read_dir(fuzz().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    let known: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), known);
    assert_eq!(names("corpus"), known);
}
