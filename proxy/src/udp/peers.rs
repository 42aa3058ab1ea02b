//! What was learned of the sockets of peers that speak the PROXY protocol: for as long as they have flows, and for long after
//! the last datagram. A peer that sends the header of the first datagram only sends none while its own session goes on, which
//! knows nothing of our flows: if we forgot the socket before, its client could write the next header.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::udp_preface::PeerFraming;

/// How long a peer's socket without flows is remembered after its last datagram. nginx ends a session after 10 minutes of
/// silence (`proxy_timeout`).
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Sockets without flows that are remembered at most, unless more flows are allowed: as many as a peer's address has ports, so
/// that a client who has its peer open one session after another pushes none of them out.
const MOST: usize = 65_536;

/// Datagrams of one socket so close to each other are one for the order of forgetting.
const GRAIN: Duration = Duration::from_secs(1);

/// A peer's socket, and the address of ours that it hit.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// A peer's socket, as seen by one of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) framing: PeerFraming,
    /// Client and original destination of its last header.
    pub(crate) last: Option<(SocketAddr, SocketAddr)>,
    flows: usize,
    /// Its last datagram without a flow, by [`GRAIN`], or the end of its last flow.
    heard: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Peers {
    known: RefCell<HashMap<Ends, Peer>>,
    /// Those without flows, the one that was silent for longest first. Invariant: by `heard` of the above.
    passing: RefCell<BTreeSet<(Instant, Ends)>>,
    most: Cell<usize>,
}

impl Default for Peers {
    fn default() -> Self {
        Self { known: RefCell::default(), passing: RefCell::default(), most: Cell::new(MOST) }
    }
}

impl Peers {
    /// What is known of one.
    pub(crate) fn get(&self, ends: Ends, now: Instant) -> (PeerFraming, Option<(SocketAddr, SocketAddr)>) {
        let known = self.known.borrow();
        let found = known.get(&ends).filter(|peer| peer.flows > 0 || !is_over(peer.heard, now));
        found.map_or((PeerFraming::Unheard, None), |peer| (peer.framing, peer.last))
    }

    /// Remembers at least as many as there may be flows.
    pub(crate) fn have_room_for(&self, flows: usize) {
        self.most.set(flows.max(MOST));
    }

    /// Remembers what a datagram has taught, and that it came.
    pub(crate) fn learn(&self, ends: Ends, framing: PeerFraming, last: Option<(SocketAddr, SocketAddr)>, now: Instant) {
        if framing == PeerFraming::Unheard {
            return;
        }
        let (mut known, mut passing) = (self.known.borrow_mut(), self.passing.borrow_mut());
        if let Some(entry) = known.get_mut(&ends) {
            (entry.framing, entry.last) = (framing, last);
            if entry.flows == 0 && now.saturating_duration_since(entry.heard) >= GRAIN {
                passing.remove(&(entry.heard, ends));
                passing.insert((now, ends));
                entry.heard = now;
            }
            return;
        }
        known.insert(ends, Peer { framing, last, flows: 0, heard: now });
        passing.insert((now, ends));
        while let Some((heard, oldest)) = passing.first().copied() {
            if passing.len() <= self.most.get() && !is_over(heard, now) {
                break;
            }
            passing.remove(&(heard, oldest));
            known.remove(&oldest);
        }
    }

    /// One of its flows has begun.
    pub(crate) fn begun(&self, ends: Ends) {
        if let Some(known) = self.known.borrow_mut().get_mut(&ends) {
            known.flows += 1;
            self.passing.borrow_mut().remove(&(known.heard, ends));
        }
    }

    /// One of them has ended.
    pub(crate) fn ended(&self, ends: Ends, now: Instant) {
        if let Some(known) = self.known.borrow_mut().get_mut(&ends) {
            known.flows = known.flows.saturating_sub(1);
            if known.flows == 0 {
                let mut passing = self.passing.borrow_mut();
                // It may be there: a flow that began before anything was learned is not counted.
                passing.remove(&(known.heard, ends));
                known.heard = now;
                passing.insert((now, ends));
            }
        }
    }

    /// Those without flows, with how long they have been silent.
    pub(crate) fn passing(&self, now: Instant) -> Vec<(Ends, Peer, Duration)> {
        let (known, passing) = (self.known.borrow(), self.passing.borrow());
        let living = passing.iter().filter(|(heard, _)| !is_over(*heard, now));
        living
            .filter_map(|(heard, ends)| Some((*ends, *known.get(ends)?, now.saturating_duration_since(*heard))))
            .collect()
    }
}

