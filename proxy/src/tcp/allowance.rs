//! Bounds on bytes a second: a bucket for each flow, and one that all flows of a listener share.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{ready, Context, Poll};
use std::time::Duration;

use tokio::time::{sleep_until, Instant, Sleep};

/// A bucket holds what may pass in this time, so that a flow at its rate never waits for less than one turn.
const DEPTH: Duration = Duration::from_millis(50);

/// Bytes of a stream wait until what may pass in this time is there: what passes at once goes out as segments of its own, and
/// a turn for a few bytes costs as much as one for many.
const QUANTUM: Duration = Duration::from_millis(2);

/// And until there is this much, as far as the bucket holds twice that: the payload of one segment on an Ethernet (RFC 6691).
const SEGMENT: f64 = 1460.0;

/// A bucket that fills at a rate. Debt is allowed: who reads more than is in it makes the next one wait.
///
/// Datagrams that do not wait would take all before a stream has what it waits for. So while one waits, only as much of them
/// goes first.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    level: f64,
    filled: Instant,
    /// Until then a stream is taken to wait: for longer than it was told to, as it may be gone.
    awaited: Option<Instant>,
    /// What datagrams have taken since a stream had its turn.
    gone_first: f64,
}

impl Bucket {
    /// A full bucket that fills by `rate` bytes a second.
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        Self { rate, level: rate * DEPTH.as_secs_f64(), filled: now, awaited: None, gone_first: 0.0 }
    }

    /// Fills by `rate` from now on. What is in it stays, as far as it holds that, and so does debt: who changes the rate again
    /// and again gains nothing.
    pub(crate) fn change(&mut self, rate: u32, now: Instant) {
        self.fill(now);
        self.rate = f64::from(rate);
        self.fill(now);
    }

    fn fill(&mut self, now: Instant) {
        // Who waited for the lock has an earlier now; no time counts twice.
        let now = now.max(self.filled);
        self.level = (self.level + self.rate * (now - self.filled).as_secs_f64()).min(self.depth());
        self.filled = now;
    }

    fn depth(&self) -> f64 {
        (self.rate * DEPTH.as_secs_f64()).max(1.0)
    }

    /// Bytes of a datagram that may pass now, or when to ask again.
    pub(crate) fn room(&mut self, now: Instant) -> Result<usize, Instant> {
        match self.awaited.filter(|until| now < *until && self.gone_first >= self.quantum()) {
            Some(until) => Err(until),
            None => self.room_for(1.0, now),
        }
    }

    /// Bytes of a stream that may pass now, or when to ask again: never a few only, unless the bucket holds no more.
    pub(crate) fn stream_room(&mut self, now: Instant) -> Result<usize, Instant> {
        let room = self.room_for(self.quantum(), now);
        self.awaited = room.err().map(|until| until + DEPTH);
        if room.is_ok() {
            self.gone_first = 0.0;
        }
        room
    }

    /// What a stream waits for: half of what the bucket holds at most, or all that comes before it wakes would be lost.
    fn quantum(&self) -> f64 {
        (self.rate * QUANTUM.as_secs_f64()).max(SEGMENT).min(self.depth() / 2.0).max(1.0)
    }

    fn room_for(&mut self, least: f64, now: Instant) -> Result<usize, Instant> {
        self.fill(now);
        if self.level >= least {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and the depth
            return Ok(self.level as usize);
        }
        // One nanosecond more, so that rounding never names the time that has just been found too early.
        let wait = Duration::from_secs_f64((least - self.level) / self.rate) + Duration::from_nanos(1);
        Err(self.filled + wait)
    }

    /// Takes what has passed.
    pub(crate) fn spend(&mut self, bytes: usize) {
        #[allow(clippy::cast_precision_loss)] // one read at most
        let bytes = bytes as f64;
        self.level -= bytes;
    }

    /// Takes what datagrams are.
    fn spend_first(&mut self, bytes: usize) {
        self.spend(bytes);
        #[allow(clippy::cast_precision_loss)] // one datagram
        let bytes = bytes as f64;
        self.gone_first += bytes;
    }
}

/// The bound on all flows of a listener together, in one direction. A reload may set it, change it, and take it away, for all
/// who are there.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// Without it nobody needs the lock.
    is_set: AtomicBool,
    /// It stays while there is no bound, so that no debt is forgiven by it.
    bucket: Mutex<Option<Bucket>>,
}

