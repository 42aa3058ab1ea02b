//! What was learned of the sockets of peers that speak the PROXY protocol: for as long as they have flows, and for some time
//! where a flow was refused.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::udp_preface::PeerFraming;

/// How long a peer without flows is remembered. A peer that sends the first datagram's header only must not bring a client
/// past the deny list, or past a bound, by that client's second datagram.
const WITHOUT_FLOWS: Duration = Duration::from_secs(60);

/// Peers without flows that are remembered at most, the latest ones.
const MOST_WITHOUT_FLOWS: usize = 1024;

/// A peer's socket, and the address of ours that it hit.
type Ends = (SocketAddr, SocketAddr);

/// A peer's socket, as seen by one of ours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    pub(crate) framing: PeerFraming,
    /// Client and original destination of its last header.
    pub(crate) last: Option<(SocketAddr, SocketAddr)>,
    flows: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: RefCell<HashMap<Ends, Peer>>,
    /// Those that had no flow then; the oldest first.
    passing: RefCell<VecDeque<(Ends, Instant)>>,
}

impl Peers {
    /// What is known of one.
    pub(crate) fn get(&self, peer: SocketAddr, hit: SocketAddr) -> Peer {
        self.known.borrow().get(&(peer, hit)).copied().unwrap_or_default()
    }

    /// Remembers what a datagram has taught.
    pub(crate) fn learn(
        &self,
        (peer, hit): Ends,
        framing: PeerFraming,
        last: Option<(SocketAddr, SocketAddr)>,
        now: Instant,
    ) {
        let mut known = self.known.borrow_mut();
        let is_new = !known.contains_key(&(peer, hit));
        let entry = known.entry((peer, hit)).or_default();
        (entry.framing, entry.last) = (framing, last);
        if is_new {
            let mut passing = self.passing.borrow_mut();
            passing.push_back(((peer, hit), now));
            while passing.front().is_some_and(|(_, then)| {
                passing.len() > MOST_WITHOUT_FLOWS || now.saturating_duration_since(*then) >= WITHOUT_FLOWS
            }) {
                let Some((ends, _)) = passing.pop_front() else { break };
                if known.get(&ends).is_some_and(|peer| peer.flows == 0) {
                    known.remove(&ends);
                }
            }
        }
    }

    /// One of its flows has begun.
    pub(crate) fn begun(&self, peer: SocketAddr, hit: SocketAddr) {
        if let Some(known) = self.known.borrow_mut().get_mut(&(peer, hit)) {
            known.flows += 1;
        }
    }

    /// One of them has ended; with the last one goes what was learned.
    pub(crate) fn ended(&self, peer: SocketAddr, hit: SocketAddr) {
        let mut known = self.known.borrow_mut();
        if let Some(entry) = known.get_mut(&(peer, hit)) {
            entry.flows = entry.flows.saturating_sub(1);
            if entry.flows == 0 {
                known.remove(&(peer, hit));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    #[test]
    fn a_peer_is_known_while_it_has_flows_and_forgotten_with_the_last() {
        let (peers, peer, hit, now) = (Peers::default(), at("192.0.2.1:1"), at("192.0.2.9:443"), Instant::now());
        let last = Some((at("203.0.113.7:1"), hit));
        peers.learn((peer, hit), PeerFraming::First, last, now);
        peers.begun(peer, hit);
        peers.begun(peer, hit);
        peers.ended(peer, hit);
        assert_eq!((peers.get(peer, hit).framing, peers.get(peer, hit).last), (PeerFraming::First, last));
        peers.ended(peer, hit);
        assert_eq!(peers.get(peer, hit).framing, PeerFraming::Unheard);
    }

    #[test]
    fn peers_whose_flows_were_refused_are_known_for_some_time_and_in_bounds() {
        let (peers, hit, begin) = (Peers::default(), at("192.0.2.9:443"), Instant::now());
        let peer = |port| SocketAddr::new([192, 0, 2, 1].into(), port);
        peers.learn((peer(1), hit), PeerFraming::First, None, begin);
        assert_eq!(peers.get(peer(1), hit).framing, PeerFraming::First);
        peers.learn((peer(2), hit), PeerFraming::First, None, begin + WITHOUT_FLOWS);
        assert_eq!(peers.get(peer(1), hit).framing, PeerFraming::Unheard);
        peers.begun(peer(2), hit);
        for port in 3..3000 {
            peers.learn((peer(port), hit), PeerFraming::Every, None, begin + WITHOUT_FLOWS);
        }
        assert_eq!(peers.known.borrow().len(), 1 + MOST_WITHOUT_FLOWS, "and the one with a flow");
        assert_eq!(peers.get(peer(2), hit).framing, PeerFraming::First);
    }
}
