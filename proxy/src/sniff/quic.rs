//! Whether a flow of datagrams begins with a QUIC client, and what its hello says (RFC 9000, RFC 9001, RFC 9369).

use super::client_hello::{read_message, ClientHello};
use super::cursor::Cursor;
use super::quic_header::{long_header, LongHeader, PacketType, Version, LONGEST_CONNECTION_ID};
use super::quic_keys::ClientKeys;
use super::reassembly::Reassembly;
use super::{quic_frames, Found, Sniffed};
use crate::wire::Parse;

/// A datagram with an Initial packet of a client is at least this long (RFC 9000 section 14.1). A server answers a version
/// that it does not know only then (section 6.1).
pub const SHORTEST_INITIAL_DATAGRAM: usize = 1200;
/// The longest body of a hello that is waited for; those of browsers have about 2 kB.
const LONGEST_HELLO: usize = 16 * 1024;
/// CRYPTO data that is kept: the hello with its header.
const LONGEST_STREAM: usize = LONGEST_HELLO + 4;
/// A hello of [`LONGEST_HELLO`] comes in 14 datagrams of the least size; after these the flow is given up.
const MOST_DATAGRAMS: usize = 32;

/// Reads the hello of one flow, datagram by datagram.
///
/// - A version that is not known, greased ones too (RFC 9000 section 15), is QUIC without a name: rules for the protocol
///   match, those for a name do not, and the backend negotiates the version. It takes [`SHORTEST_INITIAL_DATAGRAM`] bytes.
/// - A flow that begins with a Handshake packet is QUIC without a name: its hello went by before.
/// - Version negotiation and Retry come from servers only: a flow that begins with one is refused.
/// - 0-RTT may overtake the Initial: more is needed.
/// - The first datagram decides whether it is QUIC: its Initial must have a true tag. What cannot be opened later is passed
///   over, as an endpoint does (RFC 9001 section 5.5), so that a stranger's datagram does not end the flow.
#[derive(Default)]
pub struct InitialReader {
    connection: Option<Connection>,
    datagrams: usize,
    verdict: Option<Sniffed>,
    hello: Option<ClientHello>,
}

/// What a client tries to set up.
struct Connection {
    version: Version,
    dcid: Vec<u8>,
    keys: ClientKeys,
    stream: Reassembly,
}

/// What one packet turned out to be.
enum Looked {
    /// An Initial that was opened; with what its frames complete.
    Opened(Parse<ClientHello, ()>),
    /// Not to be opened, or not for us.
    PassedOver(PacketType),
}

impl InitialReader {
    /// Takes the next datagram of the flow. An answer other than [`Sniffed::NeedMore`] is final.
    pub fn push(&mut self, datagram: &[u8]) -> Sniffed {
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        self.datagrams += 1;
        let mut answer = self.read(datagram);
        if answer == Sniffed::NeedMore && self.datagrams >= MOST_DATAGRAMS {
            answer = Sniffed::No;
        }
        if answer != Sniffed::NeedMore {
            self.verdict = Some(answer.clone());
            self.connection = None;
        }
        answer
    }

    /// All that the hello says, once [`Self::push`] has answered yes; `None` where the hello is not to be read.
    #[must_use]
    pub fn hello(&self) -> Option<&ClientHello> {
        self.hello.as_ref()
    }

    /// Bytes of the flow that it keeps; at most 16 KiB.
    #[must_use]
    pub fn held(&self) -> usize {
        self.connection.as_ref().map_or(0, |connection| connection.stream.size())
    }

    fn read(&mut self, datagram: &[u8]) -> Sniffed {
        let Some(first) = long_header(datagram) else {
            return self.unless_begun(Sniffed::No);
        };
        match first.packet_type {
            PacketType::Unknown => self.unless_begun(of_unknown_version(&first, datagram.len())),
            PacketType::VersionNegotiation | PacketType::Retry => self.unless_begun(Sniffed::No),
            PacketType::Initial | PacketType::ZeroRtt | PacketType::Handshake => self.read_packets(datagram, &first),
        }
    }

