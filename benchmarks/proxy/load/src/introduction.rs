//! A PROXY header (version 2, IPv4) as a proxy in front would send it: each connection is another client's.

use std::net::{Ipv4Addr, SocketAddr};

pub const LENGTH: usize = 28;

/// Counts clients: the addresses of a /16, and ports.
pub struct Introductions {
    network: Ipv4Addr,
    count: u32,
}

impl Introductions {
    pub fn of(network: Ipv4Addr) -> Self {
        Self { network, count: 0 }
    }

    pub fn next(&mut self, to: SocketAddr) -> [u8; LENGTH] {
        self.count = self.count.wrapping_add(1);
        let [a, b, _, _] = self.network.octets();
        let host = (self.count % 60_000 + 256) as u16;
        let port = (self.count / 60_000 % 60_000) as u16 + 2_000;
        let destination = match to {
            SocketAddr::V4(to) => to.ip().octets(),
            SocketAddr::V6(_) => [192, 0, 2, 1],
        };
        let mut header = [0; LENGTH];
        header[..12].copy_from_slice(b"\r\n\r\n\0\r\nQUIT\n");
        header[12..16].copy_from_slice(&[0x21, 0x11, 0, 12]); // version 2, PROXY; TCP over IPv4; 12 bytes follow
        header[16..18].copy_from_slice(&[a, b]);
        header[18..20].copy_from_slice(&host.to_be_bytes());
        header[20..24].copy_from_slice(&destination);
        header[24..26].copy_from_slice(&port.to_be_bytes());
        header[26..28].copy_from_slice(&to.port().to_be_bytes());
        header
    }
}
