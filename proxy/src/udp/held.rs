//! The first datagrams of a flow, kept until it is known where they go: within bounds of the flow, and of its worker.

use std::cell::Cell;
use std::rc::Rc;

use crate::route::preface::MOST_DATAGRAMS;
use crate::route::DatagramPreface;

use super::sending::Joined;

/// Bytes that the flows of one worker may keep together. Where names are addresses and rules ask for nothing, a flow keeps
/// its datagrams for one turn of the worker; those that keep them for longer have sent half a hello.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What a datagram takes beside its bytes.
const OVERHEAD: usize = 64;

/// What the flows of one worker keep now.
#[derive(Debug, Default)]
pub(crate) struct Store(Cell<usize>);

impl Store {
    fn take(&self, bytes: usize) -> bool {
        let is_room = self.0.get() + bytes <= MOST_BYTES;
        if is_room {
            self.0.set(self.0.get() + bytes);
        }
        is_room
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Held {
    store: Rc<Store>,
    /// Those that tell what is spoken.
    pub(crate) preface: DatagramPreface,
    /// Those that follow them.
    more: Vec<Vec<u8>>,
    bytes: usize,
    most: usize,
    is_full: bool,
}

impl Held {
    /// With the datagram that began the flow, however large; `most` bounds those that follow. `None`: the worker keeps as
    /// much as it may.
    pub(crate) fn begin(store: &Rc<Store>, first: &[u8], most: usize) -> Option<Self> {
        let bytes = first.len() + OVERHEAD;
        store.take(bytes).then(|| Self {
            store: Rc::clone(store),
            preface: DatagramPreface::new(first.to_vec()),
            more: Vec::new(),
            bytes,
            most: most.max(bytes),
            is_full: false,
        })
    }

    /// A further datagram; whether it is kept.
    pub(crate) fn push(&mut self, datagram: &[u8]) -> bool {
        let bytes = datagram.len() + OVERHEAD;
        if self.bytes + bytes > self.most || !self.store.take(bytes) {
            self.is_full = true;
            return false;
        }
        self.bytes += bytes;
        if self.preface.datagrams().len() >= MOST_DATAGRAMS {
            self.more.push(datagram.to_vec());
        } else {
            self.preface.push(datagram.to_vec());
        }
        true
    }

    /// Whether nothing more will come to decide by.
    pub(crate) fn is_last_word(&self) -> bool {
        self.is_full || self.preface.datagrams().len() >= MOST_DATAGRAMS
    }

    /// Them all, in order.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = Joined<'_>> {
        self.preface.datagrams().iter().chain(&self.more).map(|datagram| Joined::one(datagram))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.0.set(self.store.0.get().saturating_sub(self.bytes));
    }
}

/// What has been sent, kept for another try. In a cell, for most flows have none and all have its place.
#[derive(Default)]
pub(crate) struct SentFirst(Cell<Option<Box<Held>>>);

impl SentFirst {
    pub(crate) fn keep(&self, held: Box<Held>) {
        self.0.set(Some(held));
    }

    pub(crate) fn take(&self) -> Option<Box<Held>> {
        self.0.take()
    }

    pub(crate) fn is_some(&self) -> bool {
        let kept = self.0.take();
        let is_some = kept.is_some();
        self.0.set(kept);
        is_some
    }
}

impl std::fmt::Debug for SentFirst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SentFirst").field(&self.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_keeps_its_first_datagram_and_of_the_others_what_its_bound_allows() {
        let store = Rc::<Store>::default();
        let mut held = Held::begin(&store, &[1; 3000], 1024).expect("room");
        assert!(!held.push(b""), "the first one is larger than the bound: there is no room for another");
        assert!(held.is_last_word());
        let mut held = Held::begin(&store, b"0", 16 * 1024).expect("room");
        let kept = (1..40u8).filter(|number| held.push(&[*number; 1200])).max().expect("some are");
        assert_eq!(usize::from(kept), (16 * 1024 - 65) / 1264);
        let whole: Vec<_> = held.datagrams().map(|joined| joined.bytes[0]).collect();
        assert_eq!(whole, std::iter::once(b'0').chain(1..=kept).collect::<Vec<_>>(), "in order");
        assert_eq!(held.preface.datagrams().len(), MOST_DATAGRAMS);
    }

    #[test]
    fn a_decision_waits_for_as_many_datagrams_as_it_looks_at_and_no_more() {
        let mut held = Held::begin(&Rc::default(), b"0", 16 * 1024).expect("room");
        for number in 1..MOST_DATAGRAMS {
            assert!(!held.is_last_word(), "{number}");
            assert!(held.push(b"x"));
        }
        assert!(held.is_last_word());
    }

    #[test]
    fn all_flows_of_a_worker_keep_no_more_than_their_bound_and_give_it_back() {
        let store = Rc::<Store>::default();
        let flows: Vec<_> = std::iter::from_fn(|| Held::begin(&store, &[0; 60_000], 1024)).collect();
        assert_eq!(flows.len(), MOST_BYTES / 60_064);
        assert!(store.0.get() <= MOST_BYTES);
        let mut last = Held::begin(&store, b"small", 1_000_000).expect("a little room is left");
        assert!(!last.push(&[0; 60_000]));
        drop((flows, last));
        assert_eq!(store.0.get(), 0);
    }
}
