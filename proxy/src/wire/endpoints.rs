//! The two endpoints that a header carries, in the one family that it has for both.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Client and original destination in one family: IPv4 when both are, be it v4-mapped (RFC 4291, 2.5.5.2), else IPv6. So one
/// client has one spelling, whether it came through a dual-stack socket or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoints {
    V4 { client: SocketAddrV4, destination: SocketAddrV4 },
    V6 { client: SocketAddrV6, destination: SocketAddrV6 },
}

impl Endpoints {
    /// Flow labels and zones are dropped: no header has a place for them.
    pub(crate) fn of(client: SocketAddr, destination: SocketAddr) -> Self {
        match (as_v4(client), as_v4(destination)) {
            (Some(client), Some(destination)) => Self::V4 { client, destination },
            (None | Some(_), None) | (None, Some(_)) => {
                Self::V6 { client: as_v6(client), destination: as_v6(destination) }
            }
        }
    }

    /// Out of the fields of a header that has 16 bytes for each address.
    pub(crate) fn of_octets(client: [u8; 16], client_port: u16, destination: [u8; 16], destination_port: u16) -> Self {
        Self::of(
            SocketAddr::from((Ipv6Addr::from(client), client_port)),
            SocketAddr::from((Ipv6Addr::from(destination), destination_port)),
        )
    }

    pub(crate) fn pair(self) -> (SocketAddr, SocketAddr) {
        match self {
            Self::V4 { client, destination } => (client.into(), destination.into()),
            Self::V6 { client, destination } => (client.into(), destination.into()),
        }
    }
}

/// As an IPv6 endpoint; IPv4 as v4-mapped.
pub(crate) fn as_v6(address: SocketAddr) -> SocketAddrV6 {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0),
    }
}

fn as_v4(address: SocketAddr) -> Option<SocketAddrV4> {
    let ip: Option<Ipv4Addr> = match address {
        SocketAddr::V4(v4) => Some(*v4.ip()),
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped(),
    };
    ip.map(|ip| SocketAddrV4::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(client: &str, destination: &str) -> (String, String) {
        let (client, destination) = Endpoints::of(client.parse().unwrap(), destination.parse().unwrap()).pair();
        (client.to_string(), destination.to_string())
    }

    #[test]
    fn both_mapped_are_ipv4_and_one_mapped_is_ipv6() {
        let cases = [
            ("[::ffff:192.0.2.1]:1", "[::ffff:198.51.100.1]:2", "192.0.2.1:1", "198.51.100.1:2"),
            ("192.0.2.1:1", "[::ffff:198.51.100.1]:2", "192.0.2.1:1", "198.51.100.1:2"),
            ("192.0.2.1:1", "[2001:db8::2]:2", "[::ffff:192.0.2.1]:1", "[2001:db8::2]:2"),
            ("[2001:db8::1]:1", "198.51.100.1:2", "[2001:db8::1]:1", "[::ffff:198.51.100.1]:2"),
            ("[fe80::1%3]:1", "[2001:db8::2]:2", "[fe80::1]:1", "[2001:db8::2]:2"),
        ];
        for (client, destination, client_then, destination_then) in cases {
            assert_eq!(pair(client, destination), (client_then.to_owned(), destination_then.to_owned()));
        }
    }
}
