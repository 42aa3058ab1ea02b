//! Version 1 of the PROXY protocol: one line of text, for TCP only (PROXY protocol, 2.1).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::endpoints::Endpoints;
use super::header::{Command, HeaderRefusal, HeaderTransport, ProxyHeader};
use super::tlv::Tlvs;
use super::Parse;

/// What every line begins with. The space that must follow is left to the parser: what begins so is a line, be it broken.
pub const BEGINNING: &[u8; 5] = b"PROXY";

/// The longest line, with its CRLF.
pub const MAX_LENGTH: usize = 107;

/// Reads one line. Nothing is decoded before its end is here, as the specification asks.
#[must_use]
pub fn parse(input: &[u8]) -> Parse<ProxyHeader, HeaderRefusal> {
    let beginning = input.get(..BEGINNING.len()).unwrap_or(input);
    if !BEGINNING.starts_with(beginning) {
        return Parse::Refuse(HeaderRefusal::V1Missing);
    }
    let window = input.get(..MAX_LENGTH).unwrap_or(input);
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if window.len() == MAX_LENGTH { Parse::Refuse(HeaderRefusal::V1TooLong) } else { Parse::NeedMore };
    };
    match (window.get(end), window.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => match line(window.get(..end).unwrap_or_default()) {
            Ok(value) => Parse::Done { value, consumed: end + 2 },
            Err(refusal) => Parse::Refuse(refusal),
        },
        (Some(b'\r'), None) if end + 1 < MAX_LENGTH => Parse::NeedMore,
        (Some(b'\r'), None) => Parse::Refuse(HeaderRefusal::V1TooLong),
        _ => Parse::Refuse(HeaderRefusal::V1LineEnd),
    }
}

/// The line for a TCP connection. Addresses of two families are both written as IPv6.
#[must_use]
pub fn build(client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match Endpoints::of(client, destination) {
        Endpoints::V4 { client, destination } => {
            let (client_port, destination_port) = (client.port(), destination.port());
            format!("PROXY TCP4 {} {} {client_port} {destination_port}\r\n", client.ip(), destination.ip())
        }
        Endpoints::V6 { client, destination } => {
            let (client_port, destination_port) = (client.port(), destination.port());
            let (client, destination) = (hexadecimal(*client.ip()), hexadecimal(*destination.ip()));
            format!("PROXY TCP6 {client} {destination} {client_port} {destination_port}\r\n")
        }
    }
    .into_bytes()
}

fn line(text: &[u8]) -> Result<ProxyHeader, HeaderRefusal> {
    let mut fields = text.split(|byte| *byte == b' ');
    let (_beginning, protocol) = match (fields.next(), fields.next()) {
        (Some(beginning), Some(protocol)) if beginning == BEGINNING && !protocol.is_empty() => (beginning, protocol),
        _ => return Err(HeaderRefusal::V1Fields),
    };
    match protocol {
        b"TCP4" => addresses::<Ipv4Addr>(fields),
        b"TCP6" => addresses::<Ipv6Addr>(fields),
        // "The receiver must ignore anything presented before the CRLF."
        b"UNKNOWN" => Ok(ProxyHeader::without_addresses(Command::Proxy, HeaderTransport::Unspecified)),
        _ => Err(HeaderRefusal::V1Protocol),
    }
}

fn addresses<'a, Ip>(mut fields: impl Iterator<Item = &'a [u8]>) -> Result<ProxyHeader, HeaderRefusal>
where
    Ip: FromStr,
    SocketAddr: From<(Ip, u16)>,
{
    let mut next = || fields.next().filter(|field| !field.is_empty()).ok_or(HeaderRefusal::V1Fields);
    let (client, destination, client_port, destination_port) = (next()?, next()?, next()?, next()?);
    if fields.next().is_some() {
        return Err(HeaderRefusal::V1Fields);
    }
    let (client, destination) = (address::<Ip>(client)?, address::<Ip>(destination)?);
    let client = SocketAddr::from((client, port(client_port)?));
    let destination = SocketAddr::from((destination, port(destination_port)?));
    Ok(ProxyHeader {
        command: Command::Proxy,
        transport: HeaderTransport::Stream,
        addresses: Some(Endpoints::of(client, destination).pair()),
        tlvs: Tlvs::default(),
    })
}

/// The standard library's reader is as strict as the specification on decimal parts; it also takes `::ffff:192.0.2.1`, which
/// `inet_ntop` writes and so HAProxy sends.
fn address<Ip: FromStr>(field: &[u8]) -> Result<Ip, HeaderRefusal> {
    std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()).ok_or(HeaderRefusal::V1Address)
}

/// `u16::from_str` would take a sign and leading zeros.
fn port(field: &[u8]) -> Result<u16, HeaderRefusal> {
    match field {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()),
        _ => None,
    }
    .ok_or(HeaderRefusal::V1Port)
}

/// The specification has hexadecimal groups only, where `Display` ends a v4-mapped address in dotted decimal.
fn hexadecimal(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests;
