//! The body of the fuzz target for configurations.

use super::parse;

/// Whatever stands in a file, an answer comes, every fault has its place, and none is told twice.
///
/// # Panics
/// When that does not hold, which is what a fuzzer looks for.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Err(faults) = parse(text, "fuzz.toml") else { return };
    assert!(!faults.is_empty(), "a refusal without a fault");
    let lines = text.lines().count().max(1);
    for fault in &faults {
        assert!(fault.line.map_or(true, |line| (1..=lines + 1).contains(&line)), "{fault}");
        assert!(!fault.to_string().contains('\n'), "{fault:?}");
    }
    let mut once = faults.clone();
    once.dedup();
    assert_eq!(once.len(), faults.len(), "{faults:?}");
}
