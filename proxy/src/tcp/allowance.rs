//! Bounds on bytes a second: a bucket for each flow, and one that all flows of a listener share.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{ready, Context, Poll};
use std::time::Duration;

use tokio::time::{sleep_until, Instant, Sleep};

/// A bucket holds what may pass in this time, so that a flow at its rate never waits for less than one turn.
const DEPTH: Duration = Duration::from_millis(50);

/// A bucket that fills at a rate. Debt is allowed: who reads more than is in it makes the next one wait.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    level: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket that fills by `rate` bytes a second.
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        Self { rate, level: rate * DEPTH.as_secs_f64(), filled: now }
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
        let depth = (self.rate * DEPTH.as_secs_f64()).max(1.0);
        self.level = (self.level + self.rate * (now - self.filled).as_secs_f64()).min(depth);
        self.filled = now;
    }

    /// Bytes that may pass now, or when to ask again.
    pub(crate) fn room(&mut self, now: Instant) -> Result<usize, Instant> {
        self.fill(now);
        if self.level >= 1.0 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and the depth
            return Ok(self.level as usize);
        }
        Err(self.filled + Duration::from_secs_f64((1.0 - self.level) / self.rate))
    }

    /// Takes what has passed.
    pub(crate) fn spend(&mut self, bytes: usize) {
        #[allow(clippy::cast_precision_loss)] // one read at most
        let bytes = bytes as f64;
        self.level -= bytes;
    }
}

/// What one direction of one flow may carry: by its own bucket, and by the one of its listener.
#[derive(Debug)]
pub(crate) struct Allowance {
    own: Option<Bucket>,
    shared: Option<Arc<Mutex<Bucket>>>,
    wait: Pin<Box<Sleep>>,
}

impl Allowance {
    /// `None` where nothing bounds the flow.
    pub(crate) fn of(own: Option<u32>, shared: Option<Arc<Mutex<Bucket>>>) -> Option<Box<Self>> {
        let now = Instant::now();
        (own.is_some() || shared.is_some()).then(|| {
            let own = own.map(|rate| Bucket::new(rate, now));
            Box::new(Self { own, shared, wait: Box::pin(sleep_until(now)) })
        })
    }

    /// Bytes that may pass, once any may.
    pub(crate) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            let now = Instant::now();
            let own = self.own.as_mut().map_or(Ok(usize::MAX), |bucket| bucket.room(now));
            let shared = match &self.shared {
                Some(bucket) => bucket.lock().map_or(Ok(usize::MAX), |mut bucket| bucket.room(now)),
                None => Ok(usize::MAX),
            };
            match (own, shared) {
                (Ok(own), Ok(shared)) => return Poll::Ready(own.min(shared)),
                (Err(until), Ok(_)) | (Ok(_), Err(until)) => self.wait.as_mut().reset(until),
                (Err(one), Err(other)) => self.wait.as_mut().reset(one.max(other)),
            }
            ready!(self.wait.as_mut().poll(context));
        }
    }

    /// Takes so many bytes if anything may pass now; whether it did. For datagrams, which do not wait.
    pub(crate) fn take_now(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        let own = self.own.as_mut().map_or(true, |bucket| bucket.room(now).is_ok());
        let shared = self.shared.as_ref().and_then(|bucket| bucket.lock().ok()?.room(now).ok());
        let passes = own && (self.shared.is_none() || shared.is_some());
        if passes {
            self.spend(bytes);
        }
        passes
    }

    /// Takes what has passed from both buckets.
    pub(crate) fn spend(&mut self, bytes: usize) {
        if let Some(bucket) = &mut self.own {
            bucket.spend(bytes);
        }
        if let Some(Ok(mut bucket)) = self.shared.as_ref().map(|bucket| bucket.lock()) {
            bucket.spend(bytes);
        }
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
    fn debt_is_waited_for() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(1_000, begin);
        bucket.spend(1_050);
        let until = bucket.room(begin).expect_err("in debt");
        assert!((until - begin).as_millis().abs_diff(1_001) <= 1, "{:?}", until - begin);
    }
}
