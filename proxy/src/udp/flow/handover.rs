//! A flow on its way to another process of this proxy, or back from there: what is known of it, and its upstream socket.
//! Its datagrams wait in the kernel meanwhile.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::Permit;
use crate::config::model::{BackendId, Config, Protocol, RuleId};
use crate::listening::Endpoint;
use crate::operation::outcomes::{HeaderIn, SourceUsed};
use crate::operation::unique_id::UniqueId;
use crate::operation::CloseReason;
use crate::sniff::Found;
use crate::story::Story;
use crate::tcp::allowance::Allowance;
use crate::transparent::udp_endpoints::UdpEndpoints;
use crate::udp::reply::Reply;
use crate::udp::table::{FlowKey, Peer};
use crate::udp::upstream::{Header, Upstream};
use crate::wire::udp_preface::PeerFraming;

use super::Flow;

/// A flow without a process.
#[derive(Debug)]
pub(crate) struct Heritage {
    pub(crate) state: FlowState,
    /// Towards its backend, unless none was chosen yet.
    pub(crate) upstream: Option<OwnedFd>,
}

/// The socket at which a flow arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) endpoint: Endpoint,
    /// Which of its sockets; the kernel brings all datagrams of the flow to that one.
    pub(crate) number: usize,
}

/// What is known of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowState {
    pub(crate) place: Place,
    pub(crate) key: FlowKey,
    pub(crate) framing: PeerFraming,
    pub(crate) last_header: Option<(SocketAddr, SocketAddr)>,
    pub(crate) original_dst: SocketAddr,
    pub(crate) reply_prefix: Vec<u8>,
    pub(crate) header_in: HeaderIn,
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
}

/// A flow that has a backend. Times are ages in microseconds: what the two processes have in common is how fast time goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    unique_id: UniqueId,
    protocol: Option<Protocol>,
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
    ech: bool,
    rule: Option<String>,
    backend: Option<String>,
    target: SocketAddr,
    source: SourceUsed,
    header: Header,
    bytes_in: u64,
    bytes_out: u64,
    accepted_us: u64,
    last_up_us: u64,
    last_down_us: Option<u64>,
    preface_us: Option<u64>,
    connect_us: Option<u64>,
}

impl FlowState {
    /// Whether a socket goes with it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }
}

impl Flow {
    /// Ends the flow here, for it to go on elsewhere. None if it is about to end anyway.
    pub(crate) fn hand_over(&self, place: Place, key: FlowKey, peer: Peer, now: Instant) -> Option<Heritage> {
        if self.end.get().is_some() {
            return None;
        }
        let (stage, upstream) = match (self.upstream.get(), self.held.borrow_mut().take()) {
            (Some(upstream), _) => {
                // Without a descriptor to copy it to, the flow ends: its client's next datagram begins another.
                let (socket, header) = upstream.borrow().copy().ok()?;
                (Stage::Open(Box::new(self.open(header, now)?)), Some(socket))
            }
            (None, Some(held)) => (Stage::Held(held.into_datagrams()), None),
            (None, None) => return None,
        };
        let story = self.story.borrow();
        let state = FlowState {
            place,
            key,
            framing: peer.framing,
            last_header: peer.last,
            original_dst: story.original_dst,
            reply_prefix: self.reply_prefix.clone(),
            header_in: story.header_in,
            stage,
        };
        self.close(CloseReason::HandedOver);
        Some(Heritage { state, upstream })
    }

    fn open(&self, header: Header, now: Instant) -> Option<Open> {
        let story = self.story.borrow();
        let config = story.epoch.config();
        let found = story.spoken.as_ref().map(|(_, found)| found);
        let (target, source) = story.target?;
        let age = |moment: Instant| micros(now.saturating_duration_since(moment));
        Some(Open {
            unique_id: story.unique_id.clone(),
            protocol: story.spoken.as_ref().map(|(protocol, _)| *protocol),
            server_name: found.and_then(|found| found.name.clone()),
            alpn: found.map(|found| found.alpn.clone()).unwrap_or_default(),
            ech: found.is_some_and(|found| found.ech),
            rule: story.rule.and_then(|id| config.rules.get(id.0)).map(|rule| rule.name.clone()),
            backend: story.backend.and_then(|id| config.backends.get(id.0)).map(|backend| backend.name.clone()),
            target,
            source,
            header,
            bytes_in: story.bytes_in,
            bytes_out: story.bytes_out,
            accepted_us: age(story.accepted),
            last_up_us: age(self.last_up.get()),
            last_down_us: self.last_down.get().map(age),
            preface_us: story.preface.map(micros),
            connect_us: story.connect.map(micros),
        })
    }

