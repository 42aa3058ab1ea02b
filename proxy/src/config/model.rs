//! The configuration as meant: valid by construction, every reference resolved, no string that is an address or a duration.

mod bounds;
mod target;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bounds::{Limits, SourcePrefixes, Timeouts};
pub use target::{may_meet, Host, NamePart, Target, TargetPolicy, TargetPort};

/// Index of a listener in [`Config::listeners`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub usize);

/// Index of a rule in [`Config::rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub usize);

/// Index of a backend in [`Config::backends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub usize);

/// Index of a file of keys in [`Config::key_files`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub usize);

/// A file of keys that this host shares with other hops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// Where it is; what is in it is no part of a configuration.
    pub path: PathBuf,
    /// The key of the configuration that names it first.
    pub place: String,
}

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads that accept and relay, each with sockets of its own.
    pub workers: NonZeroUsize,
    /// Where clients arrive, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Who goes where; the first that matches decides.
    pub rules: Vec<Rule>,
    /// Where rules lead.
    pub backends: Vec<Backend>,
    /// How names become addresses.
    pub resolver: Resolver,
    /// Bounds on what clients may take.
    pub limits: Limits,
    /// How long each phase may last.
    pub timeouts: Timeouts,
    /// Which targets are not dialled.
    pub targets: TargetPolicy,
    /// Rules of the kernel that transparency needs.
    pub transparent: TransparentRules,
    /// How the proxy is seen and steered.
    pub operation: Operation,
    /// Sources that are refused at once, for as long as the configuration holds.
    pub deny: Vec<IpNet>,
    /// Files of keys, each once.
    pub key_files: Vec<KeyFile>,
}

/// Addresses and ports at which clients arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the file.
    pub name: String,
    /// TCP endpoints; port ranges are spelt out. IPv6 sockets take IPv6 only.
    pub tcp: Vec<SocketAddr>,
    /// UDP endpoints.
    pub udp: Vec<SocketAddr>,
    /// Whether its TCP sockets are of Multipath TCP, which serve clients of plain TCP alike.
    pub mptcp: bool,
    /// Whether clients addressed this socket, or the kernel's TPROXY brought them here.
    pub arrival: Arrival,
    /// Who may, must or must not speak the PROXY protocol here: the first prefix that holds the peer decides; none: never.
    pub proxy_header: Vec<HeaderTrust>,
    /// TCP connections at once at this listener.
    pub connections: NonZeroUsize,
    /// UDP flows at once at this listener.
    pub udp_flows: NonZeroUsize,
    /// Bytes a second that each of its flows may carry in each direction; `None`: no bound.
    pub rate_per_flow: Option<NonZeroU32>,
    /// Bytes a second that all its flows together may carry in each direction.
    pub rate: Option<NonZeroU32>,
}

/// How a client's packets came to the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// They were addressed to it.
    Direct,
    /// By a TPROXY rule: the socket's own address is the original destination.
    Tproxy,
}

/// What a prefix of peers does about the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderTrust {
    /// The peers.
    pub from: IpNet,
    /// What they do.
    pub policy: HeaderPolicy,
    /// How they frame it over UDP.
    pub udp: HeaderFraming,
    /// The keys with which a header must be signed; `None`: it need not be.
    pub key: Option<KeyId>,
}

/// Which datagrams of a peer begin with a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeaderFraming {
    /// Each one, in version 2 (PROXY protocol, revision 2026/04/27): no client can speak for another.
    #[default]
    Every,
    /// The first of each of the peer's sockets, in version 2: what begins a later one is payload.
    First,
    /// Each one, in Cloudflare's form.
    Spp,
    /// Learned from each of the peer's sockets. Where it sends the first only, a client's own header is believed.
    Auto,
}

/// Whether a PROXY header is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeaderPolicy {
    /// Without a header the connection is refused.
    Require,
    /// With a header it is believed; without one the peer is the client.
    Optional,
    /// Bytes that look like a header are payload.
    Never,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Flows of datagrams.
    Udp,
}

/// Protocols that are recognised by their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say it
pub enum Protocol {
    Tls,
    Quic,
    Http1,
    Http2,
    Ssh,
    Dtls,
    Socks4,
    Socks5,
    Rdp,
    Postgres,
    Mqtt,
    Xmpp,
    Wireguard,
    Openvpn,
    Dns,
    Stun,
    Minecraft,
    EternalTerminal,
    Smb,
    Redis,
    Amqp,
    Bittorrent,
    Syslog,
    Rsync,
    Git,
    Bitcoin,
    Adb,
    SyncthingRelay,
    Teamspeak3,
    SourceQuery,
    /// The client says nothing until the server does; matched when [`Timeouts::silence`] has passed without a byte.
    Silence,
}

/// One line of routing.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name in the file, or `rule N`.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// Listeners at which it holds; empty: all.
    pub listeners: Vec<ListenerId>,
    /// `None`: both.
    pub transport: Option<Transport>,
    /// Ports of the original destination; empty: all.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Recognised protocols, any of them; empty: whatever is spoken, and nothing need be read unless `server_name` or
    /// `alpn` ask for it.
    pub protocols: Vec<Protocol>,
    /// The name asked for, in lower case, must match; its named captures may stand in the backend's targets.
    pub server_name: Option<Regex>,
    /// One of these application protocols must be offered; empty: any.
    pub alpn: Vec<Vec<u8>>,
    /// Whether the hello hides an inner one (ECH) or pretends to (GREASE); `None`: either.
    pub ech: Option<bool>,
    /// Clients (not peers) to which it applies; empty: all.
    pub from: Vec<IpNet>,
    /// What is done.
    pub action: Action,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Lead to a backend.
    Forward(BackendId),
    /// Close, by a reset.
    Refuse,
}

