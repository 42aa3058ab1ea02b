//! Connections of one worker that wait for their client's first bytes: where there is no place for a newcomer, the one that
//! has been here for longest gives its own.

use std::cell::{Cell, RefCell};
use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::future::{poll_fn, Future};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Poll, Waker};

use tokio::time::Instant;

use crate::admission::{ListenerKey, Permit};
use crate::operation::{CloseReason, Limit};

/// When it came; numbers tell those of one instant apart.
type Place = (Instant, u64);

/// See the module. Nothing is here of those who need not wait, or are led on.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    /// A listener at which nobody waits is not in it.
    waiting: RefCell<BTreeMap<ListenerKey, BTreeMap<Place, Waiting>>>,
    numbers: Cell<u64>,
}

#[derive(Debug)]
struct Waiting {
    /// It is here, so that it can be had at once.
    permit: Permit,
    waker: Waker,
}

impl Undecided {
    /// Does what may take as long as a client likes, for one that came at `since`; its permit comes back with the outcome. Of one
    /// source `most` may wait, at whichever worker.
    ///
    /// # Errors
    ///
    /// Its place went to another one meanwhile, or too many of its source wait.
    pub(crate) async fn wait<T>(
        &self,
        permit: Permit,
        since: Instant,
        most: NonZeroUsize,
        doing: impl Future<Output = T>,
    ) -> Result<(Permit, T), CloseReason> {
        let number = self.numbers.get();
        self.numbers.set(number.wrapping_add(1));
        let mut seat = Seat { all: self, listener: permit.listener(), place: (since, number), permit: Some(permit) };
        let mut doing = pin!(doing);
        poll_fn(|context| {
            if !seat.is_held() {
                return Poll::Ready(Err(CloseReason::Evicted));
            }
            match doing.as_mut().poll(context) {
                Poll::Ready(outcome) => {
                    Poll::Ready(seat.leave().map(|permit| (permit, outcome)).ok_or(CloseReason::Evicted))
                }
                Poll::Pending if seat.sit(context.waker(), most) => Poll::Pending,
                Poll::Pending => Poll::Ready(Err(CloseReason::OverLimit(Limit::SourceUndecided))),
            }
        })
        .await
    }

    /// Ends the wait of the one that came first, of all or of those at `listener`; whether there was one. Its place is free
    /// when this returns.
    pub(crate) fn give_way(&self, listener: Option<ListenerKey>) -> bool {
        let evicted = {
            let mut waiting = self.waiting.borrow_mut();
            let first_of = |(key, places): (&ListenerKey, &BTreeMap<Place, Waiting>)| {
                places.first_key_value().map(|(place, _)| (*place, *key))
            };
            let first = match listener {
                Some(key) => waiting.get(&key).and_then(|places| first_of((&key, places))),
                None => waiting.iter().filter_map(first_of).min(),
            };
            first.and_then(|(place, key)| take(&mut waiting, key, place))
        };
        let Some(Waiting { permit, waker }) = evicted else { return false };
        drop(permit);
        waker.wake();
        true
    }
}

fn take(
    waiting: &mut BTreeMap<ListenerKey, BTreeMap<Place, Waiting>>,
    listener: ListenerKey,
    place: Place,
) -> Option<Waiting> {
    let Entry::Occupied(mut places) = waiting.entry(listener) else { return None };
    let taken = places.get_mut().remove(&place);
    if places.get().is_empty() {
        places.remove();
    }
    taken
}

/// One that waits, or does not need to yet.
struct Seat<'a> {
    all: &'a Undecided,
    listener: ListenerKey,
    place: Place,
    /// Until it sits.
    permit: Option<Permit>,
}

