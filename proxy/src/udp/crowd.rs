//! Flows of one listener, of this worker: which of them gives way when there are as many as the listener may have.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use tokio::time::Instant;

use super::flow::Flow;
use super::giving_way::Queue;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    queue: Queue<Flow>,
    living: Cell<usize>,
}

impl Crowd {
    pub(super) fn begun(&self, flow: &Rc<Flow>) {
        self.living.set(self.living.get() + 1);
        self.queue.push(Rc::downgrade(flow), self.living.get());
    }

    /// Its client came back after an answer.
    pub(super) fn confirmed(&self, flow: Weak<Flow>, last_heard: Instant) {
        self.queue.confirm(flow, last_heard);
    }

    pub(super) fn ended(&self, was_confirmed: bool) {
        self.living.set(self.living.get().saturating_sub(1));
        if was_confirmed {
            self.queue.unconfirm();
        }
        // At a listener to which nobody comes any more nobody else does it.
        self.queue.sweep(self.living.get());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.living.get() == 0
    }

    /// Lets one of them give way; whether there was any.
    pub(super) fn make_room(&self, now: Instant) -> bool {
        self.queue.make_room(self.living.get(), now)
    }
}
