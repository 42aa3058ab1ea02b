//! Happy eyeballs: the addresses of one candidate are dialled with a head start for the earlier ones, and the first that
//! answers wins (RFC 8305 section 5).

use std::future::{poll_fn, Future};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{sleep_until, Instant};

/// The head start of each address (RFC 8305 section 8, "Connection Attempt Delay").
pub const HEAD_START: Duration = Duration::from_millis(250);

/// A race that was won.
#[derive(Debug, PartialEq, Eq)]
pub struct Won<T, E> {
    /// Who answered first.
    pub address: SocketAddr,
    /// What connecting gave.
    pub value: T,
    /// Those that failed before, in the order in which they did.
    pub failures: Vec<(SocketAddr, E)>,
}

/// A race without a winner.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost<E> {
    /// Those that failed, in the order in which they did.
    pub failures: Vec<(SocketAddr, E)>,
    /// Those that had neither answered nor failed when the time was up.
    pub unanswered: Vec<SocketAddr>,
}

/// Attempts under way. Dropping one cancels it.
type Running<F> = Vec<(SocketAddr, Pin<Box<F>>)>;

/// Calls `connect` with each of `addresses` in turn, the next one [`HEAD_START`] after the last or as soon as one fails, and
/// returns the first success. The others are dropped.
///
/// # Errors
/// [`Lost`] when all have failed or `limit` has passed.
pub async fn race<T, E, F: Future<Output = Result<T, E>>>(
    addresses: &[SocketAddr],
    limit: Duration,
    mut connect: impl FnMut(SocketAddr) -> F,
) -> Result<Won<T, E>, Lost<E>> {
    let deadline = Instant::now() + limit;
    let mut waiting = addresses.iter().copied();
    let mut running: Running<F> = Vec::new();
    let mut failures = Vec::new();
    let mut start_next = Instant::now();
    loop {
        if Instant::now() >= start_next {
            if let Some(address) = waiting.next() {
                running.push((address, Box::pin(connect(address))));
                start_next = Instant::now() + HEAD_START;
            } else if running.is_empty() {
                return Err(Lost { failures, unanswered: Vec::new() });
            }
        }
        tokio::select! {
            biased;
            (address, outcome) = first(&mut running) => match outcome {
                Ok(value) => return Ok(Won { address, value, failures }),
                Err(error) => {
                    failures.push((address, error));
                    start_next = Instant::now();
                }
            },
            () = sleep_until(deadline) => {
                let unanswered = running.iter().map(|(address, _)| *address).collect();
                return Err(Lost { failures, unanswered });
            }
            () = sleep_until(start_next), if waiting.len() > 0 => {}
        }
    }
}

/// The first attempt to end, which is taken out; never, if there is none.
async fn first<F: Future>(running: &mut Running<F>) -> (SocketAddr, F::Output) {
    poll_fn(|context| {
        for (place, (address, attempt)) in running.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = attempt.as_mut().poll(context) {
                let address = *address;
                running.remove(place);
                return Poll::Ready((address, outcome));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    /// What an address does after so many milliseconds.
    #[derive(Clone, Copy)]
    enum Plan {
        Answer(u64),
        Fail(u64),
        Silence,
    }
    use Plan::{Answer, Fail, Silence};

    fn address(number: u16) -> SocketAddr {
        ([192, 0, 2, 1], number).into()
    }

    type Raced = Result<Won<u16, &'static str>, Lost<&'static str>>;

    /// The outcome, when it came, and when each address was dialled, in milliseconds.
    async fn raced(plans: &[Plan], limit: u64) -> (Raced, u128, Vec<(u16, u128)>) {
        let begin = Instant::now();
        let dialled = RefCell::new(Vec::new());
        let addresses: Vec<_> = (0..).zip(plans).map(|(number, _)| address(number)).collect();
        let outcome = race(&addresses, Duration::from_millis(limit), |address| {
            let number = address.port();
            dialled.borrow_mut().push((number, begin.elapsed().as_millis()));
            let plan = plans[usize::from(number)];
            async move {
                match plan {
                    Answer(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(number)
                    }
                    Fail(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Err("refused")
                    }
                    Silence => pending().await,
                }
            }
        });
        let outcome = outcome.await;
        (outcome, begin.elapsed().as_millis(), dialled.into_inner())
    }

    fn won(number: u16, failed: &[u16]) -> Raced {
        let failures = failed.iter().map(|number| (address(*number), "refused")).collect();
        Ok(Won { address: address(number), value: number, failures })
    }

    fn lost(failed: &[u16], unanswered: &[u16]) -> Raced {
        let failures = failed.iter().map(|number| (address(*number), "refused")).collect();
        Err(Lost { failures, unanswered: unanswered.iter().map(|number| address(*number)).collect() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_first_answer_wins_alone() {
        assert_eq!(raced(&[Answer(249), Answer(0)], 3000).await, (won(0, &[]), 249, vec![(0, 0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_starts_after_the_head_start_and_may_win() {
        let meant = (won(1, &[]), 260, vec![(0, 0), (1, 250)]);
        assert_eq!(raced(&[Silence, Answer(10), Answer(0)], 3000).await, meant);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_may_still_win_after_the_second_started() {
        assert_eq!(raced(&[Answer(300), Silence], 3000).await, (won(0, &[]), 300, vec![(0, 0), (1, 250)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once_and_begins_its_head_start() {
        let meant = (won(2, &[0]), 285, vec![(0, 0), (1, 30), (2, 280)]);
        assert_eq!(raced(&[Fail(30), Silence, Answer(5)], 3000).await, meant);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_nobody_waits() {
        assert_eq!(raced(&[Fail(0), Fail(0), Fail(10)], 3000).await.0, lost(&[0, 1, 2], &[]));
        assert_eq!(raced(&[Fail(400), Fail(10)], 3000).await.1, 400);
        assert_eq!(raced(&[], 3000).await, (lost(&[], &[]), 0, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_ends_the_race_and_tells_who_was_silent() {
        let meant = (lost(&[1], &[0, 2]), 600, vec![(0, 0), (1, 250), (2, 350)]);
        assert_eq!(raced(&[Silence, Fail(100), Silence, Answer(0)], 600).await, meant);
        assert_eq!(raced(&[Silence], 40).await.1, 40);
    }

    #[tokio::test(start_paused = true)]
    async fn the_losers_are_cancelled() {
        struct Cancelled<'a>(&'a RefCell<Vec<u16>>, u16);
        impl Drop for Cancelled<'_> {
            fn drop(&mut self) {
                self.0.borrow_mut().push(self.1);
            }
        }
        let cancelled = RefCell::new(Vec::new());
        let addresses = [address(0), address(1), address(2)];
        let outcome = race(&addresses, Duration::from_secs(3), |address| {
            let guard = Cancelled(&cancelled, address.port());
            async move {
                if guard.1 < 2 {
                    pending::<()>().await;
                }
                std::mem::forget(guard);
                Ok::<_, ()>(())
            }
        });
        assert_eq!(outcome.await.unwrap().address, address(2));
        assert_eq!(cancelled.into_inner(), [0, 1]);
    }
}
