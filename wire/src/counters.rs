//! What has passed through one direction of a wire, and what has not and why.

use serde::Serialize;

use crate::delays::Delays;

/// What the far end said to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It has it.
    Taken,
    /// Its queue or the kernel's memory is full.
    NoRoom,
    /// Its interface is down.
    Down,
    /// The kernel does not accept what the frame says of itself.
    Refused,
}

/// Frames and bytes are Ethernet's, without the offload header; a segment that the kernel left for later to cut (GSO) is
/// one frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames that came.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that the far end has taken.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames lost because `loss` said so.
    pub dropped_loss: u64,
    /// Frames that found the queue before the line full.
    pub dropped_queue: u64,
    /// Frames for which the direction had no memory left.
    pub dropped_memory: u64,
    /// Frames lost because the far end had no room.
    pub dropped_no_room: u64,
    /// Frames lost because the far interface was down.
    pub dropped_down: u64,
    /// Frames lost because the kernel refused them.
    pub dropped_refused: u64,
    /// Second copies that were made.
    pub duplicated: u64,
    /// Frames that got a bit flipped.
    pub corrupted: u64,
    /// Frames that left before one that had come earlier.
    pub reordered: u64,
}

impl Counters {
    /// Counts what the far end said to a frame of `bytes`.
    pub(crate) fn count(&mut self, delivery: Delivery, bytes: usize) {
        match delivery {
            Delivery::Taken => {
                self.frames_out += 1;
                self.bytes_out += bytes as u64;
            }
            Delivery::NoRoom => self.dropped_no_room += 1,
            Delivery::Down => self.dropped_down += 1,
            Delivery::Refused => self.dropped_refused += 1,
        }
    }
}

/// The state of a direction as it is told to the outside.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reading {
    #[serde(flatten)]
    pub(crate) counters: Counters,
    /// Frames that have come and not yet left.
    pub(crate) queued_frames: usize,
    /// The memory they occupy.
    pub(crate) queued_bytes: usize,
    /// From a frame's arrival to its delivery.
    pub(crate) delay: DelayReading,
    /// From the moment that was asked for to the delivery: the fault of the wire itself.
    pub(crate) late: DelayReading,
}

/// A summary of delays; null before the first frame.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DelayReading {
    frames: u64,
    sum_ns: u64,
    min_ns: Option<u64>,
    max_ns: Option<u64>,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
}

impl From<&Delays> for DelayReading {
    fn from(delays: &Delays) -> Self {
        Self {
            frames: delays.frames(),
            sum_ns: delays.sum_ns(),
            min_ns: delays.min_ns(),
            max_ns: delays.max_ns(),
            p50_ns: delays.quantile_ns(0.5),
            p99_ns: delays.quantile_ns(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_the_far_end_has_its_own_counter() {
        let mut counters = Counters::default();
        for (delivery, times) in
            [(Delivery::Taken, 4), (Delivery::NoRoom, 3), (Delivery::Down, 2), (Delivery::Refused, 1)]
        {
            (0..times).for_each(|_| counters.count(delivery, 60));
        }
        let wanted = Counters {
            frames_out: 4,
            bytes_out: 240,
            dropped_no_room: 3,
            dropped_down: 2,
            dropped_refused: 1,
            ..Counters::default()
        };
        assert_eq!(counters, wanted);
    }
}
