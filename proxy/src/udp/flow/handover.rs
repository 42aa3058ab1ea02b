//! A flow on its way to another process of this proxy, or back from there: what is known of it, and its upstream socket.
//! Its datagrams wait in the kernel meanwhile.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::time::Instant;

use crate::config::model::{BackendId, Config, Protocol, RuleId};
use crate::listening::Endpoint;
use crate::operation::outcomes::{HeaderIn, SourceUsed};
use crate::operation::unique_id::UniqueId;
use crate::operation::CloseReason;
use crate::sniff::Found;
use crate::story::{Story, Taken};
use crate::transparent::port_sharing::{claim_shared, is_shared};
use crate::transparent::socket::canonical;
use crate::transparent::udp_endpoints::{Claim, UdpEndpoints};
use crate::udp::giving_way::Standing;
use crate::udp::peers::Ends;
use crate::udp::rebinding::Place;
use crate::udp::table::FlowKey;
use crate::udp::upstream::{Header, Upstream};
use crate::wire::udp_preface::PeerFraming;

use super::{Beginning, Flow, Followed, Outlet};

/// A flow without a process.
#[derive(Debug)]
pub(crate) struct Heritage {
    pub(crate) state: FlowState,
    /// Towards its backend, unless none was chosen yet.
    pub(crate) upstream: Option<OwnedFd>,
}

/// A socket at which clients arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Gate {
    pub(crate) endpoint: Endpoint,
    /// Which of its sockets; the kernel brings all datagrams of a client's endpoint to the same one.
    pub(crate) number: usize,
}

/// What is known of a flow, or of a peer's socket that has none now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowState {
    pub(crate) gate: Gate,
    pub(crate) key: FlowKey,
    pub(crate) framing: PeerFraming,
    pub(crate) last_header: Option<(SocketAddr, SocketAddr)>,
    pub(crate) reply_prefix: Option<Box<[u8]>>,
    pub(crate) header_in: HeaderIn,
    /// Of a flow that begins anew: one that goes on has it in [`Open`]. Not of older versions, which do not read it either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unique_id: Option<UniqueId>,
    pub(crate) stage: Stage,
}

/// How far a flow is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It is not known yet where to: it begins anew, with these.
    Held(Vec<Vec<u8>>),
    /// It goes to a backend.
    Open(Box<Open>),
    /// There is none any more; the peer's socket has been silent for so long.
    Remembered { silent_us: u64 },
}

/// A flow that has a backend. Times are ages in microseconds: what the two processes have in common is how fast time goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    unique_id: UniqueId,
    protocol: Option<Protocol>,
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
    ech: bool,
    is_quic: bool,
    standing: Standing,
    /// By which other workers find it.
    places: Vec<Place>,
    rule: Option<String>,
    backend: Option<String>,
    target: SocketAddr,
    source: SourceUsed,
    header: Header,
    bytes_in: u64,
    bytes_out: u64,
    accepted_us: u64,
    last_up_us: u64,
    last_down_us: u64,
    preface_us: Option<u64>,
    connect_us: Option<u64>,
}

impl FlowState {
    /// What was learned of a peer's socket that has no flow.
    pub(crate) fn remembered(
        gate: Gate,
        (peer, hit): Ends,
        (framing, last_header): (PeerFraming, Option<Ends>),
        silent: Duration,
    ) -> Self {
        Self {
            gate,
            key: FlowKey { peer, hit, named: None },
            framing,
            last_header,
            reply_prefix: None,
            header_in: HeaderIn::Remembered,
            unique_id: None,
            stage: Stage::Remembered { silent_us: micros(silent) },
        }
    }

    /// When the peer's socket was heard last, as far as that says when it may be forgotten.
    pub(crate) fn heard(&self, now: Instant) -> Instant {
        match self.stage {
            Stage::Remembered { silent_us } => before(now, silent_us),
            Stage::Held(_) | Stage::Open(_) => now,
        }
    }

    /// Whether a socket goes with it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether datagrams go with it.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Held(_))
    }
}

impl Flow {
    /// Ends the flow here, for it to go on elsewhere. None if it is about to end anyway.
    pub(crate) fn hand_over(
        &self,
        gate: Gate,
        key: FlowKey,
        (framing, last_header): (PeerFraming, Option<Ends>),
        now: Instant,
    ) -> Option<Heritage> {
        if self.is_ended.get() {
            return None;
        }
        let mut outlet = self.outlet.borrow_mut();
        let (stage, upstream) = match &mut *outlet {
            // It stays open until the flow has ended: other workers may have datagrams for it on their way.
            Outlet::Open(upstream) => {
                let (socket, header) = match upstream.hand_over() {
                    Ok(copy) => copy,
                    Err(error) => {
                        // No descriptor is left for it: its client's next datagram begins another flow.
                        self.close(CloseReason::IoError(error.kind()));
                        return None;
                    }
                };
                (Stage::Open(Box::new(self.as_open(header, now)?)), Some(socket))
            }
            Outlet::Held(held) => {
                let datagrams = held.datagrams().map(|datagram| datagram.bytes.to_vec()).collect();
                *outlet = Outlet::Closed;
                (Stage::Held(datagrams), None)
            }
            Outlet::Closed => return None,
        };
        drop(outlet);
        let state = FlowState {
            gate,
            key,
            framing,
            last_header,
            reply_prefix: self.reply_prefix.clone().map(|prefix| prefix as Box<[u8]>),
            header_in: self.story.borrow().header_in,
            unique_id: matches!(stage, Stage::Held(_)).then(|| self.story.borrow().unique_id.clone()),
            stage,
        };
        // It may come back before it has ended here.
        self.leave();
        self.close(CloseReason::HandedOver);
        Some(Heritage { state, upstream })
    }

