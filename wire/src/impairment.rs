//! What one direction does to its frames: the values as meant, and which of them no wire can have.

/// The longest delay and the widest jitter: one minute, in nanoseconds.
const LONGEST_DELAY_NS: u64 = 60_000_000_000;
/// The shortest queue: one frame of the usual MTU with its Ethernet header, in bytes.
const SHORTEST_QUEUE: u64 = 1514;
/// The fastest line, in bit/s.
const FASTEST_RATE: u64 = 1_000_000_000_000;
/// Below this rate, in bit/s, a segment of 64 KiB would hold the line for longer than half a millisecond.
const RATE_OF_WHOLE_SEGMENTS: u64 = 1_000_000_000;
/// A queue shorter than this, in bytes, would hold but a few segments of 64 KiB.
const QUEUE_OF_WHOLE_SEGMENTS: u64 = 1 << 20;
/// What a queue holds unless it is said: a tenth of a second of the line, and 32 KiB at least.
const DEFAULT_QUEUES_PER_SECOND: u64 = 10;
const DEFAULT_QUEUE_AT_LEAST: u64 = 32 * 1024;

/// The shape of the jitter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Each delay from `delay - jitter` to `delay + jitter` is as likely.
    Uniform,
    /// A bell whose standard deviation is the jitter.
    #[default]
    Normal,
    /// Shape 3: most frames a little early, few very late; the standard deviation is the jitter.
    Pareto,
    /// A quarter of normal and three of pareto.
    Paretonormal,
}

/// Which frames get lost. All values are probabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each with the same probability.
    Random(f64),
    /// In bursts (Gilbert 1960, Elliott 1963).
    GilbertElliott(GilbertElliott),
}

/// A line with a good and a bad state; a frame meets the state it finds, then the state may change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GilbertElliott {
    /// That the good state turns bad.
    pub p: f64,
    /// That the bad state turns good.
    pub r: f64,
    /// That a frame is lost in the good state.
    pub loss_good: f64,
    /// That a frame is lost in the bad state.
    pub loss_bad: f64,
}

/// The rate of the line and the queue before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bits of Ethernet frames a second, from the Ethernet header on, without checksum and preamble.
    pub bits_per_second: u64,
    /// Bytes that wait or are being sent, at most; what does not fit is dropped.
    pub queue_bytes: u64,
}

/// Everything one direction does. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Impairment {
    /// From the end of sending to the arrival.
    pub delay_ns: u64,
    /// The scale of what is added to the delay or taken from it; no delay falls below zero.
    pub jitter_ns: u64,
    /// The shape of the jitter.
    pub distribution: Distribution,
    /// Which frames get lost.
    pub loss: Loss,
    /// The share of frames that overtake: they leave without delay.
    pub reorder: f64,
    /// The share of frames that arrive twice.
    pub duplicate: f64,
    /// The share of frames with one bit flipped behind the Ethernet header.
    pub corrupt: f64,
    /// None: as fast as it comes.
    pub rate: Option<Rate>,
}

/// What the kernel may leave undone in the frames that it gives to the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offloads {
    /// Segments to cut and checksums to compute.
    Every,
    /// Checksums only: each frame is one of the wire's.
    Checksum,
    /// Nothing.
    None,
}

impl Rate {
    /// The line with the queue that is usual: a tenth of a second long.
    pub(crate) fn with_usual_queue(bits_per_second: u64) -> Self {
        let tenth = bits_per_second / 8 / DEFAULT_QUEUES_PER_SECOND;
        Self { bits_per_second, queue_bytes: tenth.max(DEFAULT_QUEUE_AT_LEAST) }
    }
}

impl Impairment {
    /// The same with what has no effect left out, so that nothing asked, however it is written, is nothing done: a loss
    /// of none, the shape of no jitter.
    #[must_use]
    pub fn simplest(mut self) -> Self {
        if self.loss == Loss::Random(0.0) {
            self.loss = Loss::None;
        }
        if self.jitter_ns == 0 {
            self.distribution = Distribution::default();
        }
        self
    }

    /// Whether a frame that is not lost leaves as it came, at once.
    pub(crate) fn lets_pass(&self) -> bool {
        Self { loss: Loss::None, ..*self } == Self::default()
    }

