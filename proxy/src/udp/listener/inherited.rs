//! Flows that began in another process of this proxy, or that are given back to this one.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::time::Instant;

use crate::config::model::Transport;
use crate::operation::{CloseReason, Limit};
use crate::story::Story;
use crate::tcp::connection::allowances;
use crate::udp::flow::handover::{FlowState, Gate, Heritage, Open, Stage};
use crate::udp::flow::{Beginning, Flow};
use crate::udp::sending::Joined;

use super::{Here, Listener, Newcomer};

impl Listener {
    /// All flows, for another process, and what is remembered of others; they have ended here.
    pub(crate) fn hand_over(&self, number: usize) -> Vec<Heritage> {
        let gate = Gate { endpoint: self.door.endpoint, number };
        let now = Instant::now();
        let peers = &self.table.peers;
        // Before flows end, or their sockets would be among these too.
        let passing = peers.passing(now).into_iter().map(|(ends, known, silent)| Heritage {
            state: FlowState::remembered(gate, ends, (known.framing, known.last), silent),
            upstream: None,
        });
        let flows = self.table.all().into_iter();
        let flows = flows.filter_map(|(key, flow)| flow.hand_over(gate, key, peers.get((key.peer, key.hit), now), now));
        passing.chain(flows).collect()
    }

    /// Goes on with flows.
    pub(crate) fn inherit(&self, flows: Vec<Heritage>) {
        let Some(here) = self.here(&mut None) else { return };
        self.table.peers.have_room_for(here.epoch.config().limits.udp_flows.get());
        let now = Instant::now();
        for Heritage { state, upstream } in flows {
            let heard = state.heard(now);
            self.table.peers.learn((state.key.peer, state.key.hit), state.framing, state.last_header, heard);
            match (&state.stage, upstream) {
                (Stage::Held(datagrams), _) => {
                    let newcomer = Newcomer {
                        key: state.key,
                        header_in: state.header_in,
                        reply_prefix: state.reply_prefix.as_deref(),
                        unique_id: state.unique_id.clone(),
                        is_let_in: true,
                    };
                    let mut joined = datagrams.iter().map(|datagram| Joined::one(datagram));
                    self.carry(&here, newcomer, &mut joined, now);
                }
                (Stage::Open(open), Some(upstream)) => {
                    // A flow that cannot go on has told its story.
                    if let Some(flow) = self.resume(&here, &state, open, upstream) {
                        self.table.insert(&flow);
                        flow.settle();
                    }
                }
                (Stage::Open(_), None) | (Stage::Remembered { .. }, _) => {}
            }
        }
    }

    fn resume(&self, here: &Here, state: &FlowState, open: &Open, upstream: OwnedFd) -> Option<Rc<Flow>> {
        let (Here { epoch, id }, key) = (here, state.key);
        let mut story = Story::begin(&self.worker, epoch, *id, Transport::Udp, key.peer, key.hit);
        story.header_in = state.header_in;
        if let Some((client, original_dst)) = key.named {
            (story.client, story.original_dst) = (client, original_dst);
        }
        open.tell(&mut story);
        let Some(permit) = self.admit(here, key.client()) else {
            story.close = CloseReason::OverLimit(Limit::Flows);
            return None;
        };
        let Ok(reply) = self.reply(key.hit) else {
            story.close = CloseReason::TransparencyImpossible;
            return None;
        };
        let outlet = open.outlet(upstream, &self.worker.udp_endpoints);
        let beginning = Beginning {
            story,
            key,
            table: Rc::downgrade(&self.table),
            reply,
            reply_prefix: state.reply_prefix.clone(),
            outlet,
            allowances: allowances(epoch, *id),
            permit,
        };
        Some(Flow::resume(open.clone(), beginning))
    }
}
