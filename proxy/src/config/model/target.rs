//! Targets of backends, how they are written, and which of them lead nowhere or back here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// One candidate of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who.
    pub host: Host,
    /// At which port.
    pub port: TargetPort,
}

impl Target {
    /// Whether clients choose its name or its port. Then it is many places: that one of them fails says little of the
    /// others, and there is none to check.
    #[must_use]
    pub fn is_chosen_by_clients(&self) -> bool {
        self.port == TargetPort::Original || self.is_host_chosen_by_clients()
    }

    /// Whether clients choose its name.
    #[must_use]
    pub fn is_host_chosen_by_clients(&self) -> bool {
        let is_captured = |part: &NamePart| matches!(part, NamePart::Capture(_));
        matches!(&self.host, Host::Name(parts) if parts.iter().any(is_captured))
    }
}

/// A host of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address of the file.
    Address(IpAddr),
    /// A name to resolve; `$capture` and `${capture}` stand for what the rule's regex captured.
    Name(Vec<NamePart>),
}

/// A piece of a target's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePart {
    /// As it stands in the file.
    Literal(String),
    /// What the named group of the rule's regex captured.
    Capture(String),
}

/// A port of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetPort {
    /// As it stands in the file.
    Fixed(u16),
    /// `$port`: that of the original destination.
    Original,
}

/// Which addresses are not dialled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetPolicy {
    /// Exceptions from what `route::forbidden` keeps names from.
    pub allow: Vec<IpNet>,
    /// Addresses that lead to this host though no interface has them.
    pub own: Vec<IpNet>,
}

impl TargetPolicy {
    /// Whether the file says that the address leads to this host.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.iter().any(|prefix| prefix.contains(&address))
    }

    /// Whether a dial to `target` comes back to a listener at `endpoint`, by an address that the file says leads here.
    #[must_use]
    pub fn brings_back(&self, target: SocketAddr, endpoint: SocketAddr) -> bool {
        may_meet(target, endpoint) && self.is_own(target.ip())
    }
}

/// Whether `target`, if it led to this host, would arrive at `endpoint`. To which of the host's addresses a translator leads is
/// not known; it keeps the port and the family, and no way from outside ends at loopback.
#[must_use]
pub fn may_meet(target: SocketAddr, endpoint: SocketAddr) -> bool {
    endpoint.port() == target.port() && endpoint.is_ipv4() == target.is_ipv4() && !endpoint.ip().is_loopback()
}

/// As the file has it.
impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V4(v4)) => write!(out, "{v4}:")?,
            Host::Address(IpAddr::V6(v6)) => write!(out, "[{v6}]:")?,
            Host::Name(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    let next = parts.get(index + 1);
                    let goes_on = matches!(next, Some(NamePart::Literal(text)) if text.starts_with(goes_on_with));
                    match part {
                        NamePart::Literal(text) => out.write_str(text)?,
                        NamePart::Capture(name) if goes_on => write!(out, "${{{name}}}")?,
                        NamePart::Capture(name) => write!(out, "${name}")?,
                    }
                }
                out.write_str(":")?;
            }
        }
        match self.port {
            TargetPort::Fixed(port) => write!(out, "{port}"),
            TargetPort::Original => out.write_str("$port"),
        }
    }
}

fn goes_on_with(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}
