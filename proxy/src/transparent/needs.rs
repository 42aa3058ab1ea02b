//! Where transparent backends may be, as the configuration has it: what decides which rules of the kernel are needed. Pure.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::model::{Arrival, Backend, Config, Host, Source, TargetPolicy};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the names say it
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Where a backend is, seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// 127.0.0.0/8 or ::1.
    Loopback,
    /// Any other address of this host.
    LocalAddress,
    /// A container's namespace or another host. A TPROXY listener needs the same: packets of others delivered here.
    Elsewhere,
}

impl Place {
    /// All.
    pub const ALL: [Self; 3] = [Self::Loopback, Self::LocalAddress, Self::Elsewhere];
}

/// Where transparent backends may be. A set of six bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Needs(u8);

impl Needs {
    /// All that any configuration can need.
    pub const ALL: Self = Self(0b11_1111);

    /// What a configuration needs on a host of these addresses.
    #[must_use]
    pub fn of(config: &Config, is_local: impl Fn(IpAddr) -> bool) -> Self {
        let mut needs = Self::default();
        for backend in config.backends.iter().filter(|backend| matches!(backend.source, Source::Client { .. })) {
            needs = needs.and(of_backend(backend, &config.targets, &is_local));
        }
        for listener in config.listeners.iter().filter(|listener| listener.arrival == Arrival::Tproxy) {
            for endpoint in listener.tcp.iter().chain(&listener.udp) {
                needs = needs.with(Place::Elsewhere, Family::of(endpoint.ip()));
            }
        }
        needs
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, place: Place, family: Family) -> Self {
        Self(self.0 | bit(place, family))
    }

    /// These and those.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self((self.0 | others.0) & Self::ALL.0)
    }

    /// Whether backends of this family may be there.
    #[must_use]
    pub fn has(self, place: Place, family: Family) -> bool {
        self.0 & bit(place, family) != 0
    }

    /// Whether backends of any family may be there.
    #[must_use]
    pub fn has_place(self, place: Place) -> bool {
        Family::ALL.iter().any(|family| self.has(place, *family))
    }

    /// Whether nothing is needed.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As a number for names.
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// From such a number.
    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }
}

fn bit(place: Place, family: Family) -> u8 {
    let of_place = match place {
        Place::Loopback => 0b00_0001,
        Place::LocalAddress => 0b00_0100,
        Place::Elsewhere => 0b01_0000,
    };
    match family {
        Family::V4 => of_place,
        Family::V6 => of_place << 1,
    }
}

fn of_backend(backend: &Backend, policy: &TargetPolicy, is_local: &impl Fn(IpAddr) -> bool) -> Needs {
    let mut needs = Needs::default();
    for target in &backend.targets {
        match &target.host {
            Host::Address(ip) if ip.to_canonical().is_loopback() => {
                needs = needs.with(Place::Loopback, Family::of(*ip));
            }
            Host::Address(ip) if is_local(*ip) => needs = needs.with(Place::LocalAddress, Family::of(*ip)),
            Host::Address(ip) => needs = needs.with(Place::Elsewhere, Family::of(*ip)),
            // A name may lead anywhere that names may lead to.
            Host::Name(_) => {
                for family in Family::ALL {
                    needs = needs.with(Place::LocalAddress, family).with(Place::Elsewhere, family);
                }
                for allowed in policy.allow.iter().filter(|allowed| holds_loopback(allowed)) {
                    needs = needs.with(Place::Loopback, Family::of(allowed.addr()));
                }
            }
        }
    }
    needs
}

fn holds_loopback(net: &ipnet::IpNet) -> bool {
    net.addr().is_loopback()
        || net.contains(&IpAddr::from([127, 0, 0, 1]))
        || net.contains(&IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration with one backend and one listener.
    fn of(targets: &str, more: &str) -> Vec<(Place, Family)> {
        let text = format!(
            "[listener.l]\ntcp = [\"0.0.0.0:443\"]\n[[rule]]\nto = \"b\"\n[backend.b]\ntargets = [{targets}]\n{more}"
        );
        let config = crate::config::parse(&text, "c.toml").unwrap_or_else(|faults| panic!("{faults:?}"));
        let needs = Needs::of(&config, |ip| ip.to_string() == "192.0.2.1");
        let all = Place::ALL.into_iter().flat_map(|place| Family::ALL.map(|family| (place, family)));
        all.filter(|(place, family)| needs.has(*place, *family)).collect()
    }

    #[test]
    fn where_a_backend_is_decides_what_it_needs() {
        let client = "source = \"client\"\n";
        let both = |place| Family::ALL.map(|family| (place, family));
        assert_eq!(of("\"127.0.0.1:80\"", ""), []);
        assert_eq!(of("\"127.8.8.8:80\"", client), [(Place::Loopback, Family::V4)]);
        assert_eq!(of("\"[::1]:80\"", client), [(Place::Loopback, Family::V6)]);
        assert_eq!(of("\"192.0.2.1:80\"", client), [(Place::LocalAddress, Family::V4)]);
        assert_eq!(of("\"192.0.2.2:80\"", client), [(Place::Elsewhere, Family::V4)]);
        assert_eq!(of("\"[2001:db8::1]:80\"", client), [(Place::Elsewhere, Family::V6)]);
        let by_name = [both(Place::LocalAddress), both(Place::Elsewhere)].concat();
        assert_eq!(of("\"nas.lan:80\"", client), by_name);
        let to_loopback = format!("{client}[targets]\nallow = [\"127.0.0.0/8\"]\n");
        assert_eq!(of("\"nas.lan:80\"", &to_loopback), [vec![(Place::Loopback, Family::V4)], by_name].concat());
        let tproxy = "[listener.t]\ntcp = [\"[::]:8443\"]\narrival = \"tproxy\"\n";
        assert_eq!(of("\"127.0.0.1:80\"", tproxy), [(Place::Elsewhere, Family::V6)]);
    }

    #[test]
    fn needs_survive_being_a_number() {
        for bits in 0..=Needs::ALL.bits() {
            assert_eq!(Needs::from_bits(bits).bits(), bits);
        }
        assert_eq!(Needs::from_bits(0xff), Needs::ALL);
    }
}
