//! Cloudflare's Simple Proxy Protocol: 38 bytes before the payload of each datagram, in both directions (Cloudflare Spectrum,
//! "Simple Proxy Protocol Header").

use std::net::SocketAddr;

use super::endpoints::{as_v6, Endpoints};
use super::header::{Command, HeaderRefusal, HeaderTransport, ProxyHeader};
use super::octets::{array_at, u16_at};
use super::tlv::Tlvs;

/// What every header begins with.
pub const MAGIC: [u8; 2] = [0x56, 0xec];

/// The length of a header.
pub const LENGTH: usize = 38;

/// Reads the header of one datagram; the payload begins at [`LENGTH`].
///
/// # Errors
/// Another beginning, and a datagram that ends within the header.
pub fn parse_datagram(datagram: &[u8]) -> Result<ProxyHeader, HeaderRefusal> {
    if !datagram.starts_with(&MAGIC) {
        return Err(HeaderRefusal::SppMissing);
    }
    let addresses = endpoints(datagram).ok_or(HeaderRefusal::SppCut)?.pair();
    Ok(ProxyHeader {
        command: Command::Proxy,
        transport: HeaderTransport::Datagram,
        addresses: Some(addresses),
        tlvs: Tlvs::default(),
    })
}

/// The header for a client. The answer of a backend to Cloudflare carries it too, with the same addresses in the same places.
#[must_use]
pub fn build(client: SocketAddr, destination: SocketAddr) -> [u8; LENGTH] {
    let (client, destination) = (as_v6(client), as_v6(destination));
    let mut header = [0; LENGTH];
    let fields = MAGIC
        .into_iter()
        .chain(client.ip().octets())
        .chain(destination.ip().octets())
        .chain(client.port().to_be_bytes())
        .chain(destination.port().to_be_bytes());
    for (place, byte) in header.iter_mut().zip(fields) {
        *place = byte;
    }
    header
}

fn endpoints(datagram: &[u8]) -> Option<Endpoints> {
    let (client, destination) = (array_at(datagram, 2)?, array_at(datagram, 18)?);
    Some(Endpoints::of_octets(client, u16_at(datagram, 34)?, destination, u16_at(datagram, 36)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_fields_stand_where_the_document_puts_them() {
        let header = build(address("192.0.2.1:4660"), address("[2001:db8::2]:443"));
        assert_eq!(header[..2], MAGIC);
        assert_eq!(header[2..18], "::ffff:192.0.2.1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(header[18..34], "2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(header[34..], [0x12, 0x34, 0x01, 0xbb]);
    }

    #[test]
    fn what_was_built_is_read_and_ipv4_stays_ipv4() {
        for (client, destination) in [
            (address("192.0.2.1:1"), address("198.51.100.1:2")),
            (address("[2001:db8::1]:65535"), address("[2001:db8::2]:0")),
        ] {
            let read = parse_datagram(&build(client, destination)).unwrap();
            assert_eq!(read.addresses, Some((client, destination)));
            assert_eq!((read.command, read.transport), (Command::Proxy, HeaderTransport::Datagram));
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let header = build(address("192.0.2.1:1"), address("198.51.100.1:2"));
        for cut in 0..LENGTH {
            let refusal = if cut < 2 { HeaderRefusal::SppMissing } else { HeaderRefusal::SppCut };
            assert_eq!(parse_datagram(&header[..cut]), Err(refusal), "{cut}");
        }
    }
}
