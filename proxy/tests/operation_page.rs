//! What people read of logs and metrics is what the proxy writes: each key, each reason, each metric has its row, and no other has.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use edgeproxy::config::model::{Protocol, Transport};
use edgeproxy::operation::access_line::Record;
use edgeproxy::operation::access_log::LogFigures;
use edgeproxy::operation::close_reason::{CloseReason, ALL_LABELS};
use edgeproxy::operation::deny::DenyList;
use edgeproxy::operation::ledger::Names;
use edgeproxy::operation::metrics::render;
use edgeproxy::operation::outcomes::{HeaderIn, HeaderOut, SourceUsed, UdpDrop};
use edgeproxy::operation::state::{KernelRules, State};
use edgeproxy::operation::unique_id::UniqueId;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/edgeproxy_operation.md")).unwrap()
}

/// First cells of the rows of a section.
fn rows(title: &str) -> BTreeSet<String> {
    let page = page();
    let (_, rest) = page.split_once(&format!("\n## {title}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap_or_default();
    let cells: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let rows: BTreeSet<_> = cells.iter().map(|cell| (*cell).to_owned()).collect();
    assert_eq!(rows.len(), cells.len(), "a row of {title:?} stands twice");
    rows
}

#[test]
fn each_key_of_a_log_line_has_its_row() {
    let (id, alpn) = (UniqueId::Own([1; 16]), [b"h2".to_vec()]);
    let record = Record {
        time: SystemTime::now(),
        unique_id: &id,
        listener: "public",
        transport: Transport::Tcp,
        peer: "192.0.2.1:1".parse().unwrap(),
        client: "192.0.2.2:2".parse().unwrap(),
        original_dst: "192.0.2.3:3".parse().unwrap(),
        protocol: Some(Protocol::Tls),
        server_name: Some("git.nas.example.net"),
        alpn: &alpn,
        ech: true,
        rule: Some("by name"),
        backend: Some("nas"),
        target: Some("192.0.2.4:4".parse().unwrap()),
        source: Some(SourceUsed::Own),
        subflows: Some(2),
        header_in: HeaderIn::V2,
        header_out: HeaderOut::V2,
        bytes_in: 1,
        bytes_out: 2,
        preface: Some(Duration::from_micros(3)),
        connect: Some(Duration::from_micros(4)),
        total: Duration::from_micros(5),
        close: CloseReason::HeaderBroken("word"),
        left_out: 6,
    };
    let mut line = Vec::new();
    record.write(&mut line);
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&line).unwrap();
    assert_eq!(rows("The access log"), line.keys().cloned().collect());
}

#[test]
fn words_of_lines_and_metrics_are_told_where_their_key_is() {
    let page = page();
    let row = |key: &str| page.lines().find(|line| line.starts_with(&format!("| `{key}`"))).unwrap();
    for word in UdpDrop::ALL.map(UdpDrop::label) {
        assert!(row("edgeproxy_dropped_datagrams_total").contains(&format!("`{word}`")), "{word}");
    }
    for word in HeaderIn::ALL.map(HeaderIn::label) {
        assert!(row("header_in").contains(&format!("`{word}`")), "{word}");
    }
    for word in HeaderOut::ALL.map(HeaderOut::label) {
        assert!(row("header_out").contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn each_reason_has_its_row() {
    assert_eq!(rows("Why a connection ended"), ALL_LABELS.iter().map(|label| (*label).to_owned()).collect());
}

/// Words of headers that no line has: they are of datagrams, of which none begins a flow without a header that is believed, or of
/// bytes that begin no header at all (`header_missing`).
const NOT_IN_LINES: [&str; 5] = ["v1_missing", "v2_missing", "v2_cut", "spp_missing", "spp_cut"];

/// The words that stand in double quotes on lines of a source file with this sign, between two others.
fn words<'a>(source: &'a str, between: [&str; 2], sign: &str) -> Vec<&'a str> {
    let (_, rest) = source.split_once(between[0]).unwrap();
    let (part, _) = rest.split_once(between[1]).unwrap();
    part.lines().filter(|line| line.contains(sign)).filter_map(|line| line.split('"').nth(1)).collect()
}

#[test]
fn each_word_of_a_close_detail_is_told() {
    let label = ["const fn label(self)", "\n}\n"];
    let mut known = words(include_str!("../src/route/target.rs"), label, "=>");
    known.extend(words(include_str!("../src/wire/header.rs"), label, "=>"));
    known.extend(words(include_str!("../src/operation/outcomes.rs"), ["impl SignatureFault {", "\n}\n"], "=>"));
    known.extend(words(include_str!("../src/operation/close_reason.rs"), ["const ERROR_KINDS", "];"], "ErrorKind::"));
    known.push(CloseReason::IoError(std::io::ErrorKind::WriteZero).detail().unwrap());
    assert!(known.len() > 50, "{known:?}");
    known.retain(|word| !NOT_IN_LINES.contains(word));
    let page = page();
    let (_, rest) = page.split_once("\n### Words of close_detail\n").unwrap();
    let table = rest.split("\n## ").next().unwrap_or_default();
    let mut told: Vec<_> = table.split('`').skip(1).step_by(2).filter(|text| *text != "allow_suffixes").collect();
    known.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, known);
}

#[test]
fn each_metric_has_its_row_with_its_type() {
    let now = Instant::now();
    let log = Some(std::sync::Arc::<LogFigures>::default());
    let mut state = State::new(DenyList::new(&[]), log, 1, (now, UNIX_EPOCH));
    state.kernel_rules = Some(KernelRules { present: true, restored: 0 });
    let one = || vec!["one".to_owned()];
    drop(state.ledger.begin(Names { listeners: one(), rules: one(), backends: one() }, 1));
    let text = render(&mut state, now);
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert_eq!(rows("Metrics"), families.iter().map(|(name, _)| (*name).to_owned()).collect());
    let page = page();
    for (name, kind) in families {
        assert!(page.contains(&format!("| `{name}` | {kind} |")), "{name} is a {kind}");
    }
}