impl Bound {
    pub(crate) fn set(&self, rate: Option<u32>, now: Instant) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        match (bucket.as_mut(), rate) {
            (Some(bucket), Some(rate)) => bucket.change(rate, now),
            (None, Some(rate)) => *bucket = Some(Bucket::new(rate, now)),
            (_, None) => {}
        }
        self.is_set.store(rate.is_some(), Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    fn with_bucket<T>(&self, of: impl FnOnce(&mut Bucket) -> T) -> Option<T> {
        let mut bucket = self.is_set().then(|| self.bucket.lock().unwrap_or_else(PoisonError::into_inner))?;
        bucket.as_mut().map(of)
    }
}

/// What one direction of one flow may carry: by its own bucket, and by the one of its listener.
#[derive(Debug)]
pub(crate) struct Allowance {
    own: Option<Box<Bucket>>,
    shared: Arc<Bound>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Allowance {
    pub(crate) fn of(own: Option<u32>, shared: Arc<Bound>) -> Self {
        let own = own.map(|rate| Box::new(Bucket::new(rate, Instant::now())));
        Self { own, shared, wait: None }
    }

    /// Whether anything bounds the flow now.
    pub(crate) fn is_bounded(&self) -> bool {
        self.own.is_some() || self.shared.is_set()
    }

    /// Bytes that may pass, once any may. All there are (`usize::MAX`) need not be taken from the buckets: nothing bounds them.
    pub(crate) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            if !self.is_bounded() {
                return Poll::Ready(usize::MAX);
            }
            let now = Instant::now();
            let own = self.own.as_mut().map_or(Ok(usize::MAX), |bucket| bucket.stream_room(now));
            let shared = self.shared.with_bucket(|bucket| bucket.stream_room(now)).unwrap_or(Ok(usize::MAX));
            let until = match (own, shared) {
                (Ok(own), Ok(shared)) => return Poll::Ready(own.min(shared)),
                (Err(until), Ok(_)) | (Ok(_), Err(until)) => until,
                (Err(one), Err(other)) => one.max(other),
            };
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep_until(until)));
            wait.as_mut().reset(until);
            ready!(wait.as_mut().poll(context));
        }
    }

    /// Takes so many bytes if anything may pass now; whether it did. For datagrams, which do not wait.
    pub(crate) fn take_now(&mut self, bytes: usize) -> bool {
        if !self.is_bounded() {
            return true;
        }
        let now = Instant::now();
        let own = self.own.as_mut().map_or(true, |bucket| bucket.room(now).is_ok());
        let passes = own && self.shared.with_bucket(|bucket| bucket.room(now).is_ok()).unwrap_or(true);
        if passes {
            if let Some(bucket) = &mut self.own {
                bucket.spend_first(bytes);
            }
            self.shared.with_bucket(|bucket| bucket.spend_first(bytes));
        }
        passes
    }

    /// Takes what has passed from both buckets.
    pub(crate) fn spend(&mut self, bytes: usize) {
        if let Some(bucket) = &mut self.own {
            bucket.spend(bytes);
        }
        self.shared.with_bucket(|bucket| bucket.spend(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_rate_pass_over_time_whatever_the_size_of_reads() {
        for read in [1, 700, 10_000] {
            let begin = Instant::now();
            let mut bucket = Bucket::new(100_000, begin);
            let (mut now, mut passed) = (begin, 0);
            while now < begin + Duration::from_secs(10) {
                match bucket.room(now) {
                    Ok(room) => {
                        let taken = room.min(read);
                        bucket.spend(taken);
                        passed += taken;
                    }
                    Err(until) => now = until,
                }
            }
            assert!((1_000_000..=1_006_000).contains(&passed), "{read} at a time: {passed}");
        }
    }

    #[test]
    fn a_stream_passes_in_few_turns_at_its_rate_whatever_the_rate() {
        for rate in [10, 1_000, 20_000, 100_000, 10_000_000, u32::MAX] {
            let begin = Instant::now();
            let mut bucket = Bucket::new(rate, begin);
            let (mut now, mut passed, mut turns) = (begin, 0, 0);
            while now < begin + Duration::from_secs(10) {
                match bucket.stream_room(now) {
                    Ok(room) => {
                        bucket.spend(room);
                        (passed, turns) = (passed + room, turns + 1);
                        now += Duration::from_micros(20); // what a turn takes, in which a little comes in again
                    }
                    Err(until) => now = until,
                }
            }
            let due = 10.0 * f64::from(rate);
            assert!((passed as f64) >= due * 0.98 && (passed as f64) <= due * 1.02, "{rate}: {passed}");
            assert!(turns <= 10 * 500 + 2, "{rate}: {turns} turns of {} bytes", passed / turns);
            assert!(rate < 100_000 || passed / turns >= 1_460, "{rate}: {} bytes a turn", passed / turns);
        }
    }

    #[test]
    fn a_stream_that_wakes_late_has_its_rate_all_the_same() {
        for rate in [100, 20_000, 30_000, 1_000_000] {
            let begin = Instant::now();
            let mut bucket = Bucket::new(rate, begin);
            let (mut now, mut passed) = (begin, 0);
            while now < begin + Duration::from_secs(100) {
                match bucket.stream_room(now) {
                    Ok(room) => {
                        bucket.spend(room);
                        passed += room;
                    }
                    Err(until) => now = until + Duration::from_millis(15),
                }
            }
            let due = 100.0 * f64::from(rate);
            assert!((passed as f64) >= due * 0.98 && (passed as f64) <= due * 1.02, "{rate}: {passed}");
        }
    }

    #[test]
    fn neither_datagrams_nor_streams_take_all_where_both_are_never_out_of_bytes() {
        let (begin, rate) = (Instant::now(), 1_000_000);
        for apart in [10, 100, 400] {
            let mut bucket = Bucket::new(rate, begin);
            let (mut datagrams, mut streams, mut wakes_at) = (0, 0, begin);
            for microseconds in (0..10_000_000).step_by(apart) {
                let now = begin + Duration::from_micros(microseconds);
                if bucket.room(now).is_ok() {
                    bucket.spend_first(1_200);
                    datagrams += 1_200;
                }
                if now < wakes_at {
                    continue;
                }
                match bucket.stream_room(now) {
                    Ok(room) => {
                        bucket.spend(room);
                        streams += room;
                    }
                    // The runtime's timers go by milliseconds.
                    Err(until) => wakes_at = until.max(now + Duration::from_millis(1)),
                }
            }
            let all = datagrams + streams;
            assert!((9_900_000..=10_100_000).contains(&all), "{apart}: {all}");
            let least = all / 4;
            assert!(datagrams > least && streams > least, "every {apart} us: {datagrams} beside {streams}");
        }
    }

    #[test]
    fn a_stream_that_is_gone_keeps_datagrams_back_for_a_moment_only() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(1_000_000, begin);
        bucket.spend(50_000);
        let until = bucket.stream_room(begin).expect_err("it waits");
        let later = begin + Duration::from_millis(20);
        assert!(bucket.room(later).is_ok());
        bucket.spend_first(5_000);
        assert!(bucket.room(later).is_err(), "the stream's turn");
        assert!(bucket.room(until + DEPTH).is_ok(), "which it has not taken");
    }

    #[test]
    fn another_rate_neither_fills_a_bucket_nor_forgives_debt() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(100_000, begin);
        bucket.spend(5_000);
        for rate in [1_000_000, 100_000, 1_000_000, 100_000] {
            bucket.change(rate, begin);
            assert!(bucket.room(begin).is_err(), "{rate}");
        }
        bucket.spend(1_000);
        bucket.change(10_000, begin);
        let until = bucket.room(begin).expect_err("in debt");
        assert!((until - begin).as_millis().abs_diff(100) <= 1, "by the new rate: {:?}", until - begin);
        bucket.change(1_000_000, begin + Duration::from_secs(1));
        assert_eq!(bucket.room(begin + Duration::from_secs(1)), Ok(500), "what the former rate had filled");
        bucket.change(1_000, begin + Duration::from_secs(2));
        assert_eq!(bucket.room(begin + Duration::from_secs(2)), Ok(50), "as much as it holds");
    }

    #[test]
    fn no_time_counts_twice_where_clocks_were_read_in_another_order_than_the_lock_was_had() {
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let mut bucket = Bucket::new(100_000, begin);
        bucket.spend(5_000 + 9_000);
        let mut until = Vec::new();
        for milliseconds in [40, 10, 40, 0, 40, 30, 40] {
            until.push(bucket.room(at(milliseconds)).expect_err("in debt"));
        }
        until.dedup();
        assert_eq!(until.len(), 1, "{until:?}");
        assert!((until[0] - begin).as_millis().abs_diff(90) <= 1, "{:?}", until[0] - begin);
    }

    #[test]
    fn a_bound_that_comes_or_goes_holds_for_those_who_are_there() {
        let now = Instant::now();
        let shared = Arc::new(Bound::default());
        let mut flow = Allowance::of(None, Arc::clone(&shared));
        assert!(!flow.is_bounded() && flow.take_now(usize::MAX) && flow.take_now(usize::MAX));
        shared.set(Some(1_000), now);
        assert!(flow.is_bounded() && flow.take_now(1_000_000) && !flow.take_now(1));
        shared.set(None, now);
        assert!(!flow.is_bounded() && flow.take_now(1_000_000));
        shared.set(Some(1_000), now);
        assert!(!flow.take_now(1), "the debt of before is still there");
        let mut other = Allowance::of(Some(u32::MAX), shared);
        assert!(!other.take_now(1), "one bound for all");
    }

    #[test]
    fn debt_is_waited_for() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(1_000, begin);
        bucket.spend(1_050);
        let until = bucket.room(begin).expect_err("in debt");
        assert!((until - begin).as_millis().abs_diff(1_001) <= 1, "{:?}", until - begin);
    }
}
