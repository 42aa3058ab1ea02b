//! Who may begin a lookup: so many at once in all, and few of one source, so that nobody takes the turns of all others. Who
//! finds none waits for one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::admission::SourceKey;

/// Lookups at once, of two sockets each: clients choose names, and shall not choose how many sockets there are.
const MOST: usize = 128;
/// The same of one source.
const MOST_OF_SOURCE: usize = 8;
/// Those who wait. Each is somebody's connection or flow, which are bounded too, and waits for a moment only.
const MOST_WAITING: usize = 1024;
/// Sources that are known before the first look for those that ask for nothing any more.
const FIRST_SWEEP: usize = 64;

/// The turns of one thread.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    /// Sources that have turns, or wait for one; some that do not any more.
    sources: RefCell<HashMap<SourceKey, Arc<Semaphore>>>,
    sweep_at: Cell<usize>,
    waiting: Cell<usize>,
}

/// A lookup may go on until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _of_source: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MOST)),
            sources: RefCell::default(),
            sweep_at: Cell::new(FIRST_SWEEP),
            waiting: Cell::new(0),
        }
    }

    /// A turn, if there is one now. `asker`: the client that chose the name; none: this proxy asks for itself.
    pub(crate) fn take_now(&self, asker: Option<IpAddr>) -> Option<Turn> {
        let of_source = match asker {
            Some(asker) => Some(self.of(asker).try_acquire_owned().ok()?),
            None => None,
        };
        let of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Turn { _of_source: of_source, _of_all: of_all })
    }

    /// A turn, waited for as long as `patience`: first for one of the source's, then among all sources in their order, so that
    /// of one source few stand there.
    pub(crate) async fn take(&self, asker: Option<IpAddr>, patience: Duration) -> Option<Turn> {
        if let Some(turn) = self.take_now(asker) {
            return Some(turn);
        }
        let _waiter = Waiter::new(&self.waiting)?;
        timeout(patience, self.wait(asker)).await.ok()?
    }

    async fn wait(&self, asker: Option<IpAddr>) -> Option<Turn> {
        let of_source = match asker {
            Some(asker) => Some(self.of(asker).acquire_owned().await.ok()?),
            None => None,
        };
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _of_source: of_source, _of_all: of_all })
    }

    /// The turns of one source.
    fn of(&self, asker: IpAddr) -> Arc<Semaphore> {
        let mut sources = self.sources.borrow_mut();
        if sources.len() >= self.sweep_at.get() {
            sources.retain(|_, turns| Arc::strong_count(turns) > 1); // whoever has a turn or waits has one more
            self.sweep_at.set(2 * sources.len() + FIRST_SWEEP);
        }
        let turns = sources.entry(SourceKey::of(asker)).or_insert_with(|| Arc::new(Semaphore::new(MOST_OF_SOURCE)));
        Arc::clone(turns)
    }
}

/// One of those who wait, for as long as it lives.
struct Waiter<'a>(&'a Cell<usize>);

impl<'a> Waiter<'a> {
    fn new(waiting: &'a Cell<usize>) -> Option<Self> {
        let count = waiting.get();
        (count < MOST_WAITING).then(|| {
            waiting.set(count + 1);
            Self(waiting)
        })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::rc::Rc;

    use tokio::task::{spawn_local, yield_now, LocalSet};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn client(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    async fn run(test: impl Future<Output = ()>) {
        LocalSet::new().run_until(test).await;
    }

    #[test]
    fn one_source_has_few_turns_and_all_together_so_many() {
        let turns = Turns::new();
        let taken: Vec<_> = std::iter::from_fn(|| turns.take_now(client(1))).collect();
        assert_eq!(taken.len(), MOST_OF_SOURCE);
        let others: Vec<_> = (2..=255).map_while(|number| turns.take_now(client(number))).collect();
        assert_eq!(taken.len() + others.len(), MOST);
        assert!(turns.take_now(None).is_none());
        drop(taken);
        assert!(turns.take_now(None).is_some() && turns.take_now(client(1)).is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_the_next_turn_of_its_source_and_stands_in_nobodys_way() {
        run(async {
            let turns = Rc::new(Turns::new());
            let mut taken: Vec<_> = std::iter::from_fn(|| turns.take_now(client(1))).collect();
            let greedy: Vec<_> = (0..100)
                .map(|_| {
                    let turns = Rc::clone(&turns);
                    spawn_local(async move { turns.take(client(1), LONG).await.is_some() })
                })
                .collect();
            while turns.waiting.get() < 100 {
                yield_now().await;
            }
            assert!(turns.take(client(2), Duration::ZERO).await.is_some(), "another one does not wait");
            drop(taken.pop());
            for waiter in greedy {
                assert!(waiter.await.expect("no panic"), "one after the other");
            }
            assert_eq!(turns.waiting.get(), 0);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end_and_so_has_the_queue() {
        run(async {
            let turns = Rc::new(Turns::new());
            let taken: Vec<_> = std::iter::from_fn(|| turns.take_now(None)).collect();
            assert_eq!(taken.len(), MOST);
            let wait = |patience| {
                let turns = Rc::clone(&turns);
                spawn_local(async move { turns.take(None, patience).await.is_some() })
            };
            let waiters: Vec<_> = (0..MOST_WAITING).map(|_| wait(Duration::from_secs(5))).collect();
            yield_now().await;
            assert!(!wait(LONG).await.expect("no panic"), "there is no place to wait");
            for waiter in waiters {
                assert!(!waiter.await.expect("no panic"), "its patience is over");
            }
            assert_eq!(turns.waiting.get(), 0);
            let late = wait(LONG);
            yield_now().await;
            drop(taken);
            assert!(late.await.expect("no panic"));
        })
        .await;
    }

    #[test]
    fn sources_that_ask_no_more_are_forgotten() {
        let turns = Turns::new();
        let held = turns.take_now(client(1)).expect("a turn");
        for number in 0..10_000_u16 {
            let [high, low] = number.to_be_bytes();
            drop(turns.take_now(Some(IpAddr::from([198, 51, high, low]))));
        }
        assert!(turns.sources.borrow().len() <= FIRST_SWEEP + 2);
        assert_eq!(turns.of(IpAddr::from([192, 0, 2, 1])).available_permits(), MOST_OF_SOURCE - 1);
        drop(held);
    }
}
