//! Which flow gives way when there are too many, or too many bytes wait: one that nobody has answered, or else one whose client was answered but has
//! said nothing since (its address may be made up). Flows whose client has heard an answer stay.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use serde::{Deserialize, Serialize};

/// Flows that are looked at for one that may give way.
const LOOKS: usize = 64;

/// How far two ends have got with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// The backend has said nothing.
    Unanswered,
    /// It has, and the client has not spoken since.
    Answered,
    /// The client spoke after an answer, so it is where it claims to be, or at least lives.
    Confirmed,
}

/// A flow, as seen from here.
pub(crate) trait GivesWay {
    /// How far it has got.
    fn standing(&self) -> Standing;
    /// Whether it keeps its first datagrams until more is known.
    fn is_holding(&self) -> bool;
    /// Makes room at once.
    fn give_way(&self);
}

/// The flows of a worker that may give way, the oldest first.
#[derive(Debug)]
pub(crate) struct Queue<F> {
    unanswered: RefCell<VecDeque<Weak<F>>>,
    answered: RefCell<VecDeque<Weak<F>>>,
    holding: RefCell<VecDeque<Weak<F>>>,
}

impl<F> Default for Queue<F> {
    fn default() -> Self {
        Self { unanswered: RefCell::default(), answered: RefCell::default(), holding: RefCell::default() }
    }
}

impl<F: GivesWay> Queue<F> {
    /// A new flow; `living` of them are there.
    pub(crate) fn push(&self, flow: &Rc<F>, living: usize) {
        let mut unanswered = self.unanswered.borrow_mut();
        unanswered.push_back(Rc::downgrade(flow));
        let mut answered = self.answered.borrow_mut();
        // What has ended, or can give way no more, is taken out now and then.
        if unanswered.len() + answered.len() > 2 * living + LOOKS {
            for queue in [&mut *unanswered, &mut *answered] {
                queue.retain(|flow| flow.upgrade().is_some_and(|flow| flow.standing() != Standing::Confirmed));
            }
        }
    }

    /// As [`Self::push`], for a flow that keeps datagrams.
    pub(crate) fn push_holding(&self, flow: &Rc<F>, living: usize) {
        let mut holding = self.holding.borrow_mut();
        let is_holding = |flow: &Weak<F>| flow.upgrade().is_some_and(|flow| flow.is_holding());
        while holding.front().is_some_and(|oldest| !is_holding(oldest)) {
            holding.pop_front();
        }
        if holding.len() > 2 * living + LOOKS {
            holding.retain(is_holding);
        }
        holding.push_back(Rc::downgrade(flow));
    }

    /// Lets the one give way that has kept its datagrams for longest; whether there was any.
    pub(crate) fn make_memory(&self) -> bool {
        let mut holding = self.holding.borrow_mut();
        while let Some(oldest) = holding.pop_front() {
            if let Some(flow) = oldest.upgrade().filter(|flow| flow.is_holding()) {
                flow.give_way();
                return true;
            }
        }
        false
    }

    /// Lets one give way; whether there was any.
    pub(crate) fn make_room(&self) -> bool {
        let (mut unanswered, mut answered) = (self.unanswered.borrow_mut(), self.answered.borrow_mut());
        for _ in 0..LOOKS {
            let Some(oldest) = unanswered.pop_front() else { break };
            let Some(flow) = oldest.upgrade() else { continue };
            match flow.standing() {
                Standing::Unanswered => {
                    flow.give_way();
                    return true;
                }
                Standing::Answered => answered.push_back(oldest),
                Standing::Confirmed => {}
            }
        }
        for _ in 0..LOOKS {
            let Some(flow) = answered.pop_front() else { break };
            if let Some(flow) = flow.upgrade().filter(|flow| flow.standing() != Standing::Confirmed) {
                flow.give_way();
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Sample {
        standing: Cell<Standing>,
        gave_way: Cell<bool>,
    }

    impl GivesWay for Sample {
        fn standing(&self) -> Standing {
            self.standing.get()
        }

        fn is_holding(&self) -> bool {
            self.standing.get() == Standing::Unanswered && !self.gave_way.get()
        }

        fn give_way(&self) {
            self.gave_way.set(true);
        }
    }

    fn samples(queue: &Queue<Sample>, standings: &[Standing]) -> Vec<Rc<Sample>> {
        let samples: Vec<_> = standings
            .iter()
            .map(|standing| Rc::new(Sample { standing: Cell::new(*standing), gave_way: Cell::default() }))
            .collect();
        samples.iter().for_each(|sample| queue.push(sample, standings.len()));
        samples
    }

    fn gave_way(samples: &[Rc<Sample>]) -> Vec<usize> {
        (0..samples.len()).filter(|place| samples[*place].gave_way.get()).collect()
    }

    #[test]
    fn the_oldest_that_nobody_answered_goes_first_then_the_oldest_that_never_came_back_and_no_other() {
        use Standing::{Answered, Confirmed, Unanswered};
        let queue = Queue::default();
        let samples = samples(&queue, &[Confirmed, Answered, Unanswered, Answered, Confirmed, Unanswered]);
        for expected in [vec![2], vec![2, 5], vec![1, 2, 5], vec![1, 2, 3, 5]] {
            assert!(queue.make_room());
            assert_eq!(gave_way(&samples), expected);
        }
        assert!(!queue.make_room());
    }

    #[test]
    fn those_that_have_ended_or_been_confirmed_since_are_passed_over() {
        let queue = Queue::default();
        let mut samples = samples(&queue, &[Standing::Unanswered; 4]);
        samples.remove(0);
        samples[0].standing.set(Standing::Confirmed);
        samples[1].standing.set(Standing::Answered);
        assert!(queue.make_room());
        assert_eq!(gave_way(&samples), [2]);
        samples[1].standing.set(Standing::Confirmed);
        assert!(!queue.make_room());
    }

    #[test]
    fn memory_is_made_by_the_oldest_that_keep_any() {
        let queue = Queue::default();
        let samples = samples(&queue, &[Standing::Unanswered; 5]);
        samples.iter().for_each(|sample| queue.push_holding(sample, 5));
        samples[0].standing.set(Standing::Answered);
        samples[2].standing.set(Standing::Confirmed);
        for expected in [vec![1], vec![1, 3], vec![1, 3, 4]] {
            assert!(queue.make_memory());
            assert_eq!(gave_way(&samples), expected);
        }
        assert!(!queue.make_memory());
    }

    #[test]
    fn a_queue_stays_as_long_as_there_are_flows() {
        let queue = Queue::<Sample>::default();
        for _ in 0..10_000 {
            for sample in samples(&queue, &[Standing::Unanswered]) {
                queue.push_holding(&sample, 1);
            }
        }
        assert!(queue.unanswered.borrow().len() <= 2 + LOOKS);
        assert!(queue.holding.borrow().len() <= 2 + LOOKS);
    }
}
