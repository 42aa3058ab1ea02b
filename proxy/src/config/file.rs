//! The configuration as written: the shape of the TOML file with its defaults, from which the JSON Schema is made.

mod bounds;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{Arrival, Balance, HeaderFraming, HeaderPolicy, Protocol, SendProxyUdp, Target, Transport};
use super::notation::{Alpn, Endpoint, Endpoints, KeyPlace, LogPlace, Ports, Rate, SocketPlace, Suffix, Written};

pub(crate) use bounds::{LimitsFile, TimeoutsFile};

/// The configuration of edgeproxy.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// Threads that accept and relay, each with sockets of its own. Without it: one for each core.
    #[schemars(range(max = 1024))]
    pub(crate) workers: Option<NonZeroU32>,
    /// Sources that are refused at once.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(crate) deny: Option<Vec<Written<IpNet>>>,
    /// Where clients arrive: `[listener.NAME]`.
    #[schemars(required)]
    pub(crate) listener: Option<BTreeMap<String, ListenerFile>>,
    /// Who goes where: `[[rule]]`; the first that matches decides, and who matches none is refused.
    #[schemars(required)]
    pub(crate) rule: Option<Vec<RuleFile>>,
    /// Where rules lead: `[backend.NAME]`.
    #[serde(default)]
    pub(crate) backend: BTreeMap<String, BackendFile>,
    /// How names become addresses.
    #[serde(default)]
    pub(crate) resolver: ResolverFile,
    /// Bounds on what clients may take.
    #[serde(default)]
    pub(crate) limits: LimitsFile,
    /// How long each phase may last.
    #[serde(default)]
    pub(crate) timeouts: TimeoutsFile,
    /// Which addresses names may lead to, and which lead back here.
    #[serde(default)]
    pub(crate) targets: TargetsFile,
    /// Rules of the kernel that `source = "client"` needs.
    #[serde(default)]
    pub(crate) transparent: TransparentFile,
    /// How the proxy is seen and steered.
    #[serde(default)]
    pub(crate) operation: OperationFile,
}

/// Addresses and ports at which clients arrive.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListenerFile {
    /// TCP endpoints. IPv6 endpoints take IPv6 only.
    #[schemars(length(min = 1))]
    pub(crate) tcp: Option<Vec<Written<Endpoints>>>,
    /// UDP endpoints.
    #[schemars(length(min = 1))]
    pub(crate) udp: Option<Vec<Written<Endpoints>>>,
    /// Whether connections can have several ways at once (Multipath TCP), so that one lives on while one of its ways does.
    pub(crate) mptcp: bool,
    /// How clients' packets come here. Without it: `direct`.
    pub(crate) arrival: Option<Arrival>,
    /// Which peers speak the PROXY protocol here; the first prefix that holds the peer decides, and who is in none does not.
    #[schemars(length(min = 1))]
    pub(crate) proxy_header: Option<Vec<HeaderTrustFile>>,
    /// TCP connections at once at this listener. Without it: as many as `limits.connections`.
    #[schemars(range(max = 1_000_000))]
    pub(crate) connections: Option<NonZeroU32>,
    /// UDP flows at once at this listener. Without it: as many as `limits.udp_flows`.
    #[schemars(range(max = 1_000_000))]
    pub(crate) udp_flows: Option<NonZeroU32>,
    /// Bytes a second that each connection or flow may carry in each direction. Without it: no bound.
    pub(crate) rate_per_flow: Option<Written<Rate>>,
    /// Bytes a second that all of them together may carry in each direction. Without it: no bound.
    pub(crate) rate: Option<Written<Rate>>,
}

/// What a prefix of peers does about the PROXY protocol.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderTrustFile {
    /// The peers.
    #[schemars(required)]
    pub(crate) from: Option<Written<IpNet>>,
    /// What they do.
    #[schemars(required)]
    pub(crate) policy: Option<HeaderPolicy>,
    /// Which of their datagrams begin with a header. Without it: `every`.
    pub(crate) udp: Option<HeaderFraming>,
    /// A file of keys: who has none of them can name no client. A header that is not signed with one is refused, also where it
    /// is optional. Without it: who is in the prefix is believed.
    pub(crate) key: Option<Written<KeyPlace>>,
}

