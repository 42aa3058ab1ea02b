//! Addresses that a name never leads to, whoever answers for it; and this proxy itself, to which not even the file leads.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;

use crate::config::model::{may_meet, Config, TargetPolicy, Transport};

/// Who chose an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It stands in the file.
    File,
    /// A name led to it, or a client spelt it out.
    Name,
}

/// Why an address is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
pub enum Forbidden {
    /// This host.
    #[error("a loopback address")]
    Loopback,
    /// One link; addresses of devices and of services of the host.
    #[error("a link-local address")]
    LinkLocal,
    /// `0.0.0.0/8` or `::`; Linux takes them for this host.
    #[error("an unspecified address")]
    Unspecified,
    /// A group.
    #[error("a multicast address")]
    Multicast,
    /// All of a link.
    #[error("the broadcast address")]
    Broadcast,
    /// A cloud's metadata service, which gives credentials away.
    #[error("the address of a cloud's metadata service")]
    Metadata,
    /// One of this proxy's own listeners: a circle.
    #[error("a listener of this proxy")]
    OwnListener,
}

impl Forbidden {
    /// A short word for metrics and logs; it does not change.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Metadata => "metadata",
            Self::OwnListener => "own_listener",
        }
    }
}

/// Metadata services outside or inside the link-local range, as their vendors document them: AWS, Azure, Google and most
/// others; AWS ECS; AWS over IPv6; Google over IPv6; Alibaba; Oracle's elder one; Azure's host.
const METADATA: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Where this proxy listens, and how to find out whether an address is this host's.
#[derive(Clone)]
pub struct Own {
    is_local: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    tcp: BTreeSet<SocketAddr>,
    udp: BTreeSet<SocketAddr>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("tcp", &self.tcp).field("udp", &self.udp).finish_non_exhaustive()
    }
}

impl Own {
    /// The listeners of a configuration. Addresses come and go, so whether one is this host's is asked each time.
    pub fn new(config: &Config, is_local: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self {
            is_local: Arc::new(is_local),
            tcp: config.listeners.iter().flat_map(|listener| &listener.tcp).copied().collect(),
            udp: config.listeners.iter().flat_map(|listener| &listener.udp).copied().collect(),
        }
    }

    /// Whether a dial to `target` arrives at one of the listeners.
    #[must_use]
    pub fn answers(&self, policy: &TargetPolicy, transport: Transport, target: SocketAddr) -> bool {
        let address = target.ip().to_canonical();
        let target = SocketAddr::new(address, target.port());
        let hit = |listener: &SocketAddr| {
            if listener.port() != target.port() {
                return false;
            }
            let bound = listener.ip().to_canonical();
            let wildcard = bound.is_unspecified() && bound.is_ipv4() == address.is_ipv4() && self.is_here(address);
            // a connection to 0.0.0.0 or :: goes to the loopback address
            let to_loopback = address.is_unspecified() && bound.is_loopback() && bound.is_ipv4() == address.is_ipv4();
            bound == address || wildcard || to_loopback || policy.brings_back(target, *listener)
        };
        self.listeners(transport).iter().any(hit)
    }

    /// Whether one of the listeners would hear a dial to `target`, if that address led to this host.
    #[must_use]
    pub fn would_answer(&self, transport: Transport, target: SocketAddr) -> bool {
        self.listeners(transport).iter().any(|listener| may_meet(target, *listener))
    }

    fn listeners(&self, transport: Transport) -> &BTreeSet<SocketAddr> {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Udp => &self.udp,
        }
    }

    fn is_here(&self, address: IpAddr) -> bool {
        address.is_loopback() || address.is_unspecified() || (self.is_local)(address)
    }
}

/// Why `target` must not be dialled; `None`: it may. An address of the file is free as long as it is not a circle.
#[must_use]
pub fn forbidden(
    policy: &TargetPolicy,
    own: &Own,
    transport: Transport,
    target: SocketAddr,
    origin: Origin,
) -> Option<Forbidden> {
    let address = inner(target.ip());
    let allowed = |it: IpAddr| policy.allow.iter().any(|prefix| prefix.contains(&it));
    if allowed(address) || allowed(target.ip()) {
        return None;
    }
    let is_circle = |it: IpAddr| own.answers(policy, transport, SocketAddr::new(it, target.port()));
    if is_circle(address) || target.ip() != address && is_circle(target.ip()) {
        return Some(Forbidden::OwnListener);
    }
    match origin {
        Origin::File => None,
        Origin::Name => by_kind(address),
    }
}

fn by_kind(address: IpAddr) -> Option<Forbidden> {
    if METADATA.contains(&address) {
        return Some(Forbidden::Metadata);
    }
    let (link_local, unspecified, broadcast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[0]), v4.is_broadcast()),
        IpAddr::V6(v6) => (v6_link_local(v6), v6.is_unspecified(), false),
    };
    let kinds = [
        (address.is_loopback(), Forbidden::Loopback),
        (link_local, Forbidden::LinkLocal),
        (unspecified, Forbidden::Unspecified),
        (broadcast, Forbidden::Broadcast),
        (address.is_multicast(), Forbidden::Multicast),
    ];
    kinds.into_iter().find_map(|(is, why)| is.then_some(why))
}

/// `fe80::/10` (RFC 4291, 2.5.6).
fn v6_link_local(address: Ipv6Addr) -> bool {
    let [first, ..] = address.segments();
    first & 0xffc0 == 0xfe80
}

/// The IPv4 address inside an IPv6 one that stands for it: mapped (RFC 4291, 2.5.5.2), compatible (2.5.5.1), NAT64 (RFC
/// 6052, 2.1), 6to4 (RFC 3056, 2). A translator on the way would lead there.
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let octets = v6.octets();
    let [a, b, c, d] = match octets {
        [0x20, 0x02, a, b, c, d, ..] => [a, b, c, d],
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => [a, b, c, d],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => [a, b, c, d],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if a != 0 => [a, b, c, d], // :: and ::1 are themselves
        _ => return address,
    };
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
#[path = "forbidden_tests.rs"]
mod tests;
