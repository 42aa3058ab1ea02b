//! One direction of a wire: what becomes of each frame, and when it leaves. Pure: time and chance are arguments, frames
//! leave through a function of the caller. Moments and spans are nanoseconds (`_ns`) of the caller's clock.
//!
//! A frame meets, in this order: loss, damage, duplication (both copies are alike), the queue and the rate of the line,
//! the delay. Frames leave in the order in which they came, however the jitter falls: one that would be earlier than its
//! predecessor leaves with it. Only `reorder` lets frames overtake; the jitter then may swap frames too.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem;

use crate::buffers::{Buffer, Buffers};
use crate::chance::Stream;
use crate::counters::{Counters, Delivery, Reading};
use crate::delays::Delays;
use crate::frame::{self, Frame};
use crate::impairment::{Impairment, Loss, Rate};
use crate::line::Line;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod statistics;

/// What the queued frames of one direction may occupy, in bytes.
pub const MEMORY_LIMIT: usize = 64 << 20;

/// Which of a wire's directions; each has random numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the first end to the second.
    AToB,
    /// From the second end to the first.
    BToA,
}

/// One way through the wire.
#[derive(Debug)]
pub struct Direction {
    impairment: Impairment,
    /// What the impairment says of it, for it is asked for each frame.
    lets_pass: bool,
    chances: Chances,
    /// The Gilbert-Elliott line is in its bad state.
    is_bad: bool,
    line: Line,
    queue: BinaryHeap<Reverse<Waiting>>,
    queued_bytes: usize,
    latest_departure_ns: u64,
    sequence: u64,
    counters: Counters,
    delays: Delays,
    lateness: Delays,
}

/// The random numbers of each kind of decision.
#[derive(Debug)]
struct Chances {
    loss: Stream,
    state: Stream,
    reorder: Stream,
    duplicate: Stream,
    corrupt: Stream,
    which_bit: Stream,
    jitter: Stream,
}

/// A frame on its way; ordered by its departure, then by its arrival.
#[derive(Debug)]
struct Waiting {
    departure_ns: u64,
    sequence: u64,
    arrival_ns: u64,
    /// When the line has sent it.
    sent_ns: u64,
    buffer: Buffer,
}

impl Chances {
    fn new(seed: u64, way: Way) -> Self {
        let first = match way {
            Way::AToB => 0,
            Way::BToA => 16,
        };
        let stream = |purpose: u64| Stream::new(seed, first + purpose);
        Self {
            loss: stream(0),
            state: stream(1),
            reorder: stream(2),
            duplicate: stream(3),
            corrupt: stream(4),
            which_bit: stream(5),
            jitter: stream(6),
        }
    }
}

impl Direction {
    /// A direction without a frame in it; same seed and same arrivals, same fates.
    #[must_use]
    pub fn new(seed: u64, way: Way, impairment: Impairment) -> Self {
        let impairment = impairment.simplest();
        Self {
            impairment,
            lets_pass: impairment.lets_pass(),
            chances: Chances::new(seed, way),
            is_bad: false,
            line: Line::default(),
            queue: BinaryHeap::new(),
            queued_bytes: 0,
            latest_departure_ns: 0,
            sequence: 0,
            counters: Counters::default(),
            delays: Delays::default(),
            lateness: Delays::default(),
        }
    }

    /// What it does to frames that come from now on. Those within keep their departure, but for those that the line has
    /// not sent: it sends them at its new rate.
    pub fn change(&mut self, now_ns: u64, impairment: Impairment) {
        let impairment = impairment.simplest();
        if impairment.rate != self.impairment.rate {
            self.send_anew(now_ns, impairment.rate);
        }
        if !matches!(impairment.loss, Loss::GilbertElliott(_)) {
            self.is_bad = false;
        }
        self.impairment = impairment;
        self.lets_pass = impairment.lets_pass();
    }

    /// What it does to frames.
    #[must_use]
    pub fn impairment(&self) -> &Impairment {
        &self.impairment
    }

