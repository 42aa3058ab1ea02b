//! Addresses with ports, ports, and prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::{de, Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

use super::Notation;

/// An address with one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint(pub(crate) SocketAddr);

impl Notation for Endpoint {
    const FORMAT: &'static str = "endpoint";
    const ALLOWED: &'static str = "an address and a port are allowed, as in \"192.0.2.53:53\" or \"[2001:db8::53]:53\"";
    const EXAMPLES: &'static [&'static str] = &["127.0.0.1:9464", "[::1]:9464"];

    fn read(text: &str) -> Result<Self, String> {
        let (address, port) = split(text)?;
        Ok(Self(SocketAddr::new(self::address(address)?, self::port(port)?)))
    }
}

/// An address with one port or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) address: IpAddr,
    pub(crate) ports: RangeInclusive<u16>,
}

impl Endpoints {
    /// One for each port.
    pub(crate) fn each(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ports.clone().map(|port| SocketAddr::new(self.address, port))
    }
}

impl Notation for Endpoints {
    const FORMAT: &'static str = "endpoints";
    const ALLOWED: &'static str = "an address of this host and a port or a range of ports are allowed, as in \
         \"0.0.0.0:443\", \"[::]:443\" or \"0.0.0.0:8000-8099\"";
    const EXAMPLES: &'static [&'static str] = &["0.0.0.0:443", "[::]:443", "0.0.0.0:8000-8099"];

    fn read(text: &str) -> Result<Self, String> {
        let (address, ports) = split(text)?;
        let address = self::address(address)?;
        if address.is_multicast() {
            return Err(format!("{address} is the address of a group"));
        }
        Ok(Self { address, ports: port_or_range(ports)? })
    }
}

/// A port as a number, or a range of them as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) RangeInclusive<u16>);

impl Notation for Ports {
    const FORMAT: &'static str = "port-range";
    const ALLOWED: &'static str =
        "a port from 1 to 65535, as in 443, or a range as text, as in \"8000-8099\", is allowed";
    const EXAMPLES: &'static [&'static str] = &["8000-8099"];

    fn read(text: &str) -> Result<Self, String> {
        if text.contains('-') {
            range(text).map(Self)
        } else {
            port(text)?;
            Err(format!("{text:?} is one port as text, which is written as a number"))
        }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl de::Visitor<'_> for Reader {
            type Value = Ports;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(Ports::ALLOWED)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Ports, E> {
                let port = u16::try_from(number).map_err(E::custom)?;
                Ok(Ports(port..=port))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ports, E> {
                Ports::read(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Ports {
    fn schema_name() -> Cow<'static, str> {
        Self::FORMAT.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "format": Self::FORMAT, "examples": Self::EXAMPLES},
        ]})
    }
}

impl Notation for IpNet {
    const FORMAT: &'static str = "prefix";
    const ALLOWED: &'static str =
        "a prefix is allowed, as in \"10.144.0.0/16\", \"203.0.113.7/32\" or \"2001:db8::/32\"";
    const EXAMPLES: &'static [&'static str] = &["10.144.0.0/16", "203.0.113.7/32", "2001:db8::/32"];

    fn read(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let whole = if address.is_ipv4() { 32 } else { 128 };
            return Err(format!("{text:?} has no length; one address is \"{address}/{whole}\""));
        }
        let net: Self = text.parse().map_err(|_| format!("{text:?} is not a prefix"))?;
        if net.addr() != net.network() {
            return Err(format!("{text:?} has bits beyond its length; the prefix is \"{}\"", net.trunc()));
        }
        match net {
            Self::V6(v6) if is_mapped(v6.addr()) => {
                Err(format!("{text:?} holds IPv4 addresses in IPv6's form, which clients never have here"))
            }
            Self::V4(_) | Self::V6(_) => Ok(net),
        }
    }
}

/// At the last colon.
pub(super) fn split(text: &str) -> Result<(&str, &str), String> {
    text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port"))
}

