//! What is known of one connection or flow, told once when it ends: counted, and written to the access log.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::config::model::{BackendId, ListenerId, Protocol, RuleId, SendProxy, Transport};
use crate::generation::Epoch;
use crate::operation::access_line::{self, Record};
use crate::operation::admin::Active;
use crate::operation::outcomes::{HeaderIn, HeaderOut, SourceUsed};
use crate::operation::protocols;
use crate::operation::unique_id::UniqueId;
use crate::operation::CloseReason;
use crate::sniff::Found;
use crate::worker::Worker;

/// A connection's or a flow's story. It is told when it is dropped, so no way out of the code can forget it; one that nobody ended was
/// ended by the proxy's own end.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) worker: Rc<Worker>,
    pub(crate) epoch: Rc<Epoch>,
    pub(crate) listener: ListenerId,
    pub(crate) transport: Transport,
    pub(crate) peer: SocketAddr,
    pub(crate) client: SocketAddr,
    pub(crate) original_dst: SocketAddr,
    pub(crate) unique_id: UniqueId,
    pub(crate) spoken: Option<Box<(Protocol, Found)>>,
    pub(crate) rule: Option<RuleId>,
    pub(crate) backend: Option<BackendId>,
    pub(crate) target: Option<Taken>,
    pub(crate) header_in: HeaderIn,
    /// The peer has spoken for nobody and has said nothing so far.
    pub(crate) is_peers_own: bool,
    pub(crate) header_out: HeaderOut,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) accepted: Instant,
    pub(crate) preface: Option<Duration>,
    pub(crate) connect: Option<Duration>,
    pub(crate) close: CloseReason,
}

/// The candidate that took a client. Within it there is room left for the last, which beside it a flow would pay for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) at: SocketAddr,
    pub(crate) source: SourceUsed,
    /// Ways to one that is to be reached by Multipath TCP, the most that were seen; 0: it is reached by plain TCP.
    pub(crate) subflows: Option<u8>,
}

impl Taken {
    pub(crate) fn new(at: SocketAddr, source: SourceUsed) -> Self {
        Self { at, source, subflows: None }
    }
}