fn is_over(heard: Instant, now: Instant) -> bool {
    now.saturating_duration_since(heard) >= KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn ends(port: u16) -> Ends {
        (SocketAddr::new([192, 0, 2, 1].into(), port), at("192.0.2.9:443"))
    }

    const UNKNOWN: (PeerFraming, Option<Ends>) = (PeerFraming::Unheard, None);

    #[test]
    fn a_peer_is_known_while_it_has_flows_and_for_long_after_the_last() {
        let (peers, begin) = (Peers::default(), Instant::now());
        let last = Some((at("203.0.113.7:1"), at("192.0.2.9:443")));
        peers.learn(ends(1), PeerFraming::First, last, begin);
        peers.begun(ends(1));
        peers.begun(ends(1));
        let later = begin + 10 * KEPT;
        peers.ended(ends(1), later);
        // Others come and go.
        peers.learn(ends(2), PeerFraming::First, None, later + KEPT);
        assert_eq!(peers.get(ends(1), later + KEPT), (PeerFraming::First, last), "it has a flow");
        peers.ended(ends(1), later + KEPT);
        let over = later + 2 * KEPT;
        peers.learn(ends(3), PeerFraming::First, None, over - GRAIN);
        assert_eq!(peers.get(ends(1), over - GRAIN), (PeerFraming::First, last));
        assert_eq!(peers.get(ends(1), over), UNKNOWN);
        peers.learn(ends(4), PeerFraming::First, None, over);
        assert_eq!(peers.known.borrow().len(), 2, "and it takes no room");
    }

    #[test]
    fn time_counts_from_the_last_datagram_also_where_flows_were_refused() {
        let (peers, begin) = (Peers::default(), Instant::now());
        let later = begin + KEPT / 2;
        for port in [1, 2] {
            peers.learn(ends(port), PeerFraming::Bare, None, begin);
        }
        peers.learn(ends(1), PeerFraming::Bare, None, later);
        assert_eq!(peers.get(ends(1), begin + KEPT).0, PeerFraming::Bare);
        assert_eq!(peers.get(ends(2), begin + KEPT), UNKNOWN);
        assert_eq!(peers.get(ends(1), later + KEPT), UNKNOWN);
    }

    #[test]
    fn as_many_are_known_as_there_may_be_flows_and_no_more_those_that_were_heard_last() {
        let (peers, begin) = (Peers::default(), Instant::now());
        let most = MOST + 10;
        peers.have_room_for(most);
        let other = |number: usize| {
            let [.., high, low, port_high, port_low] = number.to_be_bytes();
            let port = u16::from_be_bytes([port_high, port_low]);
            (SocketAddr::new([10, high, low, 1].into(), port), ends(1).1)
        };
        for number in 0..most {
            peers.learn(other(number), PeerFraming::First, None, begin + Duration::from_micros(number as u64));
        }
        assert_eq!(peers.known.borrow().len(), most);
        peers.begun(other(1));
        peers.learn(other(0), PeerFraming::First, None, begin + 2 * GRAIN);
        for number in most..most + 5 {
            peers.learn(other(number), PeerFraming::Every, None, begin + 2 * GRAIN);
        }
        assert_eq!(
            (peers.known.borrow().len(), peers.passing.borrow().len()),
            (most + 1, most),
            "and the one with a flow"
        );
        for (number, is_known) in [(0, true), (1, true), (2, false), (5, false), (6, true)] {
            assert_eq!(peers.get(other(number), begin + 2 * GRAIN) != UNKNOWN, is_known, "{number}");
        }
    }

    #[test]
    fn a_flow_that_began_before_anything_was_learned_leaves_nothing_out_of_order() {
        let (peers, begin) = (Peers::default(), Instant::now());
        peers.begun(ends(1));
        peers.learn(ends(1), PeerFraming::Every, None, begin);
        peers.ended(ends(1), begin + GRAIN);
        assert_eq!((peers.known.borrow().len(), peers.passing.borrow().len()), (1, 1));
        let told: Vec<_> =
            peers.passing(begin + 2 * GRAIN).into_iter().map(|(ends, _, silent)| (ends, silent)).collect();
        assert_eq!(told, [(ends(1), GRAIN)]);
    }
}