/// One line of routing: all that is said must hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RuleFile {
    /// Its name in logs and metrics. Without it: `rule 1` for the first of the file, and so on.
    pub(crate) name: Option<String>,
    /// Listeners at which it holds. Without it: all.
    #[schemars(length(min = 1))]
    pub(crate) listeners: Option<Vec<String>>,
    /// TCP or UDP. Without it: both.
    pub(crate) transport: Option<Transport>,
    /// Ports that the client asked for (behind a PROXY header: those that it names). Without it: all.
    #[schemars(length(min = 1))]
    pub(crate) ports: Option<Vec<Ports>>,
    /// What is spoken, any of these. Without it: anything.
    #[schemars(length(min = 1))]
    pub(crate) protocols: Option<Vec<Protocol>>,
    /// The name that the client asks for (TLS and QUIC server name, HTTP Host, ...), whole; `(?P<name>...)` captures for
    /// targets. Without it: any name, and none.
    pub(crate) server_name: Option<Written<Regex>>,
    /// Application protocols, one of which the client offers. Without it: any, and none.
    #[schemars(length(min = 1))]
    pub(crate) alpn: Option<Vec<Written<Alpn>>>,
    /// Whether the client's hello hides an inner one (ECH). Chromium and Firefox always pretend to (GREASE), and cannot be told
    /// apart. Without it: either.
    pub(crate) ech: Option<bool>,
    /// Where the client is. Without it: anywhere.
    #[schemars(length(min = 1))]
    pub(crate) from: Option<Vec<Written<IpNet>>>,
    /// The backend to which it leads.
    pub(crate) to: Option<String>,
    /// Instead of `to`: clients are refused.
    pub(crate) refuse: bool,
}

/// Where connections and flows are led.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendFile {
    /// Candidates. `$name` stands for what the group of that name captured in the rule's `server_name`, `$port` for the
    /// port that the client asked for.
    #[schemars(required, length(min = 1))]
    pub(crate) targets: Option<Vec<Written<Target>>>,
    /// What names with captures must end in.
    #[schemars(length(min = 1))]
    pub(crate) allow_suffixes: Option<Vec<Written<Suffix>>>,
    /// Whether names with captures may be one label, which is looked up as it is (LLMNR, a file of hosts). Without it: `false`.
    pub(crate) allow_single_labels: Option<bool>,
    /// Which candidate is tried first. Without it: `in_order`.
    pub(crate) balance: Option<Balance>,
    /// Whose address the backend sees. Without it: `own`.
    pub(crate) source: Option<SourceFile>,
    /// Whether connections have several ways at once (Multipath TCP) if it can, so that one lives on while one of its ways does.
    #[serde(default)]
    pub(crate) mptcp: bool,
    /// The PROXY header that it gets on TCP connections. Without it: none.
    pub(crate) send_proxy: Option<SendProxyFile>,
    /// What a header of version 2 holds beside the addresses. Without it: nothing.
    #[schemars(length(min = 1))]
    pub(crate) send_proxy_with: Option<Vec<HeaderField>>,
    /// The PROXY header that it gets with datagrams. Without it: none.
    pub(crate) send_proxy_udp: Option<SendProxyUdp>,
    /// What that header holds beside the addresses, if it is of version 2. Without it: nothing.
    #[schemars(length(min = 1))]
    pub(crate) send_proxy_udp_with: Option<Vec<DatagramField>>,
    /// A file of keys, with the first of which headers of version 2 are signed. Without it: they are not.
    pub(crate) sign_proxy: Option<Written<KeyPlace>>,
    /// Checks of each candidate by a TCP connect; `{}` for the defaults. Without it: none.
    pub(crate) health: Option<HealthFile>,
    /// Rest for a candidate that fails clients; `{}` for the defaults. Without it: none.
    pub(crate) eject: Option<EjectFile>,
    /// How long one candidate may take to connect. Without it: `3s`.
    pub(crate) connect_timeout: Option<Written<Duration>>,
    /// The backend that is tried when no candidate of this one answers. Without it: the client is refused.
    pub(crate) fallback: Option<String>,
}

/// Whose address a backend sees.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SourceFile {
    /// The proxy's.
    Own,
    /// The client's; where client and backend are on one host, the proxy's; where else it cannot be, the client is refused.
    Client,
    /// The client's; where that cannot be, the proxy's.
    ClientOrOwn,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SendProxyFile {
    /// The text form.
    V1,
    /// The binary form.
    V2,
}

/// A field of a PROXY header of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeaderField {
    /// The server name and the application protocol of the client's hello.
    Hello,
    /// An identifier that joins the log lines of several proxies.
    UniqueId,
    /// A checksum of the header.
    Crc32c,
    /// What a trusted peer's own header of version 2 said of the client: server name, application protocol, TLS session, network
    /// namespace, and types 0xE0 to 0xEF.
    Received,
}

