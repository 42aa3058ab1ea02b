//! What all UDP sockets of one worker share: flows by number, those that may give way, what is held, and who has moved.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};

use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::admission::Occupancy;
use crate::operation::outcomes::UdpDrop;
use crate::worker::Worker;

use super::flow::Flow;
use super::giving_way::Queue;
use super::held::Store;
use super::rebinding::{Handed, Home, Homes};
use super::sending::Joined;
use super::tending::Tended;

/// What a worker is given of what all workers share.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) homes: Homes,
    /// Which worker it is.
    pub(crate) worker: usize,
    /// Datagrams for its flows that came to other workers.
    pub(crate) inbox: Receiver<Handed>,
}

impl Membership {
    /// For so many workers.
    pub(crate) fn of(workers: usize) -> Vec<Self> {
        let (homes, inboxes) = Homes::new(workers);
        let one = |(worker, inbox)| Self { homes: homes.clone(), worker, inbox };
        inboxes.into_iter().enumerate().map(one).collect()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) store: Rc<Store>,
    pub(crate) tended: Tended,
    pub(crate) queue: Queue<Flow>,
    pub(crate) homes: Homes,
    worker: usize,
    /// Those that others know of.
    numbered: RefCell<HashMap<u64, Weak<Flow>>>,
    last_number: Cell<u64>,
    /// Flows of this worker.
    pub(crate) living: Cell<usize>,
    /// The same, as those who admit count them.
    pub(crate) occupancy: Occupancy,
    /// No flow begins any more.
    pub(crate) is_draining: Cell<bool>,
}

impl Station {
    /// Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// The kernel has no further event queue.
    pub(crate) fn new(homes: Homes, worker: usize) -> io::Result<Self> {
        Ok(Self {
            store: Rc::default(),
            tended: Tended::new()?,
            queue: Queue::default(),
            homes,
            worker,
            numbered: RefCell::default(),
            last_number: Cell::new(0),
            living: Cell::new(0),
            occupancy: Occupancy::default(),
            is_draining: Cell::new(false),
        })
    }

    /// Begins no flow any more; whether any is in use.
    pub(crate) fn drain(&self, now: Instant) -> bool {
        self.is_draining.set(true);
        self.tended.has_in_use(now)
    }

    /// A number for a flow that others are to know of.
    pub(crate) fn number(&self, flow: &Weak<Flow>) -> u64 {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        self.numbered.borrow_mut().insert(number, Weak::clone(flow));
        number
    }

    /// Forgets it.
    pub(crate) fn unnumber(&self, number: u64) {
        self.numbered.borrow_mut().remove(&number);
    }

    pub(crate) fn numbered(&self, number: u64) -> Option<Rc<Flow>> {
        self.numbered.borrow().get(&number).and_then(Weak::upgrade)
    }

    /// How a flow of this worker is found by others.
    pub(crate) fn home(&self, flow: u64) -> Home {
        Home { worker: self.worker, flow }
    }

    /// Whether a flow is this worker's.
    pub(crate) fn is_here(&self, home: Home) -> bool {
        home.worker == self.worker
    }
}

/// Takes what other workers hand over, for as long as the task lives.
pub(crate) async fn take_handed(worker: Rc<Worker>, mut inbox: Receiver<Handed>) {
    while let Some(Handed { flow, peer, bytes, segment }) = inbox.recv().await {
        let joined = Joined { bytes: &bytes, segment };
        match worker.udp.numbered(flow) {
            Some(flow) => {
                flow.move_to(peer, true);
                flow.carry(std::iter::once(joined), Instant::now());
            }
            // It has ended meanwhile.
            None => worker.epoch().counters.datagrams_dropped(UdpDrop::NoUpstream, joined.count() as u64),
        }
    }
}