    /// What is found, where, and what is allowed, for the first value that cannot be; nothing if all can.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self) -> Result<(), String> {
        for (name, found) in [("delay_ns", self.delay_ns), ("jitter_ns", self.jitter_ns)] {
            if found > LONGEST_DELAY_NS {
                return Err(format!("{name} is {found}: 0 to {LONGEST_DELAY_NS} is allowed"));
            }
        }
        for (name, found) in self.probabilities() {
            if !(0.0..=1.0).contains(&found) {
                return Err(format!("{name} is {found}: 0 to 1 is allowed"));
            }
        }
        if let Some(Rate { bits_per_second, queue_bytes }) = self.rate {
            if !(1..=FASTEST_RATE).contains(&bits_per_second) {
                return Err(format!("rate_bps is {bits_per_second}: 1 to {FASTEST_RATE} is allowed"));
            }
            if queue_bytes < SHORTEST_QUEUE {
                return Err(format!("queue_bytes is {queue_bytes}: {SHORTEST_QUEUE}, one frame, is the least"));
            }
        }
        self.check_order()
    }

    fn check_order(&self) -> Result<(), String> {
        let Self { delay_ns, jitter_ns, reorder, .. } = *self;
        if reorder > 0.0 && delay_ns == 0 {
            return Err("reorder needs a delay: a frame overtakes by leaving without it; give delay_ns".to_owned());
        }
        if jitter_ns > delay_ns && reorder == 0.0 {
            return Err(format!(
                "jitter_ns {jitter_ns} is above delay_ns {delay_ns}: give a delay as long, or let frames overtake by reorder"
            ));
        }
        Ok(())
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        let mut all = vec![("reorder", self.reorder), ("duplicate", self.duplicate), ("corrupt", self.corrupt)];
        match self.loss {
            Loss::None => {}
            Loss::Random(share) => all.push(("loss.random", share)),
            Loss::GilbertElliott(GilbertElliott { p, r, loss_good, loss_bad }) => all.extend([
                ("loss.gilbert_elliott.p", p),
                ("loss.gilbert_elliott.r", r),
                ("loss.gilbert_elliott.loss_good", loss_good),
                ("loss.gilbert_elliott.loss_bad", loss_bad),
            ]),
        }
        all
    }

    /// What may be left undone in the frames that this direction reads: a share of frames is one of wire frames, so
    /// segments must be cut, and damage must be seen, so checksums must be whole.
    pub(crate) fn offloads(&self) -> Offloads {
        let slow = self.rate.is_some_and(|rate| {
            rate.bits_per_second < RATE_OF_WHOLE_SEGMENTS || rate.queue_bytes < QUEUE_OF_WHOLE_SEGMENTS
        });
        if self.corrupt > 0.0 {
            Offloads::None
        } else if slow
            || self.loss != Loss::None
            || self.jitter_ns > 0
            || [self.reorder, self.duplicate].iter().any(|share| *share > 0.0)
        {
            Offloads::Checksum
        } else {
            Offloads::Every
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn gilbert_elliott(p: f64, r: f64, loss_good: f64, loss_bad: f64) -> Impairment {
        let loss = Loss::GilbertElliott(GilbertElliott { p, r, loss_good, loss_bad });
        Impairment { loss, ..Impairment::default() }
    }

    fn rated(bits_per_second: u64, queue_bytes: u64) -> Impairment {
        Impairment { rate: Some(Rate { bits_per_second, queue_bytes }), ..Impairment::default() }
    }

    #[test]
    fn what_a_wire_can_have_is_accepted() {
        let none = Impairment::default();
        for can_be in [
            none,
            Impairment { delay_ns: LONGEST_DELAY_NS, jitter_ns: LONGEST_DELAY_NS, ..none },
            Impairment { delay_ns: 1, jitter_ns: 5, reorder: 0.1, ..none },
            Impairment { loss: Loss::Random(1.0), duplicate: 1.0, corrupt: 1.0, ..none },
            gilbert_elliott(0.0, 1.0, 0.0, 1.0),
            rated(1, SHORTEST_QUEUE),
            rated(FASTEST_RATE, u64::MAX),
        ] {
            assert_eq!(can_be.check(), Ok(()), "{can_be:?}");
        }
    }

    #[test]
    fn what_no_wire_can_have_is_named() {
        let none = Impairment::default();
        for (cannot_be, said) in [
            (Impairment { delay_ns: LONGEST_DELAY_NS + 1, ..none }, "delay_ns is 60000000001"),
            (Impairment { delay_ns: MS, jitter_ns: LONGEST_DELAY_NS + 1, ..none }, "jitter_ns is"),
            (Impairment { loss: Loss::Random(1.2), ..none }, "loss.random is 1.2"),
            (Impairment { loss: Loss::Random(f64::NAN), ..none }, "loss.random is NaN"),
            (Impairment { duplicate: -0.1, ..none }, "duplicate is -0.1"),
            (Impairment { corrupt: 2.0, ..none }, "corrupt is 2"),
            (Impairment { delay_ns: MS, reorder: 1.5, ..none }, "reorder is 1.5"),
            (Impairment { reorder: 0.5, ..none }, "reorder needs a delay"),
            (Impairment { delay_ns: MS, jitter_ns: 2 * MS, ..none }, "is above delay_ns"),
            (gilbert_elliott(1.1, 0.0, 0.0, 0.0), "gilbert_elliott.p"),
            (gilbert_elliott(0.1, -1.0, 0.0, 0.0), "gilbert_elliott.r"),
            (gilbert_elliott(0.1, 0.0, 3.0, 0.0), "loss_good"),
            (gilbert_elliott(0.1, 0.0, 0.0, 3.0), "loss_bad"),
            (rated(0, 9000), "rate_bps is 0"),
            (rated(FASTEST_RATE + 1, 9000), "rate_bps is"),
            (rated(1000, SHORTEST_QUEUE - 1), "queue_bytes is 1513"),
        ] {
            let fault = cannot_be.check().expect_err(said);
            assert!(fault.contains(said), "{fault}");
        }
    }

    #[test]
    fn offloads_go_when_frames_must_be_told_apart_and_checksums_when_they_are_spoilt() {
        let none = Impairment::default();
        for (impairment, wanted) in [
            (none, Offloads::Every),
            (Impairment { delay_ns: MS, ..none }, Offloads::Every),
            (rated(RATE_OF_WHOLE_SEGMENTS, QUEUE_OF_WHOLE_SEGMENTS), Offloads::Every),
            (rated(RATE_OF_WHOLE_SEGMENTS - 1, QUEUE_OF_WHOLE_SEGMENTS), Offloads::Checksum),
            (rated(RATE_OF_WHOLE_SEGMENTS, QUEUE_OF_WHOLE_SEGMENTS - 1), Offloads::Checksum),
            (Impairment { delay_ns: MS, jitter_ns: 1, ..none }, Offloads::Checksum),
            (Impairment { delay_ns: MS, reorder: 0.1, ..none }, Offloads::Checksum),
            (Impairment { loss: Loss::Random(0.1), ..none }, Offloads::Checksum),
            (gilbert_elliott(0.1, 0.1, 0.0, 1.0), Offloads::Checksum),
            (Impairment { duplicate: 0.1, ..none }, Offloads::Checksum),
            (Impairment { corrupt: 0.1, duplicate: 0.1, ..none }, Offloads::None),
        ] {
            assert_eq!(impairment.offloads(), wanted, "{impairment:?}");
        }
    }

    #[test]
    fn nothing_asked_in_many_words_is_nothing() {
        let wordy = Impairment { loss: Loss::Random(0.0), distribution: Distribution::Pareto, ..Impairment::default() };
        assert_eq!(wordy.simplest(), Impairment::default());
        let something = Impairment { loss: Loss::Random(0.1), delay_ns: MS, jitter_ns: MS, ..wordy };
        assert_eq!(something.simplest(), something);
    }

    #[test]
    fn the_usual_queue_is_a_tenth_of_a_second_and_never_tiny() {
        assert_eq!(Rate::with_usual_queue(100_000_000).queue_bytes, 1_250_000);
        assert_eq!(Rate::with_usual_queue(1000).queue_bytes, 32 * 1024);
    }
}