    /// Takes a frame that comes at `now_ns`. Gives it back if it leaves at once: the caller then delivers it and tells
    /// so by [`Self::delivered`].
    pub fn arrive<'a>(&mut self, now_ns: u64, frame: Frame<'a>, buffers: &mut Buffers) -> Option<Frame<'a>> {
        let number = self.counters.frames_in;
        self.counters.frames_in += 1;
        self.counters.bytes_in += frame.ethernet_len() as u64;
        if self.is_lost(number) {
            self.counters.dropped_loss += 1;
            return None;
        }
        if self.lets_pass && self.queue.is_empty() {
            return Some(frame);
        }
        let mut buffer = buffers.filled(frame.as_bytes());
        if self.chances.corrupt.happens(number, self.impairment.corrupt)
            && frame::corrupt(&mut buffer, self.chances.which_bit.draw(number, 0))
        {
            self.counters.corrupted += 1;
        }
        if self.chances.duplicate.happens(number, self.impairment.duplicate) {
            self.counters.duplicated += 1;
            let copy = buffers.filled(&buffer);
            self.queue_up(now_ns, number, copy, buffers);
        }
        self.queue_up(now_ns, number, buffer, buffers);
        None
    }

    /// Counts a frame that [`Self::arrive`] gave back.
    pub fn delivered(&mut self, frame: Frame<'_>, delivery: Delivery) {
        self.count(delivery, frame.ethernet_len(), 0, 0);
    }

    /// When the next frame is to leave; None if there is none.
    #[must_use]
    pub fn next_departure_ns(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(waiting)| waiting.departure_ns)
    }

    /// Gives frames whose time has come to `deliver`, in order, at most `most` of them.
    ///
    /// # Errors
    /// What `deliver` answers when it cannot go on; the frame counts as neither taken nor dropped.
    pub fn depart<E>(
        &mut self,
        clock: impl Fn() -> u64,
        most: usize,
        buffers: &mut Buffers,
        mut deliver: impl FnMut(Frame<'_>) -> Result<Delivery, E>,
    ) -> Result<(), E> {
        for _ in 0..most.min(self.queue.len()) {
            let now_ns = clock();
            if !self.next_departure_ns().is_some_and(|departure_ns| departure_ns <= now_ns) {
                break;
            }
            let Some(Reverse(waiting)) = self.queue.pop() else {
                break;
            };
            self.queued_bytes -= Buffers::occupied(waiting.buffer.len());
            if let Some(frame) = Frame::new(&waiting.buffer) {
                let delivery = deliver(frame)?;
                let late_ns = now_ns - waiting.departure_ns;
                self.count(delivery, frame.ethernet_len(), now_ns.saturating_sub(waiting.arrival_ns), late_ns);
            }
            buffers.put_back(waiting.buffer);
        }
        Ok(())
    }

    /// What passed so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How long frames took from arrival to delivery.
    #[must_use]
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    pub(crate) fn reading(&self) -> Reading {
        Reading {
            counters: self.counters,
            queued_frames: self.queue.len(),
            queued_bytes: self.queued_bytes,
            delay: (&self.delays).into(),
            late: (&self.lateness).into(),
        }
    }

    fn is_lost(&mut self, number: u64) -> bool {
        match self.impairment.loss {
            Loss::None => false,
            Loss::Random(share) => self.chances.loss.happens(number, share),
            Loss::GilbertElliott(line) => {
                let (share, turn) = if self.is_bad { (line.loss_bad, line.r) } else { (line.loss_good, line.p) };
                self.is_bad ^= self.chances.state.happens(number, turn);
                self.chances.loss.happens(number, share)
            }
        }
    }

    /// Puts a frame in the queue with its time of departure, or drops it for want of room.
    fn queue_up(&mut self, now_ns: u64, number: u64, buffer: Buffer, buffers: &mut Buffers) {
        let occupied = Buffers::occupied(buffer.len());
        if self.queued_bytes + occupied > MEMORY_LIMIT {
            self.counters.dropped_memory += 1;
            return buffers.put_back(buffer);
        }
        let Some(sent_ns) = self.sent_ns(now_ns, &buffer) else {
            self.counters.dropped_queue += 1;
            return buffers.put_back(buffer);
        };
        let departure_ns = self.departure_ns(sent_ns, number);
        self.sequence += 1;
        self.queued_bytes += occupied;
        let sequence = self.sequence;
        self.queue.push(Reverse(Waiting { departure_ns, sequence, arrival_ns: now_ns, sent_ns, buffer }));
    }

    /// The line is another: what it has not sent by now keeps its order and its delay. The frame that is being sent is
    /// sent no later for it.
    fn send_anew(&mut self, now_ns: u64, rate: Option<Rate>) {
        self.line = Line::default();
        let mut frames: Vec<Waiting> = mem::take(&mut self.queue).into_iter().map(|Reverse(frame)| frame).collect();
        frames.sort_unstable_by_key(|frame| frame.sequence);
        let keeps_order = self.impairment.reorder == 0.0;
        let (mut in_sending, mut latest_ns) = (true, 0);
        for frame in &mut frames {
            if frame.sent_ns > now_ns {
                let delay_ns = frame.departure_ns.saturating_sub(frame.sent_ns);
                let at_latest_ns = if mem::take(&mut in_sending) { frame.sent_ns } else { u64::MAX };
                let bytes = Frame::new(&frame.buffer).map_or(0, Frame::wire_len) as u64;
                frame.sent_ns = rate.map_or(now_ns, |rate| self.line.put(now_ns, bytes, rate, at_latest_ns));
                frame.departure_ns = frame.sent_ns.saturating_add(delay_ns);
                if keeps_order {
                    frame.departure_ns = frame.departure_ns.max(latest_ns);
                }
            }
            latest_ns = latest_ns.max(frame.departure_ns);
        }
        self.latest_departure_ns = latest_ns;
        self.queue = frames.into_iter().map(Reverse).collect();
    }

    /// When the line has sent the frame; None if its queue is full.
    fn sent_ns(&mut self, now_ns: u64, buffer: &Buffer) -> Option<u64> {
        match self.impairment.rate {
            None => Some(now_ns),
            Some(rate) => {
                let bytes = Frame::new(buffer).map_or(0, Frame::wire_len);
                self.line.send(now_ns, bytes as u64, rate)
            }
        }
    }

    fn departure_ns(&mut self, sent_ns: u64, number: u64) -> u64 {
        let Impairment { delay_ns, jitter_ns, distribution, reorder, .. } = self.impairment;
        let delay_ns = if self.chances.reorder.happens(number, reorder) {
            0
        } else if jitter_ns > 0 {
            spread(delay_ns, jitter_ns, self.chances.jitter.sample(number, distribution))
        } else {
            delay_ns
        };
        let wanted_ns = sent_ns.saturating_add(delay_ns);
        let is_early = wanted_ns < self.latest_departure_ns;
        if is_early && reorder > 0.0 {
            self.counters.reordered += 1;
            return wanted_ns;
        }
        if !is_early {
            self.latest_departure_ns = wanted_ns;
        }
        self.latest_departure_ns
    }

    fn count(&mut self, delivery: Delivery, bytes: usize, delay_ns: u64, late_ns: u64) {
        self.counters.count(delivery, bytes);
        if delivery == Delivery::Taken {
            self.delays.count(delay_ns);
            self.lateness.count(late_ns);
        }
    }
}

/// The delay with this sample of the jitter added, no less than zero.
fn spread(delay_ns: u64, jitter_ns: u64, sample: f64) -> u64 {
    // The jitter is at most a minute and the sample at most 8: far below 2^63, and exact to a nanosecond in 53 bits.
    #[allow(clippy::cast_possible_truncation)]
    let offset_ns = (jitter_ns as f64 * sample) as i64;
    delay_ns.saturating_add_signed(offset_ns)
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.departure_ns, self.sequence).cmp(&(other.departure_ns, other.sequence))
    }
}