    fn as_open(&self, header: Header, now: Instant) -> Option<Open> {
        let story = self.story.borrow();
        let config = story.epoch.config();
        let found = story.spoken.as_deref().map(|(_, found)| found);
        let Taken { at: target, source, .. } = story.target?;
        let age = |moment: Instant| micros(now.saturating_duration_since(moment));
        Some(Open {
            unique_id: story.unique_id.clone(),
            protocol: story.spoken.as_deref().map(|(protocol, _)| *protocol),
            server_name: found.and_then(|found| found.name.clone()),
            alpn: found.map(|found| found.alpn.clone()).unwrap_or_default(),
            ech: found.is_some_and(|found| found.ech),
            is_quic: self.is_quic.get(),
            standing: self.standing.get(),
            places: self.followed.borrow().as_ref().map(|followed| followed.places.clone()).unwrap_or_default(),
            rule: story.rule.and_then(|id| config.rules.get(id.0)).map(|rule| rule.name.clone()),
            backend: story.backend.and_then(|id| config.backends.get(id.0)).map(|backend| backend.name.clone()),
            target,
            source,
            header,
            bytes_in: story.bytes_in,
            bytes_out: story.bytes_out,
            accepted_us: age(story.accepted),
            last_up_us: age(self.last_up.get()),
            last_down_us: age(self.last_down.get()),
            preface_us: story.preface.map(micros),
            connect_us: story.connect.map(micros),
        })
    }

    /// A flow that has a backend, as it was.
    pub(crate) fn resume(open: Open, beginning: Beginning) -> Rc<Self> {
        let now = Instant::now();
        let Open { is_quic, standing, places, last_up_us, last_down_us, .. } = open;
        let flow = Self::begin(beginning);
        if let Outlet::Open(upstream) = &mut *flow.outlet.borrow_mut() {
            if let Err(error) = upstream.watch(&flow.worker.udp.tended, flow.place.get()) {
                flow.close(CloseReason::IoError(error.kind()));
            }
        }
        flow.is_quic.set(is_quic);
        flow.last_up.set(before(now, last_up_us));
        match standing {
            Standing::Unanswered | Standing::Answered => flow.standing.set(standing),
            Standing::Confirmed => flow.confirm(),
        }
        flow.last_down.set(before(now, last_down_us));
        if !places.is_empty() {
            let station = &flow.worker.udp;
            let number = station.number(&flow.me);
            let is_learned = |place: &Place| station.homes.learn(*place, station.home(number));
            let places = places.into_iter().filter(is_learned).collect();
            *flow.followed.borrow_mut() = Some(Box::new(Followed { number, places }));
        }
        flow
    }
}

impl Open {
    /// The way to its backend. None: another flow has begun by the same endpoints meanwhile, and would be given its answers.
    pub(crate) fn outlet(&self, socket: OwnedFd, endpoints: &UdpEndpoints) -> Option<Outlet> {
        let claim = if self.needs_claim(socket.as_fd()) { Some(self.claim(socket.as_fd(), endpoints)?) } else { None };
        Some(Outlet::Open(Upstream::resume(socket, self.header.clone(), !self.is_quic, self.source, claim)))
    }

    /// Where the kernel would let another socket have the same two ends.
    fn needs_claim(&self, socket: BorrowedFd<'_>) -> bool {
        match self.source {
            SourceUsed::ClientEndpoint => true,
            SourceUsed::ClientAddress => false,
            SourceUsed::Own => is_shared(socket),
        }
    }

    /// A client's endpoint, or a shared port, towards a backend is this flow's in this process too.
    fn claim(&self, socket: BorrowedFd<'_>, endpoints: &UdpEndpoints) -> Option<Claim> {
        if self.source == SourceUsed::Own {
            return claim_shared(socket, endpoints);
        }
        let from = SockRef::from(&socket).local_addr().ok()?.as_socket()?;
        endpoints.claim(canonical(from), canonical(self.target))
    }

