//! The flows at one socket, and what was learned of the peers that bring them.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use serde::{Deserialize, Serialize};

use crate::operation::CloseReason;
use crate::wire::udp_preface::PeerFraming;

use super::flow::Flow;

/// Flows that are looked at in search of one that may give way to a newer one.
const EVICTION_LOOKS: usize = 64;

/// What makes a flow: who sent, what was hit, and for whom the sender spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FlowKey {
    pub(crate) peer: SocketAddr,
    pub(crate) hit: SocketAddr,
    pub(crate) client: SocketAddr,
}

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
pub(crate) struct Table {
    flows: RefCell<HashMap<FlowKey, Rc<Flow>>>,
    /// All flows, the oldest first; those that have ended are skipped.
    by_age: RefCell<VecDeque<(FlowKey, Weak<Flow>)>>,
    peers: RefCell<HashMap<(SocketAddr, SocketAddr), Peer>>,
    replies: RefCell<HashMap<SocketAddr, Weak<OwnedFd>>>,
}

impl Table {
    pub(crate) fn find(&self, key: &FlowKey) -> Option<Rc<Flow>> {
        self.flows.borrow().get(key).map(Rc::clone)
    }

    pub(crate) fn insert(&self, key: FlowKey, flow: &Rc<Flow>) {
        self.flows.borrow_mut().insert(key, Rc::clone(flow));
        self.by_age.borrow_mut().push_back((key, Rc::downgrade(flow)));
        self.peers.borrow_mut().entry((key.peer, key.hit)).or_default().flows += 1;
        self.trim();
    }

    /// Forgets a flow, and with the last one of a peer's socket what was learned of it.
    pub(crate) fn remove(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
        let mut peers = self.peers.borrow_mut();
        if let Some(peer) = peers.get_mut(&(key.peer, key.hit)) {
            peer.flows = peer.flows.saturating_sub(1);
            if peer.flows == 0 {
                peers.remove(&(key.peer, key.hit));
            }
        }
    }

    /// What is known of a peer's socket.
    pub(crate) fn peer(&self, peer: SocketAddr, hit: SocketAddr) -> Peer {
        self.peers.borrow().get(&(peer, hit)).copied().unwrap_or_default()
    }

    /// Remembers it, for as long as it has flows.
    pub(crate) fn learn(
        &self,
        peer: SocketAddr,
        hit: SocketAddr,
        framing: PeerFraming,
        last: Option<(SocketAddr, SocketAddr)>,
    ) {
        if let Some(known) = self.peers.borrow_mut().get_mut(&(peer, hit)) {
            known.framing = framing;
            known.last = last;
        }
    }

    /// Lets the oldest of the flows that nobody has answered give way; whether there was one.
    pub(crate) fn evict(&self) -> bool {
        let mut by_age = self.by_age.borrow_mut();
        for _ in 0..EVICTION_LOOKS {
            let Some((key, flow)) = by_age.pop_front() else { return false };
            match flow.upgrade() {
                Some(flow) if flow.is_answered() => by_age.push_back((key, Rc::downgrade(&flow))),
                Some(flow) => {
                    flow.close(CloseReason::Evicted);
                    return true;
                }
                None => {}
            }
        }
        false
    }

    /// All flows.
    pub(crate) fn all(&self) -> Vec<(FlowKey, Rc<Flow>)> {
        self.flows.borrow().iter().map(|(key, flow)| (*key, Rc::clone(flow))).collect()
    }

    /// Ends all flows.
    pub(crate) fn close_all(&self, reason: CloseReason) {
        for flow in self.flows.borrow().values() {
            flow.close(reason);
        }
    }

    /// The socket by which answers from an original destination leave.
    pub(crate) fn reply_socket(&self, original_dst: SocketAddr) -> std::io::Result<Rc<OwnedFd>> {
        let mut replies = self.replies.borrow_mut();
        if let Some(socket) = replies.get(&original_dst).and_then(Weak::upgrade) {
            return Ok(socket);
        }
        replies.retain(|_, socket| socket.strong_count() > 0);
        let socket = Rc::new(super::reply::socket_at(original_dst)?);
        replies.insert(original_dst, Rc::downgrade(&socket));
        Ok(socket)
    }

    /// Keeps the list by age as long as the table, give or take those that have just ended.
    fn trim(&self) {
        let (mut by_age, live) = (self.by_age.borrow_mut(), self.flows.borrow().len());
        if by_age.len() > 2 * live + EVICTION_LOOKS {
            by_age.retain(|(_, flow)| flow.strong_count() > 0);
        }
    }
}
