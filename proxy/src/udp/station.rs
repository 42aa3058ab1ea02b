//! What all UDP sockets of one worker share: flows by number, those that may give way, what is held, and who has moved.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};

use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::admission::ListenerKey;
use crate::config::model::ListenerId;
use crate::generation::Generation;
use crate::operation::outcomes::UdpDrop;
use crate::worker::Worker;

use super::colleagues::{Colleagues, Handed, Passed, PlaceWanted};
use super::crowd::Crowd;
use super::flow::Flow;
use super::giving_way::Queue;
use super::held::Store;
use super::rebinding::{Home, Homes};
use super::sending::Joined;
use super::tending::Tended;

/// What a worker is given of what all workers share.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) homes: Homes,
    pub(crate) colleagues: Colleagues,
    /// Which worker it is.
    pub(crate) worker: usize,
    /// What the others say to it.
    pub(crate) inbox: Receiver<Passed>,
}

impl Membership {
    /// For so many workers.
    pub(crate) fn of(workers: usize) -> Vec<Self> {
        let (homes, (colleagues, inboxes)) = (Homes::default(), Colleagues::new(workers));
        let one = |(worker, inbox)| Self { homes: homes.clone(), colleagues: colleagues.clone(), worker, inbox };
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
    pub(crate) colleagues: Colleagues,
    worker: usize,
    /// Those that others know of.
    numbered: RefCell<HashMap<u64, Weak<Flow>>>,
    last_number: Cell<u64>,
    /// Flows of this worker.
    pub(crate) living: Cell<usize>,
    /// Those of them that have a place: others have given theirs to newcomers, and are about to end.
    pub(crate) admitted: Cell<usize>,
    /// Flows of each listener.
    crowds: RefCell<HashMap<ListenerKey, Rc<Crowd>>>,
    /// No flow begins any more.
    pub(crate) is_draining: Cell<bool>,
}

impl Station {
    /// Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// The kernel has no further event queue.
    pub(crate) fn new(homes: Homes, colleagues: Colleagues, worker: usize) -> io::Result<Self> {
        Ok(Self {
            store: Rc::default(),
            tended: Tended::new()?,
            queue: Queue::default(),
            homes,
            colleagues,
            worker,
            numbered: RefCell::default(),
            last_number: Cell::new(0),
            living: Cell::new(0),
            admitted: Cell::new(0),
            crowds: RefCell::default(),
            is_draining: Cell::new(false),
        })
    }

    /// Begins no flow any more; whether any is in use.
    pub(crate) fn drain(&self, now: Instant) -> bool {
        self.is_draining.set(true);
        self.tended.has_in_use(now)
    }

    /// Makes room among `total` flows of all workers for a newcomer; whether there is some now. Where no flow of this worker may
    /// give way, or it has fewer than its part, the others are asked, for those who come next.
    pub(crate) fn make_room(&self, total: usize, now: Instant) -> bool {
        let part = total / self.colleagues.count();
        let has_part = self.admitted.get() >= part;
        let is_made = self.queue.make_room(self.living.get(), now);
        if !is_made || !has_part {
            self.colleagues.ask(self.worker, if is_made { part } else { 0 });
        }
        is_made
    }

    /// Lets a flow go for another worker's newcomers, or has the next one asked. `is_full`: they have no place by now.
    fn give_room(&self, wanted: PlaceWanted, is_full: bool) {
        let has_more = self.admitted.get() > wanted.more_than;
        if !is_full || has_more && self.queue.make_room(self.living.get(), Instant::now()) {
            self.colleagues.answered(&wanted);
        } else {
            self.colleagues.pass_on(self.worker, wanted);
        }
    }

    /// The flows of this worker at a listener: a reload may give it a bound of its own, and keeps its flows.
    pub(crate) fn crowd(&self, generation: &Generation, listener: ListenerId) -> Option<Rc<Crowd>> {
        let (occupancy, _) = generation.flow_bounds(listener)?;
        let (key, mut crowds) = (ListenerKey::of(occupancy), self.crowds.borrow_mut());
        if !crowds.contains_key(&key) {
            // Those of listeners that have gone with a reload.
            crowds.retain(|_, crowd| !crowd.is_empty());
        }
        Some(Rc::clone(crowds.entry(key).or_default()))
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

/// Takes what other workers hand over and ask for, as long as the task lives.
pub(crate) async fn take_handed(worker: Rc<Worker>, mut inbox: Receiver<Passed>) {
    while let Some(passed) = inbox.recv().await {
        let Handed { flow, peer, bytes, segment } = match passed {
            Passed::Datagrams(handed) => handed,
            Passed::Wanted(wanted) => {
                let most = worker.epoch().config().limits.udp_flows.get();
                worker.udp.give_room(wanted, worker.flows.total() >= most);
                continue;
            }
        };
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