impl Seat<'_> {
    fn is_held(&self) -> bool {
        let waiting = self.all.waiting.borrow();
        self.permit.is_some() || waiting.get(&self.listener).is_some_and(|places| places.contains_key(&self.place))
    }

    /// Whether it may.
    fn sit(&mut self, waker: &Waker, most: NonZeroUsize) -> bool {
        let mut waiting = self.all.waiting.borrow_mut();
        if let Some(mut permit) = self.permit.take() {
            if !permit.waits(most) {
                return false;
            }
            let sits = Waiting { permit, waker: waker.clone() };
            waiting.entry(self.listener).or_default().insert(self.place, sits);
        } else if let Some(sits) = waiting.get_mut(&self.listener).and_then(|places| places.get_mut(&self.place)) {
            sits.waker.clone_from(waker);
        }
        true
    }

    fn leave(&mut self) -> Option<Permit> {
        let sat = || take(&mut self.all.waiting.borrow_mut(), self.listener, self.place).map(|sits| sits.permit);
        let mut permit = self.permit.take().or_else(sat)?;
        permit.is_decided();
        Some(permit)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::net::IpAddr;
    use std::num::NonZeroUsize;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::{spawn_local, JoinHandle, LocalSet};

    use super::*;
    use crate::admission::{Admission, Bounds, Occupancy};
    use crate::config::model::SourcePrefixes;

    const MANY: NonZeroUsize = NonZeroUsize::MAX;

    struct Bench {
        admission: Arc<Admission>,
        undecided: Rc<Undecided>,
        begun: Instant,
    }

    type Waited = JoinHandle<Option<CloseReason>>;

    impl Bench {
        fn new() -> Self {
            Self { admission: Arc::default(), undecided: Rc::default(), begun: Instant::now() }
        }

        fn permit(&self, listener: &Occupancy) -> Permit {
            let [total, at_listener, source] = [100; 3].map(|bound| NonZeroUsize::new(bound).expect("not zero"));
            let bounds = Bounds { total, listener: at_listener, source, prefixes: SourcePrefixes::default() };
            self.admission.admit(IpAddr::from([192, 0, 2, 1]), listener, bounds).expect("room")
        }

        /// One that came at this second and waits without end; why it ended.
        fn wait(&self, listener: &Occupancy, second: u64) -> Waited {
            let (permit, undecided) = (self.permit(listener), Rc::clone(&self.undecided));
            let since = self.begun + Duration::from_secs(second);
            spawn_local(async move { undecided.wait(permit, since, MANY, pending::<()>()).await.err() })
        }
    }

    async fn run(test: impl Future<Output = ()>) {
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn whoever_came_first_gives_way_of_all_or_of_one_listener() {
        run(async {
            let (bench, one, other) = (Bench::new(), Occupancy::default(), Occupancy::default());
            let mut waiting =
                [(&one, 3), (&other, 1), (&one, 2), (&other, 4)].map(|(at, second)| bench.wait(at, second));
            tokio::task::yield_now().await;
            for (listener, expected) in [(Some(&one), 2), (None, 1), (None, 0), (Some(&other), 3)] {
                let before = bench.admission.total();
                let key = listener.map(|listener| bench.permit(listener).listener());
                assert!(bench.undecided.give_way(key));
                assert_eq!(bench.admission.total(), before - 1, "its place is free at once");
                assert_eq!((&mut waiting[expected]).await.expect("no panic"), Some(CloseReason::Evicted));
            }
            assert!(!bench.undecided.give_way(None), "nobody is left");
            assert!(bench.undecided.waiting.borrow().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn who_needs_not_wait_and_who_is_led_on_cannot_be_made_to_leave() {
        run(async {
            let (bench, listener) = (Bench::new(), Occupancy::default());
            let at_once = async {
                assert!(!bench.undecided.give_way(None), "it does not wait yet");
                1
            };
            let (permit, outcome) =
                bench.undecided.wait(bench.permit(&listener), bench.begun, MANY, at_once).await.expect("led on");
            assert_eq!((outcome, bench.admission.total()), (1, 1));
            let later = async {
                tokio::task::yield_now().await;
                2
            };
            let (permit, outcome) = bench.undecided.wait(permit, bench.begun, MANY, later).await.expect("led on");
            assert_eq!((outcome, bench.undecided.give_way(None), bench.admission.total()), (2, false, 1));
            drop(permit);
            assert_eq!(bench.admission.total(), 0);
        })
        .await;
    }

    #[tokio::test]
    async fn no_more_of_a_source_than_its_bound_wait_and_who_need_not_wait_comes_through() {
        run(async {
            let (bench, listener) = (Bench::new(), Occupancy::default());
            let wait = || {
                let (permit, undecided) = (bench.permit(&listener), Rc::clone(&bench.undecided));
                let begun = bench.begun;
                spawn_local(
                    async move { undecided.wait(permit, begun, NonZeroUsize::MIN, pending::<()>()).await.err() },
                )
            };
            let first = wait();
            tokio::task::yield_now().await;
            let reason = wait().await.expect("no panic");
            assert_eq!(reason, Some(CloseReason::OverLimit(Limit::SourceUndecided)));
            assert_eq!(bench.admission.total(), 1, "its place is free");
            assert!(bench
                .undecided
                .wait(bench.permit(&listener), bench.begun, NonZeroUsize::MIN, ready(()))
                .await
                .is_ok());
            first.abort();
            assert!(first.await.expect_err("aborted").is_cancelled());
            let next = wait();
            tokio::task::yield_now().await;
            assert!(!next.is_finished(), "there is room again");
        })
        .await;
    }

    #[tokio::test]
    async fn whose_task_is_dropped_leaves_nothing() {
        run(async {
            let (bench, listener) = (Bench::new(), Occupancy::default());
            let waiting = bench.wait(&listener, 0);
            tokio::task::yield_now().await;
            waiting.abort();
            assert!(waiting.await.expect_err("aborted").is_cancelled());
            assert!(!bench.undecided.give_way(None));
            assert_eq!(bench.admission.total(), 0);
            assert!(bench.undecided.wait(bench.permit(&listener), bench.begun, MANY, ready(())).await.is_ok());
        })
        .await;
    }
}
