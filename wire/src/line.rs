//! The slow end of a wire: frames wait in a queue bounded in bytes and are sent one after the other at the line's rate.

use std::collections::VecDeque;

use crate::impairment::Rate;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// When the line is free, and what waits for it or is being sent.
#[derive(Debug, Default)]
pub(crate) struct Line {
    free_at_ns: u64,
    /// What is left of a nanosecond, in its parts of `rate`: without it a fast line would be too fast.
    remainder: u64,
    /// End of sending and length of each frame, in order.
    waiting: VecDeque<(u64, u64)>,
    waiting_bytes: u64,
}

impl Line {
    /// When a frame of `bytes` that comes at `now_ns` has been sent; None if the queue has no place for it.
    pub(crate) fn send(&mut self, now_ns: u64, bytes: u64, rate: Rate) -> Option<u64> {
        self.forget_sent(now_ns);
        if self.waiting_bytes + bytes > rate.queue_bytes {
            return None;
        }
        Some(self.put(now_ns, bytes, rate, u64::MAX))
    }

    /// The same for a frame that has its place already, and is sent at `latest_ns` at the latest.
    pub(crate) fn put(&mut self, now_ns: u64, bytes: u64, rate: Rate, latest_ns: u64) -> u64 {
        if self.free_at_ns <= now_ns {
            (self.free_at_ns, self.remainder) = (now_ns, 0);
        }
        let parts = bytes * 8 * NS_PER_SECOND + self.remainder;
        self.remainder = parts % rate.bits_per_second;
        self.free_at_ns = self.free_at_ns.saturating_add(parts / rate.bits_per_second);
        if self.free_at_ns > latest_ns {
            (self.free_at_ns, self.remainder) = (latest_ns, 0);
        }
        self.waiting.push_back((self.free_at_ns, bytes));
        self.waiting_bytes += bytes;
        self.free_at_ns
    }

    fn forget_sent(&mut self, now_ns: u64) {
        while let Some(&(end_ns, bytes)) = self.waiting.front() {
            if end_ns > now_ns {
                return;
            }
            self.waiting.pop_front();
            self.waiting_bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABIT: Rate = Rate { bits_per_second: 1_000_000, queue_bytes: 3000 };

    #[test]
    fn a_frame_takes_its_bits_over_the_rate_and_the_next_waits_for_it() {
        let mut line = Line::default();
        assert_eq!(line.send(5, 1000, MEGABIT), Some(8_000_005));
        assert_eq!(line.send(6, 1000, MEGABIT), Some(16_000_005));
        assert_eq!(line.send(20_000_000, 125, MEGABIT), Some(21_000_000));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_what_has_been_sent_makes_room() {
        let mut line = Line::default();
        assert!((0..3).all(|_| line.send(0, 1000, MEGABIT).is_some()));
        assert_eq!(line.send(0, 1, MEGABIT), None);
        assert_eq!(line.send(7_999_999, 1, MEGABIT), None);
        assert_eq!(line.send(8_000_000, 1000, MEGABIT), Some(32_000_000));
    }

    #[test]
    fn fractions_of_a_nanosecond_are_not_lost() {
        let rate = Rate { bits_per_second: 9_999_999_999, queue_bytes: u64::MAX };
        let mut line = Line::default();
        let last = (0..1_000_000).filter_map(|_| line.send(0, 64, rate)).last();
        assert_eq!(last, Some(512_000_000 * NS_PER_SECOND / rate.bits_per_second));
    }

    #[test]
    fn the_longest_frame_on_the_slowest_line_does_not_overflow() {
        let rate = Rate { bits_per_second: 1, queue_bytes: 64 << 20 };
        let mut line = Line::default();
        while line.send(u64::MAX / 4, 4 << 20, rate).is_some() {}
        assert_eq!(line.waiting_bytes, 64 << 20);
    }
}
