//! A strict reader of Prometheus' text format, for tests: what it refuses, `promtool check metrics` refuses or warns of.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name and labels as written.
pub(crate) type Samples = BTreeMap<String, f64>;

/// Reads a text; panics with what is wrong with it.
pub(crate) fn read(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line ends");
    let (mut samples, mut families) = (Samples::new(), BTreeSet::new());
    let (mut family, mut kind, mut helped) = ("", "", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && !help.contains('\\'), "{line}");
            helped = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, kind) = rest.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(helped, family, "HELP stands before TYPE");
            assert!(families.insert(family.to_owned()), "{family} twice");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
            assert!(
                !["_micro", "_milli", "_count", "_sum", "_bucket"].iter().any(|bad| family.contains(bad)),
                "{family}"
            );
        } else {
            let (key, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = key.split_once('{').map_or((key, ""), |(name, rest)| (name, rest));
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} under {family}"));
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(allowed.contains(&suffix), "{line} of a {kind}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
            check_labels(labels, key.contains('{'));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(samples.insert(key.to_owned(), value).is_none(), "{key} twice");
        }
    }
    check_histograms(text, &samples);
    samples
}

/// `name="value",...}`: escapes known, names sound and not twice.
fn check_labels(mut rest: &str, braced: bool) {
    if !braced {
        return;
    }
    let mut names = BTreeSet::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && names.insert(name), "{name}");
        let mut escaped = false;
        let end = after.find(|character| {
            let ends = character == '"' && !escaped;
            assert!(!escaped || "\\\"n".contains(character), "an unknown escape in {after}");
            escaped = character == '\\' && !escaped;
            ends
        });
        rest = &after[end.expect("the value ends") + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return assert_eq!(rest, "}"),
        }
    }
}

/// Buckets of a histogram grow in the order of their bounds, and the last is the count.
fn check_histograms(text: &str, samples: &Samples) {
    let mut last = (String::new(), 0.0, f64::NEG_INFINITY);
    for line in text.lines().filter(|line| line.contains("_bucket{")) {
        let (key, value) = line.rsplit_once(' ').unwrap();
        let (labels, bound) = key.split_once("le=\"").unwrap();
        let bound: f64 = bound.trim_end_matches("\"}").replace("+Inf", "inf").parse().unwrap();
        let value: f64 = value.parse().unwrap();
        if last.0 == labels {
            assert!(value >= last.1 && bound > last.2, "{line}");
        }
        if bound.is_infinite() {
            let count = labels.replace("_bucket", "_count");
            let count = count.strip_suffix('{').map_or_else(|| count.replace(',', "") + "}", ToOwned::to_owned);
            assert_eq!(samples.get(&count), Some(&value), "{count}");
        }
        last = (labels.to_owned(), value, bound);
    }
}
