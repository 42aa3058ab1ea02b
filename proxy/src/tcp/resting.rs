//! Connections of which no byte has moved for a while: without a task, a timer or a buffer each, they wait in one event
//! queue for whatever comes first, a byte, an end, or their time. One takes half a kilobyte.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::admission::Permit;
use crate::kernel::await_readable;
use crate::story::Story;
use crate::upstream::condition::Active;
use crate::worker::Worker;

use super::carried::resume;
use super::direction::{Direction, Progress};
use super::places::Places;
use super::unfinished::Unfinished;

/// A connection of which nothing has moved for so long rests.
pub(crate) const REST: Duration = Duration::from_secs(5);

/// Events that one look at the queue brings.
const EVENTS: usize = 64;

/// The peers of connections that have rested, for tests: that one rests is else seen by its memory only.
#[cfg(test)]
pub(crate) static SEEN: std::sync::Mutex<Vec<std::net::SocketAddr>> = std::sync::Mutex::new(Vec::new());

/// A connection that rests.
pub(crate) struct Rested {
    pub(crate) story: Story,
    pub(crate) client: Unfinished<TcpStream>,
    pub(crate) backend: Unfinished<TcpStream>,
    pub(crate) up: Direction,
    pub(crate) down: Direction,
    pub(crate) header_length: u64,
    pub(crate) permit: Permit,
    pub(crate) in_use: Active,
    /// When a byte moved last.
    pub(crate) since: Instant,
}

impl Rested {
    /// When its relay would end for want of a byte.
    fn ends_at(&self) -> Instant {
        let timeouts = &self.story.epoch.config().timeouts;
        let are_open = [&self.up, &self.down].map(|way| way.progress() == Progress::Open);
        self.since + if are_open == [true, true] { timeouts.idle } else { timeouts.half_closed }
    }

    /// Of an end that has said its last only an error is news.
    fn interests(&self) -> [EpollFlags; 2] {
        [&self.up, &self.down].map(|way| match way.progress() {
            Progress::Open => EpollFlags::EPOLLIN,
            Progress::Ending | Progress::Ended => EpollFlags::empty(),
        })
    }
}

/// The connections of one worker that rest.
pub(crate) struct Resting {
    queue: Epoll,
    /// The same queue, as the runtime watches it.
    news: AsyncFd<OwnedFd>,
    places: RefCell<Places<Rested>>,
    /// Those that came since this was asked last.
    fresh: Cell<usize>,
}

impl std::fmt::Debug for Resting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resting").field("fresh", &self.fresh).finish_non_exhaustive()
    }
}

impl Resting {
    /// Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// The kernel has no further event queue.
    pub(crate) fn new() -> io::Result<Self> {
        let queue = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let news = await_readable(queue.0.try_clone()?)?;
        Ok(Self { queue, news, places: RefCell::default(), fresh: Cell::new(0) })
    }

    /// Lets a connection rest.
    ///
    /// # Errors
    ///
    /// The connection, where the kernel has no room for it in the queue.
    pub(crate) fn add(&self, rested: Rested) -> Result<(), Box<Rested>> {
        let interests = rested.interests();
        #[cfg(test)]
        SEEN.lock().expect("no panic").push(rested.story.peer);
        let place = self.places.borrow_mut().put(rested);
        if self.enqueue(place, interests).is_err() {
            return self.take(place).map_or(Ok(()), |rested| Err(Box::new(rested)));
        }
        self.fresh.set(self.fresh.get() + 1);
        Ok(())
    }

    fn enqueue(&self, place: u32, [of_client, of_backend]: [EpollFlags; 2]) -> nix::Result<()> {
        let mut places = self.places.borrow_mut();
        let Some(rested) = places.get(place) else { return Ok(()) };
        if let (Some(client), Some(backend)) = (rested.client.get(), rested.backend.get()) {
            self.queue.add(client.as_fd(), EpollEvent::new(of_client, place.into()))?;
            self.queue.add(backend.as_fd(), EpollEvent::new(of_backend, place.into()))?;
        }
        Ok(())
    }

    fn take(&self, place: u32) -> Option<Rested> {
        let mut rested = self.places.borrow_mut().take(place)?;
        for stream in [rested.client.get(), rested.backend.get()].into_iter().flatten() {
            // One that was never in it is not in it now.
            let _ = self.queue.delete(stream.as_fd());
        }
        Some(rested)
    }

    /// Wakes those to whom something happens, for as long as the worker lives.
    pub(crate) async fn watch(worker: Rc<Worker>) {
        let resting = &worker.resting;
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let Ok(mut ready) = resting.news.readable().await else { return };
            let count = resting.queue.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
            if count < EVENTS {
                ready.clear_ready();
            }
            for event in events.iter().take(count) {
                // Both ends of one may have news at once; the second time it is gone.
                let place = u32::try_from(event.data()).unwrap_or(u32::MAX);
                if let Some(rested) = resting.take(place) {
                    resume(&worker, rested);
                }
            }
        }
    }

    /// Wakes those whose time is over, so that they end.
    pub(crate) fn sweep(worker: &Rc<Worker>, now: Instant) {
        let resting = &worker.resting;
        let late: Vec<u32> =
            resting.places.borrow().iter().filter(|(_, one)| now >= one.ends_at()).map(|(at, _)| at).collect();
        for place in late {
            if let Some(rested) = resting.take(place) {
                resume(worker, rested);
            }
        }
    }

    /// Calls `see` with each story.
    pub(crate) fn each_story(&self, mut see: impl FnMut(&Story)) {
        self.places.borrow().iter().for_each(|(_, rested)| see(&rested.story));
    }

    pub(crate) fn count(&self) -> usize {
        self.places.borrow().count()
    }

    /// How many came since this was asked last.
    pub(crate) fn take_fresh(&self) -> usize {
        self.fresh.take()
    }

    /// Ends all.
    pub(crate) fn end(&self) {
        let all = self.places.take();
        drop(all);
    }
}
