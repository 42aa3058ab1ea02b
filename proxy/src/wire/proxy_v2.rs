//! Version 2 of the PROXY protocol: binary, for connections and datagrams (PROXY protocol, 2.2).

use std::net::{Ipv4Addr, SocketAddr};

use super::endpoints::Endpoints;
use super::header::{Command, HeaderRefusal, HeaderTransport, ProxyHeader};
use super::octets::{array_at, u16_at};
use super::signature::{self, HopKey, Stamp};
use super::tlv::{self, Tlvs};
use super::Parse;

/// What every header begins with: a beginning that no other protocol has.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header that is read, in all. The specification means headers to fit 536 bytes, but since 2026 one may hold the
/// client's certificate, a few kilobytes at most; the two length bytes could ask for sixteen times as much of each peer.
pub const MAX_LENGTH: usize = 4096;

/// The header of a connection that is the sender's own, such as a health check.
pub const LOCAL: &[u8; 16] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// Lengths of the two addresses with their ports.
const INET: usize = 12;
const INET6: usize = 36;
const UNIX: usize = 216;

/// The longest names that can be meant: ALPN has one length byte (RFC 7301, 3.1), a host name 255 bytes (RFC 1035, 2.3.4).
const NAME_MAX: usize = 255;

/// Reads one header, by whichever transport it came. Each byte of the fixed part is judged when it comes, all else when the header is whole.
#[must_use]
pub fn parse(input: &[u8]) -> Parse<ProxyHeader, HeaderRefusal> {
    match measure(input) {
        Err(refusal) => Parse::Refuse(refusal),
        Ok(None) => Parse::NeedMore,
        Ok(Some(length)) => match input.get(..length).map(whole) {
            None => Parse::NeedMore,
            Some(Ok(value)) => Parse::Done { value, consumed: length },
            Some(Err(refusal)) => Parse::Refuse(refusal),
        },
    }
}

/// Reads the header of one datagram: what it says, and at which byte the payload begins. An empty payload is one too: a
/// client may send empty datagrams.
///
/// # Errors
/// Every fault of a header, a datagram that ends within it, and a header that names a client of TCP.
pub fn parse_datagram(datagram: &[u8]) -> Result<(ProxyHeader, usize), HeaderRefusal> {
    match parse(datagram) {
        Parse::Done { value, consumed } => Ok((value.not_of(HeaderTransport::Stream)?, consumed)),
        Parse::NeedMore => Err(HeaderRefusal::V2Cut),
        Parse::Refuse(refusal) => Err(refusal),
    }
}

/// The length of the whole header, once its fixed part is here and sound.
fn measure(input: &[u8]) -> Result<Option<usize>, HeaderRefusal> {
    let beginning = input.get(..SIGNATURE.len()).unwrap_or(input);
    if !SIGNATURE.starts_with(beginning) {
        return Err(HeaderRefusal::V2Missing);
    }
    let Some(&version_command) = input.get(12) else { return Ok(None) };
    let command = command(version_command)?;
    let Some(&family_transport) = input.get(13) else { return Ok(None) };
    let addresses = match command {
        Command::Local => 0, // "discard the protocol block including the family which is ignored"
        Command::Proxy => addresses_length(family_transport)?,
    };
    let Some(length) = u16_at(input, 14) else { return Ok(None) };
    let length = usize::from(length);
    if length < addresses {
        return Err(HeaderRefusal::V2AddressesCut(length));
    }
    if FIXED + length > MAX_LENGTH {
        return Err(HeaderRefusal::V2TooLong(FIXED + length));
    }
    Ok(Some(FIXED + length))
}

fn command(version_command: u8) -> Result<Command, HeaderRefusal> {
    match (version_command >> 4, version_command & 0x0f) {
        (2, 0) => Ok(Command::Local),
        (2, 1) => Ok(Command::Proxy),
        (2, other) => Err(HeaderRefusal::V2Command(other)),
        (other, _) => Err(HeaderRefusal::V2Version(other)),
    }
}

fn addresses_length(family_transport: u8) -> Result<usize, HeaderRefusal> {
    let (family, transport) = (family_transport >> 4, family_transport & 0x0f);
    let length = match family {
        0 => 0,
        1 => INET,
        2 => INET6,
        3 => UNIX,
        _ => return Err(HeaderRefusal::V2Family(family)),
    };
    match transport {
        1 | 2 => Ok(length),
        0 if family == 0 => Ok(length),
        _ => Err(HeaderRefusal::V2Transport(transport)),
    }
}

