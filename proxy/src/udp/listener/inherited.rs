//! Flows that began in another process of this proxy, or that are given back to this one.

use std::rc::Rc;

use tokio::time::Instant;

use crate::config::model::{ListenerId, Transport};
use crate::generation::Epoch;
use crate::operation::CloseReason;
use crate::story::Story;
use crate::tcp::connection::allowances;
use crate::udp::flow::handover::{FlowState, Heritage, Open, Place, Resumed, Stage};
use crate::udp::flow::Flow;

use super::{Datagram, Listener};

impl Listener {
    /// All flows, for another process; they have ended here.
    pub(crate) fn hand_over(&self, number: usize) -> Vec<Heritage> {
        let place = Place { endpoint: self.door.endpoint, number };
        let now = Instant::now();
        let flows = self.table.all();
        let gone = flows
            .into_iter()
            .filter_map(|(key, flow)| flow.hand_over(place, key, self.table.peer(key.peer, key.hit), now));
        gone.collect()
    }

    /// Goes on with flows.
    pub(crate) fn inherit(&self, flows: Vec<Heritage>) {
        let epoch = self.worker.epoch();
        let Some(id) = epoch.generation.listener_at(self.door.endpoint) else { return };
        for Heritage { state, upstream } in flows {
            let (key, learned, last) = (state.key, state.framing, state.last_header);
            match (state.stage.clone(), upstream) {
                (Stage::Held(datagrams), _) => self.begin_anew(&epoch, id, &state, &datagrams),
                (Stage::Open(open), Some(upstream)) => {
                    // A flow that cannot go on has told its story.
                    if let Some(flow) = self.resumed(&epoch, id, state, *open, upstream) {
                        self.start(key, flow);
                    }
                }
                (Stage::Open(_), None) => {}
            }
            self.table.learn(key.peer, key.hit, learned, last);
        }
    }

    fn begin_anew(&self, epoch: &Rc<Epoch>, id: ListenerId, state: &FlowState, datagrams: &[Vec<u8>]) {
        for payload in datagrams {
            let datagram = Datagram {
                key: state.key,
                original_dst: state.original_dst,
                header_in: state.header_in,
                framing: state.framing,
                reply_prefix: state.reply_prefix.clone(),
                payload,
            };
            self.deliver(epoch, id, datagram, Instant::now());
        }
    }

    fn resumed(
        &self,
        epoch: &Rc<Epoch>,
        id: ListenerId,
        state: FlowState,
        open: Open,
        upstream: std::os::fd::OwnedFd,
    ) -> Option<Flow> {
        let key = state.key;
        let mut story = Story::begin(&self.worker, epoch, id, Transport::Udp, key.peer, key.hit);
        story.header_in = state.header_in;
        if key.client != key.peer {
            (story.client, story.original_dst) = (key.client, state.original_dst);
        }
        let permit = match self.admit(epoch, key.client) {
            Ok(permit) => permit,
            Err(limit) => {
                story.close = CloseReason::OverLimit(limit);
                return None;
            }
        };
        let Ok(reply) = self.reply(key.hit) else {
            story.close = CloseReason::TransparencyImpossible;
            return None;
        };
        let flow = Resumed {
            open,
            upstream,
            story,
            peer: key.peer,
            reply,
            reply_prefix: state.reply_prefix,
            allowances: allowances(epoch, id),
            permit,
            endpoints: self.worker.udp_endpoints.clone(),
        };
        Flow::resume(flow).ok()
    }
}
