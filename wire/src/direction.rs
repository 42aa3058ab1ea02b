//! One direction of a wire: what becomes of each frame, and the count of it. Pure: time is an argument, and frames leave
//! through a function of the caller.

use std::time::Duration;

/// Bytes of the `virtio_net_hdr` before each Ethernet frame (`linux/virtio_net.h`, without `num_buffers`).
pub const VNET_HEADER_LEN: usize = 10;
/// Bytes of the shortest Ethernet header: two addresses and a type.
const ETHERNET_HEADER_LEN: usize = 14;

/// A frame as a TAP gives and takes it: the kernel's offload header, then the Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a>(&'a [u8]);

impl<'a> Frame<'a> {
    /// None if the bytes are too few to be one.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= VNET_HEADER_LEN + ETHERNET_HEADER_LEN).then_some(Self(bytes))
    }

    /// Header and frame, as they are read and written.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Length of the Ethernet frame alone, in bytes.
    #[must_use]
    pub fn ethernet_len(self) -> usize {
        self.0.len() - VNET_HEADER_LEN
    }
}

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

/// What passed in one direction. `frames` and `bytes` count Ethernet frames that were taken at the far end; a segment
/// that the kernel left for later to cut (GSO) is one frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken at the far end.
    pub frames: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Frames lost because the far end had no room.
    pub dropped_no_room: u64,
    /// Frames lost because the far interface was down.
    pub dropped_down: u64,
    /// Frames lost because the kernel refused them.
    pub dropped_refused: u64,
    /// When the last frame arrived, since the wire's start; zero before the first.
    pub last_arrival: Duration,
}

/// One way through the wire.
#[derive(Debug, Default)]
pub struct Direction {
    counters: Counters,
}

impl Direction {
    /// Takes a frame that arrived at `now` and gives what leaves to `deliver`, oldest first.
    ///
    /// # Errors
    /// What `deliver` answers when it cannot go on; the frame counts as neither taken nor dropped.
    pub fn carry<E>(
        &mut self,
        now: Duration,
        frame: Frame<'_>,
        mut deliver: impl FnMut(Frame<'_>) -> Result<Delivery, E>,
    ) -> Result<(), E> {
        self.counters.last_arrival = now;
        let delivery = deliver(frame)?;
        self.count(frame, delivery);
        Ok(())
    }

    /// What passed so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn count(&mut self, frame: Frame<'_>, delivery: Delivery) {
        let counters = &mut self.counters;
        match delivery {
            Delivery::Taken => {
                counters.frames += 1;
                counters.bytes += frame.ethernet_len() as u64;
            }
            Delivery::NoRoom => counters.dropped_no_room += 1,
            Delivery::Down => counters.dropped_down += 1,
            Delivery::Refused => counters.dropped_refused += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const AT: Duration = Duration::from_millis(7);

    fn carried(direction: &mut Direction, bytes: &[u8], answer: Delivery) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let frame = Frame::new(bytes).unwrap();
        let deliver = |leaving: Frame<'_>| {
            out.push(leaving.as_bytes().to_vec());
            Ok::<_, Infallible>(answer)
        };
        direction.carry(AT, frame, deliver).unwrap();
        out
    }

    #[test]
    fn a_frame_leaves_once_and_unchanged() {
        let mut direction = Direction::default();
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(carried(&mut direction, &bytes, Delivery::Taken), vec![bytes]);
    }

    #[test]
    fn taken_frames_are_counted_without_the_offload_header() {
        let mut direction = Direction::default();
        carried(&mut direction, &[0; VNET_HEADER_LEN + 60], Delivery::Taken);
        carried(&mut direction, &[0; VNET_HEADER_LEN + 1514], Delivery::Taken);
        let counters = direction.counters();
        assert_eq!((counters.frames, counters.bytes, counters.last_arrival), (2, 1574, AT));
    }

    #[test]
    fn each_loss_is_counted_by_its_cause_and_not_as_taken() {
        let mut direction = Direction::default();
        for (answer, times) in [(Delivery::NoRoom, 3), (Delivery::Down, 2), (Delivery::Refused, 1)] {
            for _ in 0..times {
                carried(&mut direction, &[0; 64], answer);
            }
        }
        let lost = Counters {
            dropped_no_room: 3,
            dropped_down: 2,
            dropped_refused: 1,
            last_arrival: AT,
            ..Counters::default()
        };
        assert_eq!(direction.counters(), &lost);
    }

    #[test]
    fn a_far_end_that_is_gone_ends_the_wire_and_counts_nothing() {
        let mut direction = Direction::default();
        let frame = Frame::new(&[0; 64]).unwrap();
        assert_eq!(direction.carry(AT, frame, |_| Err("gone")), Err("gone"));
        assert_eq!(direction.counters().frames, 0);
    }

    #[test]
    fn fewer_bytes_than_both_headers_are_no_frame() {
        let shortest = VNET_HEADER_LEN + ETHERNET_HEADER_LEN;
        for length in 0..shortest {
            assert_eq!(Frame::new(&vec![0; length]), None);
        }
        assert_eq!(Frame::new(&vec![0; shortest]).map(Frame::ethernet_len), Some(ETHERNET_HEADER_LEN));
    }
}