/// IPv6 in brackets, IPv4 without.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let v6: Ipv6Addr = inside.parse().map_err(|_| format!("{inside:?} is not an IPv6 address"))?;
        if is_mapped(v6) {
            return Err(format!("{inside:?} is an IPv4 address in IPv6's form"));
        }
        return Ok(v6.into());
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("the IPv6 address {text:?} stands without brackets"));
    }
    let v4: Ipv4Addr = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
    Ok(v4.into())
}

fn is_mapped(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0, 0, 0, 0, 0, 0xffff, ..])
}

/// From 1 to 65535, in plain digits.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let is_plain = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if is_plain => Ok(port),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a port from 1 to 65535")),
    }
}

fn port_or_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    if text.contains('-') {
        return range(text);
    }
    let port = port(text)?;
    Ok(port..=port)
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, ""));
    let (first, last) = (port(first)?, port(last)?);
    if first >= last {
        return Err(format!("the range {text:?} does not go upwards"));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let one = Endpoints::read("0.0.0.0:443").unwrap();
        assert_eq!(one.each().map(|each| each.to_string()).collect::<Vec<_>>(), ["0.0.0.0:443"]);
        let three = Endpoints::read("[2001:db8::1]:65533-65535").unwrap();
        let each: Vec<_> = three.each().map(|each| each.to_string()).collect();
        assert_eq!(each, ["[2001:db8::1]:65533", "[2001:db8::1]:65534", "[2001:db8::1]:65535"]);
        assert_eq!(Endpoint::read("[::1]:53"), Ok(Endpoint("[::1]:53".parse().unwrap())));
    }

    #[test]
    fn wrong_endpoints_are_refused_with_their_reason() {
        for (text, said) in [
            ("", "has no port"),
            ("0.0.0.0", "has no port"),
            ("0.0.0.0:", "\"\" is not a port"),
            ("0.0.0.0:0", "\"0\" is not a port"),
            ("0.0.0.0:0443", "\"0443\" is not a port"),
            ("0.0.0.0:+1", "\"+1\" is not a port"),
            ("0.0.0.0:65536", "\"65536\" is not a port"),
            ("0.0.0.0:8099-8000", "does not go upwards"),
            ("0.0.0.0:80-80", "does not go upwards"),
            ("0.0.0.0:80-", "\"\" is not a port"),
            ("0.0.0.0:1-2-3", "\"2-3\" is not a port"),
            ("*:443", "\"*\" is not an address"),
            (":443", "\"\" is not an address"),
            ("localhost:443", "\"localhost\" is not an address"),
            ("::1:443", "without brackets"),
            ("[::ffff:192.0.2.1]:443", "IPv4 address in IPv6's form"),
            ("[fe80::1%eth0]:443", "not an IPv6 address"),
            ("[192.0.2.1]:443", "not an IPv6 address"),
            ("224.0.0.1:443", "address of a group"),
        ] {
            let fault = Endpoints::read(text).expect_err(text);
            assert!(fault.contains(said), "{text:?}: {fault}");
        }
        assert!(Endpoint::read("127.0.0.1:1-2").is_err());
    }

    #[test]
    fn prefixes_are_read_strictly() {
        assert_eq!(IpNet::read("10.144.0.0/16"), Ok("10.144.0.0/16".parse().unwrap()));
        for (text, said) in [
            ("10.144.0.1", "one address is \"10.144.0.1/32\""),
            ("2001:db8::1", "one address is \"2001:db8::1/128\""),
            ("10.144.0.1/16", "the prefix is \"10.144.0.0/16\""),
            ("10.144.0.0/33", "is not a prefix"),
            ("home", "is not a prefix"),
            ("::ffff:10.0.0.0/104", "IPv4 addresses in IPv6's form"),
        ] {
            let fault = <IpNet as Notation>::read(text).expect_err(text);
            assert!(fault.contains(said), "{text:?}: {fault}");
        }
    }
}