    /// A flow that has a backend, as it was.
    ///
    /// # Errors
    ///
    /// Its socket has no room in the event queue.
    pub(crate) fn resume(flow: Resumed) -> std::io::Result<Self> {
        let Resumed { open, upstream, mut story, peer, reply, reply_prefix, allowances: [up, down], permit, endpoints } =
            flow;
        let now = Instant::now();
        let claim = claim(upstream.as_fd(), &open, &endpoints);
        let upstream = Upstream::resume(upstream, open.header.clone(), open.source, claim)?;
        story.header_out = upstream.form();
        let (last_up, last_down) = (before(now, open.last_up_us), open.last_down_us.map(|age| before(now, age)));
        open.told(&mut story, now);
        Ok(Self {
            story: story.share(),
            peer,
            reply,
            reply_prefix,
            held: RefCell::new(None),
            upstream: OnceCell::from(RefCell::new(upstream)),
            news: Notify::new(),
            end: Cell::new(None),
            last_up: Cell::new(last_up),
            last_down: Cell::new(last_down),
            up_allowance: RefCell::new(up),
            down_allowance: RefCell::new(down),
            _permit: permit,
        })
    }
}

/// What a flow goes on with.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) open: Open,
    pub(crate) upstream: OwnedFd,
    pub(crate) story: Story,
    pub(crate) peer: SocketAddr,
    pub(crate) reply: Reply,
    pub(crate) reply_prefix: Vec<u8>,
    pub(crate) allowances: [Option<Box<Allowance>>; 2],
    pub(crate) permit: Permit,
    pub(crate) endpoints: UdpEndpoints,
}

impl Open {
    /// Puts into a story what happened before. Names that this configuration has not are not told.
    fn told(self, story: &mut Story, now: Instant) {
        let rule = self.rule.and_then(|name| rule_named(story.epoch.config(), &name));
        let backend = self.backend.and_then(|name| backend_named(story.epoch.config(), &name));
        let connect = self.connect_us.map(Duration::from_micros);
        if let Some(backend) = backend {
            story.epoch.counters.backend_connected(backend, connect.unwrap_or_default());
        }
        let found = Found { name: self.server_name, alpn: self.alpn, ech: self.ech };
        story.unique_id = self.unique_id;
        story.spoken = self.protocol.map(|protocol| (protocol, found));
        (story.rule, story.backend) = (rule, backend);
        story.target = Some((self.target, self.source));
        (story.bytes_in, story.bytes_out) = (self.bytes_in, self.bytes_out);
        story.accepted = before(now, self.accepted_us);
        (story.preface, story.connect) = (self.preface_us.map(Duration::from_micros), connect);
    }
}

/// A client's endpoint towards a backend is this flow's in this process too.
fn claim(
    upstream: BorrowedFd<'_>,
    open: &Open,
    endpoints: &UdpEndpoints,
) -> Option<crate::transparent::udp_endpoints::Claim> {
    if open.source != SourceUsed::ClientEndpoint {
        return None;
    }
    let from = SockRef::from(&upstream).local_addr().ok()?.as_socket()?;
    endpoints.claim(from, open.target)
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
            rule: Some("rule 1".to_owned()),
            backend: Some("home".to_owned()),
            target: at("192.0.2.2:443"),
            source: SourceUsed::ClientEndpoint,
            header: Header::of(Some(SendProxyUdp::First), client, hit),
            bytes_in: u64::MAX,
            bytes_out: 2,
            accepted_us: 3,
            last_up_us: 2,
            last_down_us: Some(1),
            preface_us: None,
            connect_us: Some(4),
        };
        Self {
            place: Place { endpoint: Endpoint::new(Transport::Udp, hit, Arrival::Direct), number: 1 },
            key: FlowKey { peer, hit, client },
            framing: PeerFraming::First,
            last_header: Some((client, hit)),
            original_dst: hit,
            reply_prefix: vec![1, 2],
            header_in: HeaderIn::V2,
            stage: if is_open { Stage::Open(Box::new(open)) } else { Stage::Held(vec![vec![0; 9], Vec::new()]) },
        }
    }
}