impl Story {
    /// The beginning, at a listener.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        epoch: &Rc<Epoch>,
        listener: ListenerId,
        transport: Transport,
        peer: SocketAddr,
        original_dst: SocketAddr,
    ) -> Self {
        epoch.counters.opened(listener, transport);
        let (peer, original_dst) = (canonical(peer), canonical(original_dst));
        Self {
            worker: Rc::clone(worker),
            epoch: Rc::clone(epoch),
            listener,
            transport,
            peer,
            client: peer,
            original_dst,
            unique_id: worker.ids.borrow_mut().next(),
            spoken: None,
            rule: None,
            backend: None,
            target: None,
            header_in: HeaderIn::NotExpected,
            is_peers_own: false,
            header_out: HeaderOut::None,
            bytes_in: 0,
            bytes_out: 0,
            accepted: Instant::now(),
            preface: None,
            connect: None,
            close: CloseReason::Drained,
        }
    }

    /// Its backend gets a header of version 2. If the identifier is in it, a connection that brings it here is this one.
    pub(crate) fn sends_v2(&mut self) {
        self.header_out = HeaderOut::V2;
        if self.has_sent_id() {
            self.worker.admission.circle.sent(&self.unique_id, self.listener_name(), self.peer.ip());
        }
    }

    fn has_sent_id(&self) -> bool {
        let backend = self.backend.and_then(|id| self.epoch.config().backends.get(id.0));
        let is_asked = matches!(backend.and_then(|it| it.send_proxy), Some(SendProxy::V2 { unique_id: true, .. }));
        self.transport == Transport::Tcp && self.header_out == HeaderOut::V2 && is_asked
    }

    fn listener_name(&self) -> &str {
        self.epoch.config().listeners.get(self.listener.0).map_or("", |listener| &listener.name)
    }

    /// Lets it be seen by those who ask who is here.
    pub(crate) fn share(self) -> SharedStory {
        let worker = Rc::clone(&self.worker);
        let shared = Rc::new(RefCell::new(self));
        worker.register(&shared);
        shared
    }

    /// Why it ended. Whoever spoke for nobody and left without a byte either way only wanted to know whether somebody is here.
    fn close(&self) -> CloseReason {
        use CloseReason::{ClientClosed, ClientLeftEarly, ClientReset, HealthCheck};
        let has_left = matches!(self.close, ClientClosed | ClientReset | ClientLeftEarly);
        let is_check = has_left && self.is_peers_own && self.bytes_in == 0 && self.bytes_out == 0;
        if is_check {
            HealthCheck
        } else {
            self.close
        }
    }

    /// Whether anybody who sends datagrams can bring about as many such ends as they like: one that nobody was answered in, or
    /// that gave way, says nothing of its source. A TCP connection has a client that heard the handshake.
    fn may_be_made_up(&self, close: CloseReason) -> bool {
        self.transport == Transport::Udp && (self.bytes_out == 0 || close == CloseReason::Evicted)
    }

    /// What those who ask are told.
    pub(crate) fn active(&self) -> Active {
        let config = self.epoch.config();
        let found = self.spoken.as_deref();
        Active {
            unique_id: self.unique_id.to_string(),
            listener: self.listener_name().to_owned(),
            transport: access_line::transport(self.transport).to_owned(),
            peer: self.peer,
            client: self.client,
            original_dst: self.original_dst,
            protocol: protocols::label(found.map(|(protocol, _)| *protocol)).to_owned(),
            server_name: found.and_then(|(_, found)| found.name.clone()),
            rule: self.rule.and_then(|id| config.rules.get(id.0)).map(|rule| rule.name.clone()),
            backend: self.backend.and_then(|id| config.backends.get(id.0)).map(|backend| backend.name.clone()),
            target: self.target.map(|taken| taken.at),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            age_us: u64::try_from(self.accepted.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// A story that can be read while it goes on.
pub(crate) type SharedStory = Rc<RefCell<Story>>;

/// An endpoint without the IPv6 clothes of an IPv4 address.
fn canonical(endpoint: SocketAddr) -> SocketAddr {
    match endpoint.ip().to_canonical() {
        same if same == endpoint.ip() => endpoint,
        ip => SocketAddr::new(ip, endpoint.port()),
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if self.has_sent_id() {
            self.worker.admission.circle.forget(&self.unique_id, self.listener_name(), self.peer.ip());
        }
        let close = self.close();
        self.epoch.counters.closed(self.listener, self.transport, close);
        if let (Some(backend), Some(_)) = (self.backend, self.target) {
            self.epoch.counters.backend_closed(backend);
        }
        // Of a flow that goes on the other process will write the line.
        if matches!(close, CloseReason::HandedOver | CloseReason::HealthCheck) {
            return;
        }
        let Some(log) = &self.worker.log else { return };
        let sparing = if self.may_be_made_up(close) { self.epoch.sparing(self.listener) } else { None };
        let left_out = sparing.map_or(Some(0), |sparing| sparing.line(close, Instant::now()));
        let Some(left_out) = left_out else { return log.leave_out() };
        let config = self.epoch.config();
        let found = self.spoken.as_deref();
        log.record(&Record {
            time: SystemTime::now(),
            unique_id: &self.unique_id,
            listener: self.listener_name(),
            transport: self.transport,
            peer: self.peer,
            client: self.client,
            original_dst: self.original_dst,
            protocol: found.map(|(protocol, _)| *protocol),
            server_name: found.and_then(|(_, found)| found.name.as_deref()),
            alpn: found.map_or(&[], |(_, found)| &found.alpn),
            ech: found.is_some_and(|(_, found)| found.ech),
            rule: self.rule.and_then(|id| config.rules.get(id.0)).map(|rule| rule.name.as_str()),
            backend: self.backend.and_then(|id| config.backends.get(id.0)).map(|backend| backend.name.as_str()),
            target: self.target.map(|taken| taken.at),
            source: self.target.map(|taken| taken.source),
            subflows: self.target.and_then(|taken| taken.subflows),
            header_in: self.header_in,
            header_out: self.header_out,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            preface: self.preface,
            connect: self.connect,
            total: self.accepted.elapsed(),
            close,
            left_out,
        });
    }
}
