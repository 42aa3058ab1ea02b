//! Minecraft: the handshake of the Java edition, whose host is the name; the ping of its elder releases; and RakNet, over
//! which the Bedrock edition speaks and which names nobody.

use super::host_name::host_name;
use super::scan::{named, nameless, require, settled, Scan, Stop};
use super::{Found, Sniffed};

/// A proxy before this one may have put the client's address and profile behind the host.
const LONGEST_HOST: u32 = 2048;
/// Packet id, protocol, length of the host, port, next state.
const MOST_AROUND: u32 = 1 + 5 + 3 + 2 + 1;
const RAKNET: [u8; 16] = [0, 0xff, 0xff, 0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfd, 0xfd, 0xfd, 0xfd, 0x12, 0x34, 0x56, 0x78];

/// The begin of an elder ping; up to its third byte it may be the length of a handshake.
const PING: [u8; 3] = [0xfe, 1, 0xfa];

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    settled(if bytes.starts_with(&PING) { elder_ping(bytes) } else { handshake(bytes) })
}

/// Whether it is an elder ping, of which some end before they name a host.
pub(crate) fn is_certain(bytes: &[u8]) -> bool {
    bytes.starts_with(&PING) && elder_ping(bytes) != Err(Stop::No)
}

/// A whole datagram: an unconnected ping, or the first request for a connection.
pub(crate) fn sniff_datagram(datagram: &[u8]) -> Sniffed {
    nameless(raknet(datagram))
}

fn handshake(bytes: &[u8]) -> Result<Found, Stop> {
    let mut scan = Scan::new(bytes);
    let length = varint(&mut scan, 3)?;
    require((7..=LONGEST_HOST + MOST_AROUND).contains(&length))?;
    scan.literal(&[0])?;
    let before = scan.rest().len();
    varint(&mut scan, 5)?; // of the protocol; -1 for who only wants to know
    let host_length = varint(&mut scan, 3)?;
    let read = 1 + before - scan.rest().len();
    require((1..=LONGEST_HOST).contains(&host_length))?;
    let after_host = 2 + 1; // port, next state
    require(u32::try_from(read).is_ok_and(|read| read + host_length + after_host == length))?;
    let host = scan.take(usize::try_from(host_length).unwrap_or(usize::MAX))?;
    scan.u16()?;
    scan.byte_of(|next| (1..=3).contains(&next))?; // status, login, transfer
    Ok(named(host_name(first_part(host))))
}

/// Mod loaders and proxies put their marks behind a NUL (`\0FML\0`) or three slashes.
fn first_part(host: &[u8]) -> &[u8] {
    let end = host.iter().position(|byte| matches!(byte, 0 | b'/'));
    host.get(..end.unwrap_or(host.len())).unwrap_or_default()
}

/// The ping of release 1.6: text in UTF-16, each with its length in characters.
fn elder_ping(bytes: &[u8]) -> Result<Found, Stop> {
    let mut scan = Scan::new(bytes);
    scan.literal(&PING)?;
    scan.literal(&[0, 11])?;
    for byte in b"MC|PingHost" {
        scan.literal(&[0, *byte])?;
    }
    let length = scan.u16()?;
    scan.u8()?; // of the protocol
    let characters = scan.u16()?;
    require(characters <= 255 && u32::from(length) == 7 + 2 * u32::from(characters))?;
    let host = scan.take(2 * usize::from(characters))?;
    scan.u32()?; // the port
    let host: Vec<u16> =
        host.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte))).collect();
    Ok(named(host_name(String::from_utf16_lossy(&host).as_bytes())))
}

/// Seven bits a byte, the lowest first.
fn varint(scan: &mut Scan<'_>, most: u32) -> Result<u32, Stop> {
    let mut number = 0;
    for index in 0..most {
        let byte = scan.u8()?;
        number |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Stop::No)
}

fn raknet(datagram: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(datagram);
    if scan.byte_of(|kind| matches!(kind, 1 | 2 | 5))? != 5 {
        scan.take(8)?; // the time, in pings
    }
    scan.literal(&RAKNET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn hello(protocol: &[u8], host: &[u8], next: u8) -> Vec<u8> {
        let length = u8::try_from(host.len()).unwrap();
        let inner = [&[0], protocol, &[length], host, &[0x63, 0xdd], &[next]].concat();
        [&[u8::try_from(inner.len()).unwrap()][..], &inner].concat()
    }

    #[test]
    fn the_host_is_the_name_without_marks() {
        for (host, name) in [
            (&b"Mc.Example"[..], Some("mc.example")),
            (b"mc.example.", Some("mc.example")),
            (b"mc.example\0FML2\0", Some("mc.example")),
            (b"mc.example///192.0.2.1///1", Some("mc.example")),
            (b"192.0.2.1", None),
        ] {
            assert_eq!(cut_everywhere(sniff, &hello(&[0xfd, 5], host, 2)), yes(name));
        }
        assert_eq!(cut_everywhere(sniff, &hello(&[0xff, 0xff, 0xff, 0xff, 0x0f], b"a", 1)), yes(Some("a")));
    }

    #[test]
    fn lengths_and_states_must_fit() {
        let mut short = hello(&[5], b"a.example", 2);
        short[0] -= 1;
        let mut long = hello(&[5], b"a.example", 2);
        long[0] += 1;
        for bytes in
            [short, hello(&[5], b"a", 0), hello(&[5], b"a", 4), hello(&[0xff; 5], b"a", 1), vec![7, 1], vec![6]]
        {
            assert_eq!(sniff(&bytes), Sniffed::No, "{bytes:?}");
        }
        assert_eq!(sniff(&[0xff, 0xff, 0xff]), Sniffed::No);
    }

    #[test]
    fn elder_pings_have_a_host_too() {
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        let host = utf16("mc.example");
        let length = u8::try_from(7 + host.len()).unwrap();
        let begin = [&[0xfe, 1, 0xfa, 0, 11][..], &utf16("MC|PingHost"), &[0, length, 78, 0, 10], &host].concat();
        let whole = [&begin[..], &[0, 0, 0x63, 0xdd]].concat();
        assert_eq!(cut_everywhere(sniff, &whole), yes(Some("mc.example")));
        assert_eq!(sniff(&[0xfe, 1, 0xfb]), Sniffed::No);
        assert!(is_certain(&PING) && !is_certain(&PING[..2]) && sniff(&PING) == Sniffed::NeedMore);
        let other = [&PING[..], &[0, 12]].concat();
        assert!(!is_certain(&other) && sniff(&other) == Sniffed::No, "what it denies is not certain");
    }

    #[test]
    fn bedrock_is_known_by_the_magic_of_raknet() {
        let ping = [&[1][..], &[0; 8], &RAKNET, &[0; 8]].concat();
        let request = [&[5][..], &RAKNET, &[11, 0, 0]].concat();
        assert_eq!([sniff_datagram(&ping), sniff_datagram(&request)], [yes(None), yes(None)]);
        assert_eq!(sniff_datagram(&[6]), Sniffed::No);
        assert_eq!(sniff_datagram(&[5, 0, 0xff, 0xfe]), Sniffed::No);
    }
}
