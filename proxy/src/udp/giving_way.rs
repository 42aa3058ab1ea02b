//! Which flow gives way when there are too many, or too many bytes wait. Where there are too many: one that nobody has answered,
//! or else one whose client was answered but has said nothing since (its address may be made up), or else one whose client has
//! long said nothing. A client that comes back proves little: who makes addresses up may also send twice. So the flows of such
//! clients leave some places to newcomers, unless they are in use.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Weak;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Flows that are looked at for one that may give way.
const LOOKS: usize = 64;

/// Flows of which the client has said nothing for so long are not in use, when there are too many.
const QUIET: Duration = Duration::from_secs(10);

/// One in so many places is left to newcomers by flows that are not in use.
const PART_OF_NEWCOMERS: usize = 8;

/// How far two ends have got with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// The backend has said nothing.
    Unanswered,
    /// It has, and the client has not spoken since.
    Answered,
    /// The client spoke after an answer.
    Confirmed,
}

/// A flow, as seen from here.
pub(crate) trait GivesWay {
    /// How far it has got; none: it is about to end, and has no place to give.
    fn standing(&self) -> Option<Standing>;
    /// When its client was heard last.
    fn last_heard(&self) -> Instant;
    /// Whether it keeps its first datagrams until more is known.
    fn is_holding(&self) -> bool;
    /// Whether it keeps datagrams that it has sent, for another try.
    fn is_keeping(&self) -> bool;
    /// Lets go of these.
    fn forget_sent(&self);
    /// Makes room at once.
    fn give_way(&self);
}

/// The flows of a worker that may give way, the oldest first.
#[derive(Debug)]
pub(crate) struct Queue<F> {
    unanswered: RefCell<VecDeque<Weak<F>>>,
    answered: RefCell<VecDeque<Weak<F>>>,
    /// By when their clients were heard last, as far as that is known here; the number tells those of one moment apart.
    confirmed: RefCell<BTreeMap<(Instant, u64), Weak<F>>>,
    last_number: Cell<u64>,
    confirmed_count: Cell<usize>,
    holding: RefCell<VecDeque<Weak<F>>>,
    /// Those that keep what they have sent.
    keeping: RefCell<VecDeque<Weak<F>>>,
}

impl<F> Default for Queue<F> {
    fn default() -> Self {
        Self {
            unanswered: RefCell::default(),
            answered: RefCell::default(),
            confirmed: RefCell::default(),
            last_number: Cell::default(),
            confirmed_count: Cell::default(),
            holding: RefCell::default(),
            keeping: RefCell::default(),
        }
    }
}

impl<F: GivesWay> Queue<F> {
    /// A new flow; `living` of them are there.
    pub(crate) fn push(&self, flow: Weak<F>, living: usize) {
        self.unanswered.borrow_mut().push_back(flow);
        self.sweep(living);
    }

    /// Takes out what has ended, or is there no more, where that is much.
    pub(crate) fn sweep(&self, living: usize) {
        // A flow may end while others are looked at.
        let Ok(mut unanswered) = self.unanswered.try_borrow_mut() else { return };
        let Ok(mut answered) = self.answered.try_borrow_mut() else { return };
        if unanswered.len() + answered.len() + self.confirmed.borrow().len() > 2 * living + LOOKS {
            self.confirmed.borrow_mut().retain(|_, flow| flow.strong_count() > 0);
            for queue in [&mut *unanswered, &mut *answered] {
                let is_newcomer = |standing| matches!(standing, Some(Standing::Unanswered | Standing::Answered));
                queue.retain(|flow| flow.upgrade().is_some_and(|flow| is_newcomer(flow.standing())));
            }
        }
    }

    /// A flow is confirmed from now on, until [`Self::unconfirm`].
    pub(crate) fn confirm(&self, flow: Weak<F>, last_heard: Instant) {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        self.confirmed_count.set(self.confirmed_count.get() + 1);
        self.confirmed.borrow_mut().insert((last_heard, number), flow);
    }

    /// One of these has ended.
    pub(crate) fn unconfirm(&self) {
        self.confirmed_count.set(self.confirmed_count.get().saturating_sub(1));
    }