/// Reads a header that [`measure`] found sound, from its first byte to its last.
fn whole(header: &[u8]) -> Result<ProxyHeader, HeaderRefusal> {
    let (version_command, family_transport) = match header.get(12..14) {
        Some(&[version_command, family_transport]) => (version_command, family_transport),
        _ => return Err(HeaderRefusal::V2Cut),
    };
    let command = command(version_command)?;
    if command == Command::Local {
        return Ok(ProxyHeader::without_addresses(command, HeaderTransport::Unspecified));
    }
    let block = FIXED + addresses_length(family_transport)?;
    let tlvs = Tlvs::read(header.get(block..).unwrap_or_default())?;
    if let Some((at, said)) = tlvs.crc32c() {
        if said != checksum(header, block + at) {
            return Err(HeaderRefusal::Crc32cMismatch);
        }
    }
    let transport = match family_transport & 0x0f {
        1 => HeaderTransport::Stream,
        2 => HeaderTransport::Datagram,
        _ => HeaderTransport::Unspecified,
    };
    let addresses = match family_transport >> 4 {
        1 => inet(header).map(Endpoints::pair),
        2 => inet6(header).map(Endpoints::pair),
        _ => None, // valid, and not ours to use: "automatically falls back to the UNSPEC mode"
    };
    Ok(ProxyHeader { command, transport, addresses, tlvs })
}

fn inet(header: &[u8]) -> Option<Endpoints> {
    let client = (Ipv4Addr::from(array_at::<4>(header, FIXED)?), u16_at(header, FIXED + 8)?);
    let destination = (Ipv4Addr::from(array_at::<4>(header, FIXED + 4)?), u16_at(header, FIXED + 10)?);
    Some(Endpoints::of(client.into(), destination.into()))
}

fn inet6(header: &[u8]) -> Option<Endpoints> {
    let (client, destination) = (array_at(header, FIXED)?, array_at(header, FIXED + 16)?);
    Some(Endpoints::of_octets(client, u16_at(header, FIXED + 32)?, destination, u16_at(header, FIXED + 34)?))
}

/// Where in one whole header its TLVs begin: also in one that speaks for nobody, where others may pass them over.
pub(super) fn tlvs_at(header: &[u8]) -> Option<usize> {
    let family_transport = *header.get(13).filter(|_| header.starts_with(SIGNATURE))?;
    addresses_length(family_transport).ok().map(|length| FIXED + length)
}

/// A header that speaks for nobody, signed.
#[must_use]
pub fn signed_local(key: &HopKey, stamp: Stamp) -> Vec<u8> {
    let mut header = [LOCAL.as_slice(), &signature::ROOM].concat();
    let length = u16::try_from(signature::ROOM.len()).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(place) = header.get_mut(FIXED - length.len()..FIXED) {
        place.copy_from_slice(&length);
    }
    key.sign(&mut header, stamp);
    header
}

/// Over the whole header, the checksum's own four bytes (at `at`) taken as zero.
pub(super) fn checksum(header: &[u8], at: usize) -> u32 {
    let before = crc32c::crc32c(header.get(..at).unwrap_or_default());
    let own = crc32c::crc32c_append(before, &[0; 4]);
    crc32c::crc32c_append(own, header.get(at + 4..).unwrap_or_default())
}

/// What a PROXY header shall say of a client. A flow of datagrams builds its header once and sends it before each payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    /// What the client spoke.
    pub transport: Announced,
    /// The client.
    pub client: SocketAddr,
    /// The original destination.
    pub destination: SocketAddr,
    /// The application protocol.
    pub alpn: Option<&'a [u8]>,
    /// The name that the client asked for.
    pub authority: Option<&'a str>,
    /// What joins the log lines of several proxies.
    pub unique_id: Option<&'a [u8]>,
    /// Whether a checksum shall be added.
    pub crc32c: bool,
    /// What the header of a peer said of the client: as far as all fits into [`MAX_LENGTH`], and in place of `alpn` and
    /// `authority` where it says these.
    pub received: Option<&'a Tlvs>,
    /// The key that it is signed with, and when.
    pub signed: Option<(&'a HopKey, Stamp)>,
}

/// What a client spoke, as it is announced to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Announced {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

impl<'a> Fields<'a> {
    /// Addresses and nothing else.
    #[must_use]
    pub const fn bare(transport: Announced, client: SocketAddr, destination: SocketAddr) -> Self {
        let (alpn, authority, unique_id, crc32c, received, signed) = (None, None, None, false, None, None);
        Self { transport, client, destination, alpn, authority, unique_id, crc32c, received, signed }
    }

