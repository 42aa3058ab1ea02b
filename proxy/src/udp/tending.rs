//! What happens to flows that are under way: their backends answer, nobody speaks any more, others end them. Two tasks of a
//! worker look after all of its flows; a task, a timer and a place in the runtime for each would take more than the flow itself.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{timeout_at, Instant};

use crate::kernel::await_readable;
use crate::tcp::places::Places;
use crate::transparent::socket::UdpToBackend;
use crate::worker::Worker;

use super::flow::Flow;
use super::lending::Lending;

/// Flows whose answers are taken by one look at the queue, one batch of each.
const EVENTS: usize = 64;

/// Batches of answers that are passed on without a pause.
const BATCHES_A_TURN: u32 = 16;

/// Flows that are ended without a pause.
const ENDS_A_TURN: usize = 256;

/// The flows of one worker.
pub(crate) struct Tended {
    queue: Rc<Epoll>,
    /// The same queue, as the runtime watches it.
    news: AsyncFd<OwnedFd>,
    flows: RefCell<Places<Rc<Flow>>>,
    /// When a flow is looked at, because nobody may have spoken by then.
    alarms: RefCell<BTreeSet<(Instant, u32)>>,
    /// Those to which something was done.
    nudged: RefCell<Vec<u32>>,
    bell: Notify,
    lending: Lending,
}

impl std::fmt::Debug for Tended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tended").field("alarms", &self.alarms.borrow().len()).finish_non_exhaustive()
    }
}

impl Tended {
    /// Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// The kernel has no further event queue.
    pub(crate) fn new() -> io::Result<Self> {
        let queue = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let news = await_readable(queue.0.try_clone()?)?;
        Ok(Self {
            queue: Rc::new(queue),
            news,
            flows: RefCell::default(),
            alarms: RefCell::default(),
            nudged: RefCell::default(),
            bell: Notify::new(),
            lending: Lending::default(),
        })
    }

    /// Takes a flow in; its place here.
    pub(super) fn put(&self, flow: Rc<Flow>) -> u32 {
        self.flows.borrow_mut().put(flow)
    }

    /// Lets a flow go; none: it has gone.
    pub(super) fn let_go(&self, place: u32, alarm: Option<Instant>) -> Option<Rc<Flow>> {
        if let Some(alarm) = alarm {
            self.alarms.borrow_mut().remove(&(alarm, place));
        }
        self.flows.borrow_mut().take(place)
    }

    fn get(&self, place: u32) -> Option<Rc<Flow>> {
        self.flows.borrow_mut().get(place).map(|flow| Rc::clone(flow))
    }

    /// Looks at a flow at another time than `before`.
    pub(super) fn set_alarm(&self, place: u32, before: Option<Instant>, at: Instant) {
        let mut alarms = self.alarms.borrow_mut();
        if let Some(before) = before {
            alarms.remove(&(before, place));
        }
        alarms.insert((at, place));
        if alarms.first() == Some(&(at, place)) {
            self.bell.notify_one();
        }
    }

    /// Looks at a flow soon.
    pub(super) fn nudge(&self, place: u32) {
        self.nudged.borrow_mut().push(place);
        self.bell.notify_one();
    }

    /// Watches a socket for the answers of the backend of the flow at a place.
    ///
    /// # Errors
    ///
    /// The kernel has no room in the queue.
    pub(super) fn watch(&self, socket: &mut Watched, place: u32) -> io::Result<()> {
        self.queue.add(&socket.socket, EpollEvent::new(EpollFlags::EPOLLIN, place.into()))?;
        socket.queue = Some(Rc::clone(&self.queue));
        Ok(())
    }

    /// Takes the answers of backends, for as long as the worker lives.
    pub(crate) async fn hear(worker: Rc<Worker>) {
        let tended = &worker.udp.tended;
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut batches = 0u32;
        loop {
            let Ok(mut ready) = tended.news.readable().await else { return };
            let count = tended.queue.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
            let mut is_all = count < EVENTS;
            for event in events.iter().take(count) {
                let flow = u32::try_from(event.data()).ok().and_then(|place| tended.get(place));
                let has_errors = event.events().contains(EpollFlags::EPOLLERR);
                let has_more = flow.is_some_and(|flow| flow.hear(has_errors));
                // Behind an error there may be answers.
                is_all &= !has_more && !has_errors;
                // The others on this thread have their turn, however much there is to hear.
                batches = batches.wrapping_add(1);
                if batches % BATCHES_A_TURN == 0 {
                    yield_now().await;
                }
            }
            // What comes from now on is told anew.
            if is_all {
                ready.clear_ready();
            }
        }
    }

    /// Ends those whose time is over, and those that others have ended, for as long as the worker lives.
    pub(crate) async fn look_after(worker: Rc<Worker>) {
        let tended = &worker.udp.tended;
        loop {
            let first = tended.alarms.borrow().first().map(|(at, _)| *at);
            match first {
                Some(at) => drop(timeout_at(at, tended.bell.notified()).await),
                None => tended.bell.notified().await,
            }
            while tended.look() == ENDS_A_TURN {
                yield_now().await;
            }
        }
    }

    /// Looks at flows, so many at most; at how many.
    fn look(&self) -> usize {
        let now = Instant::now();
        let mut places: Vec<u32> = {
            let mut nudged = self.nudged.borrow_mut();
            let from = nudged.len().saturating_sub(ENDS_A_TURN);
            nudged.split_off(from)
        };
        {
            let alarms = self.alarms.borrow();
            let due = alarms.iter().take_while(|(at, _)| *at <= now).map(|(_, place)| *place);
            places.extend(due.take(ENDS_A_TURN - places.len()));
        }
        for place in &places {
            if let Some(flow) = self.get(*place) {
                flow.look(now);
            }
        }
        places.len()
    }

    /// A socket towards an address by the port of another flow.
    pub(super) fn borrow_port(&self, to: SocketAddr) -> Option<UdpToBackend> {
        let flows = self.flows.borrow();
        let ask = |place| flows.at(place).map_or(ControlFlow::Continue(()), |flow| flow.lend_port(to));
        self.lending.find((to, Instant::now()), flows.end(), ask)
    }

    /// Whether any flow is in use.
    pub(super) fn has_in_use(&self, now: Instant) -> bool {
        self.flows.borrow().iter().any(|(_, flow)| flow.is_in_use(now))
    }

    /// Ends all, as the worker does.
    pub(crate) fn end(&self) {
        let all = self.flows.take();
        drop(all);
    }
}

/// A socket towards a backend, and the queue in which it is.
#[derive(Debug)]
pub(crate) struct Watched {
    socket: OwnedFd,
    queue: Option<Rc<Epoll>>,
}

impl From<OwnedFd> for Watched {
    fn from(socket: OwnedFd) -> Self {
        Self { socket, queue: None }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Another process may have the same socket, which would keep it in the queue.
        if let Some(queue) = self.queue.take() {
            // One that is not in it is not in it.
            let _ = queue.delete(&self.socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use crate::story::Story;

    use super::*;

    /// All that each flow has for itself on a 64-bit machine; beside it stand a few words in the tables of its worker.
    #[test]
    fn a_flow_and_its_story_stay_below_three_quarters_of_a_kilobyte() {
        let whole = size_of::<Flow>() + size_of::<RefCell<Story>>();
        assert!(whole <= 768, "{} and {} bytes", size_of::<Flow>(), size_of::<RefCell<Story>>());
    }
}