    /// The packets that share a datagram (RFC 9000 section 12.2).
    fn read_packets(&mut self, datagram: &[u8], first: &LongHeader<'_>) -> Sniffed {
        let mut left = datagram;
        let (mut is_early, mut is_late) = (false, false);
        while let Some(header) = long_header(left).filter(|next| next.dcid == first.dcid) {
            let Some((packet, number_offset)) = measure(left, &header) else {
                break;
            };
            left = left.get(packet.len()..).unwrap_or_default();
            match self.look(packet, number_offset, &header, datagram.len()) {
                Looked::Opened(Parse::Done { value, .. }) => {
                    let found = value.found();
                    self.hello = Some(value);
                    return Sniffed::Yes(found);
                }
                Looked::Opened(Parse::Refuse(())) => return Sniffed::No,
                Looked::Opened(Parse::NeedMore) => {}
                Looked::PassedOver(kind) => {
                    is_early |= kind == PacketType::ZeroRtt;
                    is_late |= kind == PacketType::Handshake;
                }
            }
        }
        self.unless_begun(match (is_late, is_early) {
            (true, _) => Sniffed::Yes(Found::default()),
            (false, true) => Sniffed::NeedMore,
            (false, false) => Sniffed::No,
        })
    }

    fn look(&mut self, packet: &[u8], number_offset: usize, header: &LongHeader<'_>, datagram: usize) -> Looked {
        let passed_over = Looked::PassedOver(header.packet_type);
        if header.packet_type != PacketType::Initial || datagram < SHORTEST_INITIAL_DATAGRAM {
            return passed_over;
        }
        let Some((connection, frames)) = self.open(packet, number_offset, header) else {
            return passed_over;
        };
        Looked::Opened(match quic_frames::read(&frames, &mut connection.stream, LONGEST_STREAM) {
            Ok(()) => read_message(connection.stream.front(), LONGEST_HELLO),
            Err(quic_frames::Unsound) => Parse::Refuse(()),
        })
    }

    /// A packet that opens with the keys of another id begins another connection: the client tries anew.
    fn open(&mut self, packet: &[u8], offset: usize, header: &LongHeader<'_>) -> Option<(&mut Connection, Vec<u8>)> {
        let version = Version::from_wire(header.version)?;
        let is_same = |connection: &Connection| connection.version == version && connection.dcid == header.dcid;
        let (connection, frames) = match self.connection.take() {
            Some(connection) if is_same(&connection) => {
                let frames = connection.keys.open(packet, offset);
                (Some(connection), frames)
            }
            before => {
                let keys = ClientKeys::derive(version, header.dcid)?;
                let stream = Reassembly::default();
                match keys.open(packet, offset) {
                    Some(frames) => {
                        (Some(Connection { version, dcid: header.dcid.to_vec(), keys, stream }), Some(frames))
                    }
                    None => (before, None),
                }
            }
        };
        self.connection = connection;
        Some((self.connection.as_mut()?, frames?))
    }

    /// Once a true Initial has come, nothing but the hello decides.
    fn unless_begun(&self, answer: Sniffed) -> Sniffed {
        match self.connection {
            Some(_) => Sniffed::NeedMore,
            None => answer,
        }
    }
}

/// Ids may have up to 255 bytes there, but none in use has more than 20; and a chance datagram passes less often.
fn of_unknown_version(header: &LongHeader<'_>, datagram: usize) -> Sniffed {
    let is_likely = header.dcid.len().max(header.scid.len()) <= LONGEST_CONNECTION_ID;
    match is_likely && datagram >= SHORTEST_INITIAL_DATAGRAM {
        true => Sniffed::Yes(Found::default()),
        false => Sniffed::No,
    }
}

/// The first packet of `left`, whole, and where its packet number begins. Retry has no length and no number.
fn measure<'a>(left: &'a [u8], header: &LongHeader<'a>) -> Option<(&'a [u8], usize)> {
    let mut cursor = Cursor::new(header.rest);
    match header.packet_type {
        PacketType::Initial => {
            let token = usize::try_from(cursor.varint()?).ok()?;
            cursor.take(token)?;
        }
        PacketType::ZeroRtt | PacketType::Handshake => {}
        PacketType::Retry | PacketType::VersionNegotiation | PacketType::Unknown => return None,
    }
    let length = usize::try_from(cursor.varint()?).ok()?;
    let number_offset = left.len().checked_sub(cursor.rest().len())?;
    let packet = left.get(..number_offset.checked_add(length)?)?;
    Some((packet, number_offset))
}
