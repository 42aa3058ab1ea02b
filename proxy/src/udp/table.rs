//! The flows at one socket, and the sockets by which the answers of some of them leave.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use serde::{Deserialize, Serialize};

use crate::operation::CloseReason;

use super::flow::Flow;
use super::peers::Peers;
use super::reply::ReplySocket;

/// What makes a flow: who sent, what was hit, and for whom the sender spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FlowKey {
    pub(crate) peer: SocketAddr,
    pub(crate) hit: SocketAddr,
    /// Client and original destination, where a header of the peer names them.
    pub(crate) named: Option<(SocketAddr, SocketAddr)>,
}

impl FlowKey {
    pub(crate) fn client(&self) -> SocketAddr {
        self.named.map_or(self.peer, |(client, _)| client)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table {
    flows: RefCell<HashMap<FlowKey, Rc<Flow>>>,
    pub(crate) peers: Peers,
    replies: RefCell<HashMap<SocketAddr, Weak<ReplySocket>>>,
    /// How many of these may be there before those that nobody uses are taken out.
    sweep_at: Cell<usize>,
}

impl Table {
    pub(crate) fn find(&self, key: &FlowKey) -> Option<Rc<Flow>> {
        self.flows.borrow().get(key).map(Rc::clone)
    }

    pub(crate) fn insert(&self, key: FlowKey, flow: &Rc<Flow>) {
        self.flows.borrow_mut().insert(key, Rc::clone(flow));
        self.peers.begun(key.peer, key.hit);
    }

    /// Forgets a flow; another one that has its key by now stays.
    pub(crate) fn remove(&self, key: &FlowKey, flow: &Rc<Flow>) {
        let mut flows = self.flows.borrow_mut();
        if flows.get(key).is_some_and(|found| Rc::ptr_eq(found, flow)) {
            flows.remove(key);
        }
        self.peers.ended(key.peer, key.hit);
    }

    /// Gives a flow another key. A flow that has that key already is not found any more, and ends by its clock.
    pub(crate) fn rekey(&self, before: &FlowKey, key: FlowKey, flow: &Rc<Flow>) {
        let mut flows = self.flows.borrow_mut();
        flows.remove(before);
        flows.insert(key, Rc::clone(flow));
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
    pub(crate) fn reply_socket(&self, original_dst: SocketAddr) -> std::io::Result<Rc<ReplySocket>> {
        let mut replies = self.replies.borrow_mut();
        if let Some(socket) = replies.get(&original_dst).and_then(Weak::upgrade) {
            return Ok(socket);
        }
        if replies.len() >= self.sweep_at.get() {
            replies.retain(|_, socket| socket.strong_count() > 0);
            self.sweep_at.set(2 * replies.len() + 16);
        }
        let socket = Rc::new(ReplySocket::at(original_dst)?);
        replies.insert(original_dst, Rc::downgrade(&socket));
        Ok(socket)
    }
}
