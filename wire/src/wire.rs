//! One wire: its two TAPs and what it does to the frames between them.

use std::io;

use crate::buffers::Buffers;
use crate::counters::Reading;
use crate::direction::{Direction, Way};
use crate::frame::Frame;
use crate::impairment::Impairment;
use crate::tap::{Tap, TapError};

/// Frames read or written for one direction before others have their turn.
const TURN: usize = 16;
/// Room for the longest thing a TAP gives: a 64 KiB segment with its Ethernet, VLAN and offload headers.
const READ_LEN: usize = 68 * 1024;

/// What all wires of a process use in turns.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) clock: fn() -> u64,
    buffers: Buffers,
    reading: Vec<u8>,
}

/// Two ends and two directions.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) name: String,
    pub(crate) a: Tap,
    pub(crate) b: Tap,
    a_to_b: Direction,
    b_to_a: Direction,
}

/// The values of both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Impairments {
    pub(crate) a_to_b: Impairment,
    pub(crate) b_to_a: Impairment,
}

/// What both directions counted.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Readings {
    pub(crate) a_to_b: Reading,
    pub(crate) b_to_a: Reading,
}

impl Bench {
    /// `clock` tells nanoseconds that never go back.
    pub(crate) fn new(clock: fn() -> u64) -> Self {
        Self { clock, buffers: Buffers::default(), reading: vec![0; READ_LEN] }
    }
}

impl Wire {
    pub(crate) fn new(
        name: String,
        seed: u64,
        mut ends: (Tap, Tap),
        impairments: Impairments,
    ) -> Result<Self, TapError> {
        let Impairments { a_to_b, b_to_a } = impairments;
        ends.0.allow_offloads(a_to_b.offloads())?;
        ends.1.allow_offloads(b_to_a.offloads())?;
        Ok(Self {
            name,
            a: ends.0,
            b: ends.1,
            a_to_b: Direction::new(seed, Way::AToB, a_to_b),
            b_to_a: Direction::new(seed, Way::BToA, b_to_a),
        })
    }

    /// Frames that come from `now_ns` on meet the new values. On an error both directions are as before.
    pub(crate) fn change(&mut self, now_ns: u64, to: Impairments) -> Result<(), TapError> {
        let before = self.a.offloads();
        self.a.allow_offloads(to.a_to_b.offloads())?;
        if let Err(error) = self.b.allow_offloads(to.b_to_a.offloads()) {
            self.a.allow_offloads(before)?;
            return Err(error);
        }
        self.a_to_b.change(now_ns, to.a_to_b);
        self.b_to_a.change(now_ns, to.b_to_a);
        Ok(())
    }

    pub(crate) fn impairments(&self) -> Impairments {
        Impairments { a_to_b: *self.a_to_b.impairment(), b_to_a: *self.b_to_a.impairment() }
    }

    /// Reads what waits at the end where `way` begins and sends what may leave at once. `is_broken`: the kernel said
    /// that something is wrong with the device.
    pub(crate) fn take_turn(&mut self, way: Way, is_broken: bool, bench: &mut Bench) -> Result<(), TapError> {
        let (from, to, direction) = self.along(way);
        let Bench { clock, buffers, reading } = bench;
        for count in 0..TURN {
            let Some(bytes) = from.read(reading)? else {
                if is_broken && count == 0 {
                    return Err(from.gone(io::ErrorKind::NotConnected.into()));
                }
                break;
            };
            let Some(frame) = Frame::new(bytes) else {
                continue;
            };
            if let Some(leaving) = direction.arrive(clock(), frame, buffers) {
                let delivery = to.write(leaving)?;
                direction.delivered(leaving, delivery);
            }
        }
        self.send_due(way, bench)
    }

    /// Sends what is due.
    pub(crate) fn send_due(&mut self, way: Way, bench: &mut Bench) -> Result<(), TapError> {
        let (_, to, direction) = self.along(way);
        // Twice a turn: each frame read may have become two.
        direction.depart(bench.clock, 2 * TURN, &mut bench.buffers, |frame| to.write(frame))
    }

    pub(crate) fn next_departure_ns(&self, way: Way) -> Option<u64> {
        match way {
            Way::AToB => self.a_to_b.next_departure_ns(),
            Way::BToA => self.b_to_a.next_departure_ns(),
        }
    }

    pub(crate) fn readings(&self) -> Readings {
        Readings { a_to_b: self.a_to_b.reading(), b_to_a: self.b_to_a.reading() }
    }

    fn along(&mut self, way: Way) -> (&Tap, &Tap, &mut Direction) {
        match way {
            Way::AToB => (&self.a, &self.b, &mut self.a_to_b),
            Way::BToA => (&self.b, &self.a, &mut self.b_to_a),
        }
    }
}
