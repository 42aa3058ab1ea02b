//! What the workers say to each other: datagrams for a flow that is another's, and that one has no place for a newcomer.
//!
//! All workers share one bound on flows, and each lets only flows of its own give way. So a worker that has none to let go, or
//! fewer than its part, asks the others, one after the other, until one lets a flow go; a next datagram finds its place. Of each
//! worker one such question is under way at a time, however many newcomers there are.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use tokio::sync::mpsc::{channel, Receiver, Sender};

/// Messages that wait for a worker that is busy; further ones are dropped.
const WAITING: usize = 256;

/// Datagrams for another worker's flow.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) flow: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) bytes: Vec<u8>,
    pub(crate) segment: usize,
}

/// A question for a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlaceWanted {
    /// Who asks.
    by: usize,
    /// Only who has more flows than these is to let one go.
    pub(crate) more_than: usize,
}

/// What a worker finds in its inbox.
#[derive(Debug)]
pub(crate) enum Passed {
    /// For a flow of its own.
    Datagrams(Handed),
    /// Whether it lets a flow go.
    Wanted(PlaceWanted),
}

/// All workers. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Colleagues(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inboxes: Vec<Sender<Passed>>,
    /// By worker: whether its question is under way.
    are_asking: Vec<AtomicBool>,
}

impl Colleagues {
    /// So many workers, with the inbox of each.
    pub(crate) fn new(workers: usize) -> (Self, Vec<Receiver<Passed>>) {
        let (inboxes, outlets) = (0..workers).map(|_| channel(WAITING)).unzip();
        let are_asking = (0..workers).map(|_| AtomicBool::new(false)).collect();
        (Self(Arc::new(Shared { inboxes, are_asking })), outlets)
    }

    /// How many they are; never none.
    pub(crate) fn count(&self) -> usize {
        self.0.inboxes.len().max(1)
    }

    /// Gives datagrams to another worker; `false`: they are lost.
    pub(crate) fn hand(&self, worker: usize, handed: Handed) -> bool {
        self.send(worker, Passed::Datagrams(handed)).is_none()
    }

    /// Asks the others for a place, unless a question of this worker is under way.
    pub(crate) fn ask(&self, by: usize, more_than: usize) {
        let is_new = self.0.are_asking.get(by).is_some_and(|is_asking| !is_asking.swap(true, Ordering::Relaxed));
        if is_new {
            self.pass_on(by, PlaceWanted { by, more_than });
        }
    }

    /// Asks those who come after one who has nobody to let go; whoever asked is the last.
    pub(crate) fn pass_on(&self, after: usize, wanted: PlaceWanted) {
        let (mut next, mut unsent) = (after, Some(wanted));
        while let Some(wanted) = unsent.take() {
            next = (next + 1) % self.count();
            if next == wanted.by {
                return self.answered(&wanted);
            }
            // One that is too busy to be asked is passed over.
            if let Some(Passed::Wanted(wanted)) = self.send(next, Passed::Wanted(wanted)) {
                unsent = Some(wanted);
            }
        }
    }

    /// A question is under way no more.
    pub(crate) fn answered(&self, wanted: &PlaceWanted) {
        if let Some(is_asking) = self.0.are_asking.get(wanted.by) {
            is_asking.store(false, Ordering::Relaxed);
        }
    }

    /// What could not be sent.
    fn send(&self, worker: usize, passed: Passed) -> Option<Passed> {
        let Some(inbox) = self.0.inboxes.get(worker) else { return Some(passed) };
        inbox.try_send(passed).err().map(tokio::sync::mpsc::error::TrySendError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(flow: u64) -> Handed {
        Handed { flow, peer: "203.0.113.7:1".parse().expect("an endpoint"), bytes: vec![1], segment: 1 }
    }

    fn asked(inbox: &mut Receiver<Passed>) -> Option<PlaceWanted> {
        match inbox.try_recv() {
            Ok(Passed::Wanted(wanted)) => Some(wanted),
            Ok(Passed::Datagrams(_)) | Err(_) => None,
        }
    }

    #[test]
    fn a_worker_that_takes_nothing_costs_no_more_than_its_inbox() {
        let (colleagues, mut inboxes) = Colleagues::new(2);
        let taken = (0..1000).filter(|flow| colleagues.hand(1, handed(*flow))).count();
        assert_eq!(taken, WAITING);
        let Ok(Passed::Datagrams(first)) = inboxes[1].try_recv() else { panic!("datagrams wait") };
        assert_eq!(first.flow, 0, "in order");
        assert!(!colleagues.hand(2, handed(0)), "there is no such worker");
    }

    #[test]
    fn a_place_is_asked_for_from_one_to_the_next_and_once_at_a_time() {
        let (colleagues, mut inboxes) = Colleagues::new(3);
        for _ in 0..2 {
            (0..9).for_each(|_| colleagues.ask(1, 7));
            let wanted = asked(&mut inboxes[2]).expect("the next one is asked first");
            assert_eq!(wanted.more_than, 7);
            colleagues.pass_on(2, wanted);
            let wanted = asked(&mut inboxes[0]).expect("then the other one");
            colleagues.ask(1, 7);
            colleagues.pass_on(0, wanted);
            assert!(inboxes.iter_mut().all(|inbox| asked(inbox).is_none()), "nobody is asked twice");
        }
        colleagues.ask(1, 7);
        colleagues.answered(&asked(&mut inboxes[2]).expect("asked"));
        colleagues.ask(1, 7);
        assert!(asked(&mut inboxes[2]).is_some(), "asked again");
    }

    #[test]
    fn who_is_busy_or_gone_is_passed_over_and_who_is_alone_asks_nobody() {
        let (colleagues, mut inboxes) = Colleagues::new(4);
        (0..WAITING).for_each(|_| assert!(colleagues.hand(1, handed(1))));
        drop(inboxes.remove(2));
        colleagues.ask(0, 0);
        assert!(asked(&mut inboxes[2]).is_some());
        let (alone, mut inboxes) = Colleagues::new(1);
        (0..3).for_each(|_| alone.ask(0, 0));
        assert!(asked(&mut inboxes[0]).is_none());
    }
}
