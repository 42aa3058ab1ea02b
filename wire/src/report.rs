//! The counters of both directions as one JSON line.

use crate::wire::Readings;

/// `{"a_to_b": {...}, "b_to_a": {...}}` and a line feed.
pub(crate) fn json_line(readings: &Readings) -> String {
    let mut line = serde_json::to_string(readings).unwrap_or_default();
    line.push('\n');
    line
}