/// Where connections and flows are led.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its name in the file.
    pub name: String,
    /// Candidates, in the order of the file; at least one.
    pub targets: Vec<Target>,
    /// Which candidate comes first.
    pub balance: Balance,
    /// From which address it is dialled.
    pub source: Source,
    /// Whether connections and checks are by Multipath TCP, where it has that.
    pub mptcp: bool,
    /// The header that it gets on TCP connections.
    pub send_proxy: Option<SendProxy>,
    /// The header that it gets with datagrams.
    pub send_proxy_udp: Option<SendProxyUdp>,
    /// Whether that header, of version 2, holds UNIQUE_ID.
    pub send_proxy_udp_id: bool,
    /// The keys with which headers of version 2 are signed.
    pub sign_proxy: Option<KeyId>,
    /// Active checks by TCP connect.
    pub health: Option<HealthCheck>,
    /// Passive ejection after failures in a row.
    pub eject: Option<Ejection>,
    /// How long one candidate may take to connect.
    pub connect_timeout: Duration,
    /// The backend that is tried when no candidate of this one answers; never a circle.
    pub fallback: Option<BackendId>,
    /// What names may be that captures or clients chose; names of the file are free.
    pub allow_names: NameBounds,
}

/// Names that clients may choose. By default: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameBounds {
    /// They end in one of these (`.tailnet`), which `tailnet` itself does not; in lower case.
    pub suffixes: Vec<String>,
    /// Or they are one label.
    pub single_labels: bool,
}

/// Which candidate is tried first; the others follow in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// As they stand in the file: the later ones are for when the earlier ones fail.
    InOrder,
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest connections of this proxy.
    LeastConnections,
    /// By the client's address, so that a client stays where it was.
    SourceHash,
}

/// Whose address the backend sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The proxy's.
    Own,
    /// The client's, address and port; when that endpoint is taken, address and another port; the proxy's where neither
    /// can be (client and backend on one host, or neighbours on one link). `IP_TRANSPARENT`, ip(7).
    Client {
        /// Whether the proxy's own address may take its place when the client's cannot be used.
        or_own: bool,
    },
}

/// A PROXY header on a TCP connection to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendProxy {
    /// The text form.
    V1,
    /// The binary form.
    V2 {
        /// AUTHORITY and ALPN as the client's hello has them.
        hello: bool,
        /// UNIQUE_ID, which joins the log lines of edge and home.
        unique_id: bool,
        /// CRC32C over the header.
        crc32c: bool,
        /// What the header of a trusted peer said of the client beside its addresses.
        received: bool,
    },
}

/// A PROXY header with datagrams to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SendProxyUdp {
    /// Version 2 before the payload of each datagram (PROXY protocol, revision 2026/04/27).
    Every,
    /// Version 2 before the first datagram of a flow only.
    First,
    /// Cloudflare's 38 bytes (Simple Proxy Protocol) before each.
    Spp,
}

/// Active checks of each candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// Between two checks.
    pub interval: Duration,
    /// For one.
    pub timeout: Duration,
    /// Successes in a row after which a failed candidate is used again.
    pub rise: NonZeroU32,
    /// Failures in a row after which a candidate is used no more.
    pub fall: NonZeroU32,
}

/// Passive ejection of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Failed connects in a row.
    pub failures: NonZeroU32,
    /// How long it then rests.
    pub duration: Duration,
}

/// How names become addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// Asked in this order; empty: those of `/etc/resolv.conf` (there is systemd-resolved's stub, where it runs).
    pub servers: Vec<SocketAddr>,
    /// For one try at one server.
    pub timeout: Duration,
    /// An answer that has run out is still used for this long while no server answers (RFC 8767).
    pub stale: Duration,
    /// "No such name" is remembered for at most this long (RFC 2308).
    pub negative: Duration,
    /// The shortest time for which an answer is used, whatever its TTL.
    pub min_ttl: Duration,
    /// The longest.
    pub max_ttl: Duration,
    /// Names in the cache; the oldest go first.
    pub cache_entries: NonZeroUsize,
}

/// Rules of the kernel that transparency needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransparentRules {
    /// The proxy installs, watches and removes them; otherwise `edgeproxy doctor` prints them.
    pub manage_rules: bool,
    /// The mark that rules put on packets that come back to transparent sockets, and on their tracked connections.
    pub mark: NonZeroU32,
    /// The routing table that delivers such packets locally.
    pub table: NonZeroU32,
}

/// How the proxy is seen and steered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operation {
    /// The admin socket.
    pub admin_socket: Option<PathBuf>,
    /// Where Prometheus asks.
    pub metrics: Option<SocketAddr>,
    /// One JSON line for each connection; `None`: none. `-` is stdout.
    pub access_log: Option<PathBuf>,
    /// Whether the kernel holds TCP to the ports that the configuration has at the start, as far as they are known.
    pub fixed_ports: bool,
}
