//! The counters of both directions as one JSON line.

use crate::carry::Carried;
use crate::direction::Counters;

/// `{"a_to_b": {...}, "b_to_a": {...}}` and a line feed; `last_arrival_us` is in microseconds since the wire's start.
pub(crate) fn json_line(carried: &Carried) -> String {
    format!("{{\"a_to_b\": {}, \"b_to_a\": {}}}\n", json(carried.a_to_b.counters()), json(carried.b_to_a.counters()))
}

fn json(counters: &Counters) -> String {
    let Counters { frames, bytes, dropped_no_room, dropped_down, dropped_refused, last_arrival } = counters;
    let last_arrival_us = last_arrival.as_micros();
    format!(
        "{{\"frames\": {frames}, \"bytes\": {bytes}, \"dropped_no_room\": {dropped_no_room}, \
         \"dropped_down\": {dropped_down}, \"dropped_refused\": {dropped_refused}, \
         \"last_arrival_us\": {last_arrival_us}}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_counter_is_in_the_line_under_its_name() {
        let counters = Counters {
            frames: 1,
            bytes: 2,
            dropped_no_room: 3,
            dropped_down: 4,
            dropped_refused: 5,
            last_arrival: Duration::from_micros(6),
        };
        assert_eq!(
            json(&counters),
            r#"{"frames": 1, "bytes": 2, "dropped_no_room": 3, "dropped_down": 4, "dropped_refused": 5, "last_arrival_us": 6}"#
        );
    }

    #[test]
    fn both_directions_are_one_line() {
        let line = json_line(&Carried::default());
        assert!(line.starts_with("{\"a_to_b\": {") && line.contains("}, \"b_to_a\": {") && line.ends_with("}}\n"));
        assert_eq!(line.matches('\n').count(), 1);
    }
}