/// A field of a PROXY header of version 2 with datagrams. What the client's hello says the next one reads itself, and datagrams
/// have a checksum: each byte is one less for the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DatagramField {
    /// An identifier that joins the log lines of several proxies.
    UniqueId,
}

/// Checks of each candidate.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealthFile {
    /// Between two checks.
    pub(crate) interval: Written<Duration>,
    /// For one; not longer than the interval.
    pub(crate) timeout: Written<Duration>,
    /// Successes in a row after which a failed candidate is used again.
    #[schemars(range(max = 1000))]
    pub(crate) rise: NonZeroU32,
    /// Failures in a row after which a candidate is used no more.
    #[schemars(range(max = 1000))]
    pub(crate) fall: NonZeroU32,
}

impl Default for HealthFile {
    fn default() -> Self {
        Self { interval: seconds(10), timeout: seconds(2), rise: count(2), fall: count(3) }
    }
}

/// Rest for a candidate that fails.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EjectFile {
    /// Failed connects in a row.
    #[schemars(range(max = 1000))]
    pub(crate) failures: NonZeroU32,
    /// How long it then rests.
    pub(crate) duration: Written<Duration>,
}

impl Default for EjectFile {
    fn default() -> Self {
        Self { failures: count(3), duration: seconds(30) }
    }
}

/// How names become addresses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ResolverFile {
    /// Servers, asked in this order. Without it: those of `/etc/resolv.conf`.
    #[schemars(length(min = 1))]
    pub(crate) servers: Option<Vec<Written<Endpoint>>>,
    /// For one try at one server.
    pub(crate) timeout: Written<Duration>,
    /// How long an answer that has run out is still used while no server answers (RFC 8767); `0s`: not at all.
    pub(crate) stale: Written<Duration>,
    /// The longest time for which "no such name" is remembered (RFC 2308).
    pub(crate) negative: Written<Duration>,
    /// The shortest time for which an answer is used, whatever its TTL.
    pub(crate) min_ttl: Written<Duration>,
    /// The longest.
    pub(crate) max_ttl: Written<Duration>,
    /// Names that are remembered; the oldest go first.
    #[schemars(range(max = 1_000_000))]
    pub(crate) cache_entries: NonZeroU32,
}

impl Default for ResolverFile {
    fn default() -> Self {
        Self {
            servers: None,
            timeout: seconds(2),
            stale: seconds(86_400),
            negative: seconds(30),
            min_ttl: seconds(1),
            max_ttl: seconds(3_600),
            cache_entries: count(4_096),
        }
    }
}

/// Which addresses names may lead to, and which lead back here.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TargetsFile {
    /// Exceptions from what no name may lead to: loopback, link-local, unspecified, multicast and broadcast addresses, the
    /// metadata services of clouds, and this proxy's own listeners.
    #[schemars(length(min = 1))]
    pub(crate) allow: Option<Vec<Written<IpNet>>>,
    /// Addresses that lead to this host though no interface has them: those that a translator before it gives it.
    #[schemars(length(min = 1))]
    pub(crate) own: Option<Vec<Written<IpNet>>>,
}

/// Rules of the kernel that `source = "client"` needs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TransparentFile {
    /// Whether the proxy installs, watches and removes them.
    pub(crate) manage_rules: bool,
    /// The mark that rules put on packets that come back to transparent sockets, and on their tracked connections.
    pub(crate) mark: NonZeroU32,
    /// The routing table that delivers such packets locally; not 253 to 255, which the kernel uses.
    pub(crate) table: NonZeroU32,
}

impl Default for TransparentFile {
    fn default() -> Self {
        // "ep" in ASCII: unlike the marks of tailscale (bits 16 to 23) and Kubernetes (bits 14 and 15 alone).
        Self { manage_rules: false, mark: count(0x6570), table: count(0x6570) }
    }
}

/// How the proxy is seen and steered.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OperationFile {
    /// The Unix socket of `edgeproxy top`. Without it: none.
    pub(crate) admin_socket: Option<Written<SocketPlace>>,
    /// Where Prometheus asks. Without it: nowhere.
    pub(crate) metrics: Option<Written<Endpoint>>,
    /// One line of JSON for each connection; `-` is stdout. Without it: none.
    pub(crate) access_log: Option<Written<LogPlace>>,
    /// Whether the kernel holds TCP to the ports that the file has at the start: a reload then brings no others.
    pub(crate) fixed_ports: bool,
}

const fn seconds(number: u64) -> Written<Duration> {
    Written(Duration::from_secs(number))
}

/// At least one.
fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}