    /// As [`Self::push`], for a flow that keeps datagrams.
    pub(crate) fn push_holding(&self, flow: Weak<F>, living: usize) {
        push_of(&mut self.holding.borrow_mut(), flow, living, F::is_holding);
    }

    /// As [`Self::push`], for a flow that keeps what it has sent.
    pub(crate) fn push_keeping(&self, flow: Weak<F>, living: usize) {
        push_of(&mut self.keeping.borrow_mut(), flow, living, F::is_keeping);
    }

    /// Lets go of datagrams: of those that were sent, which costs their flow a second try only, or else the one flow gives way
    /// that has kept its own for longest; whether there was any.
    pub(crate) fn make_memory(&self) -> bool {
        let mut keeping = self.keeping.borrow_mut();
        while let Some(oldest) = keeping.pop_front() {
            if let Some(flow) = oldest.upgrade().filter(|flow| flow.is_keeping()) {
                flow.forget_sent();
                return true;
            }
        }
        let mut holding = self.holding.borrow_mut();
        while let Some(oldest) = holding.pop_front() {
            if let Some(flow) = oldest.upgrade().filter(|flow| flow.is_holding()) {
                flow.give_way();
                return true;
            }
        }
        false
    }

    /// Lets one of `living` flows give way; whether there was any.
    pub(crate) fn make_room(&self, living: usize, now: Instant) -> bool {
        let newcomers = living.saturating_sub(self.confirmed_count.get());
        let are_few = newcomers < living.div_ceil(PART_OF_NEWCOMERS);
        are_few && self.quiet_gives_way(now) || self.newcomer_gives_way() || self.quiet_gives_way(now)
    }

    fn newcomer_gives_way(&self) -> bool {
        let (mut unanswered, mut answered) = (self.unanswered.borrow_mut(), self.answered.borrow_mut());
        for _ in 0..LOOKS {
            let Some(oldest) = unanswered.pop_front() else { break };
            let Some(flow) = oldest.upgrade() else { continue };
            match flow.standing() {
                Some(Standing::Unanswered) => {
                    flow.give_way();
                    return true;
                }
                Some(Standing::Answered) => answered.push_back(oldest),
                Some(Standing::Confirmed) | None => {}
            }
        }
        for _ in 0..LOOKS {
            let Some(oldest) = answered.pop_front() else { break };
            if let Some(flow) = oldest.upgrade().filter(|flow| flow.standing() == Some(Standing::Answered)) {
                flow.give_way();
                return true;
            }
        }
        false
    }

    /// Lets the one give way whose client was silent for longest, if that is long. A client may have been heard after the time
    /// by which its flow stands here, never before.
    fn quiet_gives_way(&self, now: Instant) -> bool {
        for _ in 0..LOOKS {
            let first = self.confirmed.borrow_mut().pop_first();
            let Some(((heard, number), weak)) = first else { break };
            let Some(flow) = weak.upgrade().filter(|flow| flow.standing().is_some()) else { continue };
            let is_quiet = now.saturating_duration_since(heard) >= QUIET;
            if !is_quiet || flow.last_heard() > heard {
                self.confirmed.borrow_mut().insert((flow.last_heard(), number), weak);
                if is_quiet {
                    continue;
                }
                break;
            }
            flow.give_way();
            return true;
        }
        false
    }
}

/// Puts a flow in, and takes those out that have nothing there any more.
fn push_of<F>(queue: &mut VecDeque<Weak<F>>, flow: Weak<F>, living: usize, is_there: impl Fn(&F) -> bool) {
    let has_some = |flow: &Weak<F>| flow.upgrade().is_some_and(|flow| is_there(&flow));
    while queue.front().is_some_and(|oldest| !has_some(oldest)) {
        queue.pop_front();
    }
    if queue.len() > 2 * living + LOOKS {
        queue.retain(|flow| has_some(flow));
    }
    queue.push_back(flow);
}

#[cfg(test)]
#[path = "giving_way_tests.rs"]
mod tests;
