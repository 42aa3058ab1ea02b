//! The flows at one socket, and the sockets by which the answers of some of them leave.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

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

/// A flow, found by its key, which stands in the flow and nowhere else: a table of many flows is mostly keys otherwise.
/// Invariant: while it is in a table its key stays; [`Table::rekey`] takes it out for a change.
#[derive(Debug)]
struct Keyed(Rc<Flow>);

/// What has a key; the way by which a set of flows can be asked with a key alone.
trait HasKey {
    fn key(&self) -> FlowKey;
}

impl HasKey for FlowKey {
    fn key(&self) -> FlowKey {
        *self
    }
}

impl HasKey for Keyed {
    fn key(&self) -> FlowKey {
        self.0.key()
    }
}

impl<'a> Borrow<dyn HasKey + 'a> for Keyed {
    fn borrow(&self) -> &(dyn HasKey + 'a) {
        self
    }
}

impl Hash for dyn HasKey + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for dyn HasKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn HasKey + '_ {}

// The same as above, as `Borrow` demands.
impl Hash for Keyed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Keyed {}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table {
    flows: RefCell<HashSet<Keyed>>,
    pub(crate) peers: Peers,
    replies: RefCell<HashMap<SocketAddr, Weak<ReplySocket>>>,
    /// How many of these may be there before those that nobody uses are taken out.
    sweep_at: Cell<usize>,
}

impl Table {
    pub(crate) fn find(&self, key: &FlowKey) -> Option<Rc<Flow>> {
        self.flows.borrow().get(key as &dyn HasKey).map(|found| Rc::clone(&found.0))
    }

    pub(crate) fn insert(&self, flow: &Rc<Flow>) {
        let key = flow.key();
        self.flows.borrow_mut().replace(Keyed(Rc::clone(flow)));
        self.peers.begun((key.peer, key.hit));
    }

    /// Forgets a flow; another one that has its key by now stays.
    pub(crate) fn remove(&self, flow: &Rc<Flow>) {
        self.take_out(flow);
        let key = flow.key();
        self.peers.ended((key.peer, key.hit), Instant::now());
    }

    /// Gives a flow another key, by `change`. A flow that has that key already is not found any more, and ends by its clock.
    pub(crate) fn rekey(&self, flow: &Rc<Flow>, change: impl FnOnce()) {
        let before = flow.key();
        self.take_out(flow);
        change();
        self.peers.ended((before.peer, before.hit), Instant::now());
        let key = flow.key();
        self.peers.begun((key.peer, key.hit));
        self.flows.borrow_mut().replace(Keyed(Rc::clone(flow)));
    }

    fn take_out(&self, flow: &Rc<Flow>) {
        let (mut flows, key) = (self.flows.borrow_mut(), flow.key());
        let key: &dyn HasKey = &key;
        if flows.get(key).is_some_and(|found| Rc::ptr_eq(&found.0, flow)) {
            flows.remove(key);
        }
    }

    /// All flows.
    pub(crate) fn all(&self) -> Vec<(FlowKey, Rc<Flow>)> {
        self.flows.borrow().iter().map(|found| (found.0.key(), Rc::clone(&found.0))).collect()
    }

    /// Ends all flows.
    pub(crate) fn close_all(&self, reason: CloseReason) {
        for flow in &*self.flows.borrow() {
            flow.0.close(reason);
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