    /// The length of the header: what it takes of a path's MTU.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        FIXED + self.length()
    }

    /// The header.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(self.encoded_len());
        self.append_to(&mut header);
        header
    }

    /// Appends the header to a buffer; allocates only if that has no room.
    pub fn append_to(&self, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        let transport = match self.transport {
            Announced::Stream => 1,
            Announced::Datagram => 2,
        };
        // The fields are bounded (`tlvs`, `received`), so their sum is far below 65535.
        let length = u16::try_from(self.length()).unwrap_or(u16::MAX);
        buffer.extend_from_slice(SIGNATURE);
        match Endpoints::of(self.client, self.destination) {
            Endpoints::V4 { client, destination } => {
                buffer.extend_from_slice(&[0x21, 0x10 | transport]);
                buffer.extend_from_slice(&length.to_be_bytes());
                buffer.extend_from_slice(&client.ip().octets());
                buffer.extend_from_slice(&destination.ip().octets());
            }
            Endpoints::V6 { client, destination } => {
                buffer.extend_from_slice(&[0x21, 0x20 | transport]);
                buffer.extend_from_slice(&length.to_be_bytes());
                buffer.extend_from_slice(&client.ip().octets());
                buffer.extend_from_slice(&destination.ip().octets());
            }
        }
        buffer.extend_from_slice(&self.client.port().to_be_bytes());
        buffer.extend_from_slice(&self.destination.port().to_be_bytes());
        for (kind, value) in self.tlvs() {
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            buffer.push(kind);
            buffer.extend_from_slice(&length.to_be_bytes());
            buffer.extend_from_slice(value);
        }
        if self.signed.is_some() {
            buffer.extend_from_slice(&signature::ROOM);
        }
        if self.crc32c {
            buffer.extend_from_slice(&[tlv::CRC32C, 0, 4]);
            let sum = crc32c::crc32c_append(crc32c::crc32c(buffer.get(start..).unwrap_or_default()), &[0; 4]);
            buffer.extend_from_slice(&sum.to_be_bytes());
        }
        if let (Some((key, stamp)), Some(header)) = (self.signed, buffer.get_mut(start..)) {
            key.sign(header, stamp);
        }
    }

    /// What follows the fixed part.
    fn length(&self) -> usize {
        self.length_without_received() + self.received().map(|(_, value)| 3 + value.len()).sum::<usize>()
    }

    fn length_without_received(&self) -> usize {
        let addresses = match Endpoints::of(self.client, self.destination) {
            Endpoints::V4 { .. } => INET,
            Endpoints::V6 { .. } => INET6,
        };
        let tlvs: usize = self.own_tlvs().map(|(_, value)| 3 + value.len()).sum();
        let signature = if self.signed.is_some() { signature::ROOM.len() } else { 0 };
        addresses + tlvs + signature + if self.crc32c { 7 } else { 0 }
    }

    fn tlvs(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        self.received().chain(self.own_tlvs())
    }

    /// Those of the peer's for which there is room.
    fn received(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut room = MAX_LENGTH.saturating_sub(FIXED + self.length_without_received());
        self.received.into_iter().flat_map(Tlvs::of_client).filter(move |(_, value)| {
            let rest = room.checked_sub(3 + value.len());
            room = rest.unwrap_or(room);
            rest.is_some()
        })
    }

    /// Values that no receiver may take (a UNIQUE_ID of more than 128 bytes, an endless name) are left out: a client must not
    /// be able to break the header by what it says in its hello.
    fn own_tlvs(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let is_new = |kind| self.received.and_then(|received| received.value(kind)).is_none();
        let alpn = self.alpn.filter(|value| value.len() <= NAME_MAX && is_new(tlv::ALPN));
        let alpn = alpn.map(|value| (tlv::ALPN, value));
        let authority = self.authority.map(str::as_bytes);
        let authority = authority.filter(|value| value.len() <= NAME_MAX && is_new(tlv::AUTHORITY));
        let unique_id = self.unique_id.filter(|value| value.len() <= tlv::UNIQUE_ID_MAX);
        let authority = authority.map(|value| (tlv::AUTHORITY, value));
        let unique_id = unique_id.map(|value| (tlv::UNIQUE_ID, value));
        alpn.into_iter().chain(authority).chain(unique_id)
    }
}

#[cfg(test)]
mod tests;