    /// Puts into a story what happened before. Names that this configuration has not are not told.
    pub(crate) fn tell(&self, story: &mut Story) {
        let now = Instant::now();
        let config = story.epoch.config();
        let rule = self.rule.as_ref().and_then(|name| rule_named(config, name));
        let backend = self.backend.as_ref().and_then(|name| backend_named(config, name));
        let connect = self.connect_us.map(Duration::from_micros);
        if let Some(backend) = backend {
            story.epoch.counters.backend_connected(backend, connect.unwrap_or_default());
        }
        let (name, alpn, ech) = (self.server_name.clone(), self.alpn.clone(), self.ech);
        let found = Found { name, alpn, ech, ..Found::default() }; // of post-quantum keys only a counter tells, once
        story.unique_id = self.unique_id.clone();
        story.spoken = self.protocol.map(|protocol| Box::new((protocol, found)));
        (story.rule, story.backend) = (rule, backend);
        story.target = Some(Taken::new(self.target, self.source));
        story.header_out = self.header.form;
        (story.bytes_in, story.bytes_out) = (self.bytes_in, self.bytes_out);
        story.accepted = before(now, self.accepted_us);
        (story.preface, story.connect) = (self.preface_us.map(Duration::from_micros), connect);
    }
}

fn rule_named(config: &Config, name: &str) -> Option<RuleId> {
    config.rules.iter().position(|rule| rule.name == name).map(RuleId)
}

fn backend_named(config: &Config, name: &str) -> Option<BackendId> {
    config.backends.iter().position(|backend| backend.name == name).map(BackendId)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// So long before now; now, where this host has not been up for so long.
fn before(now: Instant, age: u64) -> Instant {
    now.checked_sub(Duration::from_micros(age)).unwrap_or(now)
}

#[cfg(test)]
impl FlowState {
    /// One with something in each field.
    pub(crate) fn sample(is_open: bool) -> Self {
        use crate::config::model::{Arrival, SendProxyUdp, Transport};
        let at = |text: &str| -> SocketAddr { text.parse().expect("an endpoint") };
        let (peer, hit, client) = (at("192.0.2.9:4000"), at("[2001:db8::1]:443"), at("203.0.113.7:5"));
        let open = Open {
            unique_id: UniqueId::Own([7; 16]),
            protocol: Some(Protocol::Quic),
            server_name: Some("nas.example.net".to_owned()),
            alpn: vec![b"h3".to_vec(), vec![0xff]],
            ech: true,
            is_quic: true,
            standing: Standing::Confirmed,
            places: vec![Place::Endpoint { hit, peer }],
            rule: Some("rule 1".to_owned()),
            backend: Some("home".to_owned()),
            target: at("192.0.2.2:443"),
            source: SourceUsed::ClientEndpoint,
            header: Header::of(Some(SendProxyUdp::First), client, hit, Some(&[7; 16]), None),
            bytes_in: u64::MAX,
            bytes_out: 2,
            accepted_us: 3,
            last_up_us: 2,
            last_down_us: 1,
            preface_us: None,
            connect_us: Some(4),
        };
        Self {
            gate: Gate { endpoint: Endpoint::new(Transport::Udp, hit, Arrival::Direct), number: 1 },
            key: FlowKey { peer, hit, named: Some((client, hit)) },
            framing: PeerFraming::First,
            last_header: Some((client, hit)),
            reply_prefix: Some([1, 2].into()),
            header_in: HeaderIn::V2,
            unique_id: (!is_open).then(|| UniqueId::Given([1; 128].into())),
            stage: if is_open { Stage::Open(Box::new(open)) } else { Stage::Held(vec![vec![0; 9], Vec::new()]) },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A flow to a backend on this host, and from where it comes.
    fn open(source: SourceUsed, is_shared: bool) -> (Open, OwnedFd, SocketAddr) {
        let backend = UdpSocket::bind("127.0.0.1:0").expect("a backend");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (from, target) = (socket.local_addr().expect("its own end"), backend.local_addr().expect("an end"));
        socket.connect(target).expect("connected");
        SockRef::from(&socket).set_reuse_port(is_shared).expect("an option");
        let Stage::Open(open) = FlowState::sample(true).stage else { panic!("it is open") };
        (Open { source, target, ..*open }, socket.into(), from)
    }

    #[test]
    fn a_flow_whose_endpoints_another_one_has_taken_meanwhile_does_not_go_on() {
        let cases = [
            (SourceUsed::ClientEndpoint, false, false),
            (SourceUsed::Own, true, false),
            (SourceUsed::Own, false, true),
            (SourceUsed::ClientAddress, false, true),
        ];
        for (source, is_shared, goes_on) in cases {
            let endpoints = UdpEndpoints::default();
            let (open, socket, mut from) = open(source, is_shared);
            if source == SourceUsed::Own {
                from.set_ip([0, 0, 0, 0].into());
            }
            let copy = || socket.try_clone().expect("a copy");
            let taken = endpoints.claim(from, open.target);
            assert_eq!(open.outlet(copy(), &endpoints).is_some(), goes_on, "{source:?} {is_shared}");
            drop(taken);
            let Some(Outlet::Open(mut upstream)) = open.outlet(copy(), &endpoints) else { panic!("it is free again") };
            let is_claimed = endpoints.claim(from, open.target).is_none();
            assert_eq!(is_claimed, !goes_on, "{source:?} {is_shared}");
            let (given, _) = upstream.hand_over().expect("a copy");
            assert!(open.outlet(given, &endpoints).is_some(), "it may come back at once, as {source:?}");
        }
    }
}
