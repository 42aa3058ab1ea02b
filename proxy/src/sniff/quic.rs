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

#[cfg(test)]
mod tests {
    use super::super::quic_seal::SampleInitial;
    use super::super::sample_hello::{alpn, server_name, SampleHello};
    use super::super::{Found, Sniffed};
    use super::{InitialReader, MOST_DATAGRAMS};

    fn message() -> Vec<u8> {
        SampleHello::with(&[server_name(b"home.example"), alpn(&[b"h3"])]).message()
    }

    fn home() -> Sniffed {
        Sniffed::Yes(Found { name: Some("home.example".into()), alpn: vec![b"h3".to_vec()], ..Found::default() })
    }

    fn nameless() -> Sniffed {
        Sniffed::Yes(Found::default())
    }

    fn crypto(from: usize, to: usize) -> Vec<u8> {
        let field = |value: usize| (0x4000 | u16::try_from(value).unwrap()).to_be_bytes();
        [&[6][..], &field(from), &field(to - from), &message()[from..to]].concat()
    }

    fn sealed(frames: &[u8]) -> Vec<u8> {
        SampleInitial { frames, ..SampleInitial::default() }.seal().unwrap()
    }

    /// Another kind of packet: 0xd0 is 0-RTT in version 1, 0xe0 Handshake.
    fn unreadable(first: u8, dcid: &[u8]) -> Vec<u8> {
        [&[first, 0, 0, 0, 1, 8], dcid, &[0, 30], &[0x5a; 30][..]].concat()
    }

    fn unknown(version: u32, length: usize) -> Vec<u8> {
        let mut datagram = [&[0xc0][..], &version.to_be_bytes(), b"\x08destined\x04self"].concat();
        datagram.resize(length, 0x5a);
        datagram
    }

    fn answers(datagrams: &[Vec<u8>]) -> Vec<Sniffed> {
        let mut reader = InitialReader::default();
        datagrams.iter().map(|datagram| reader.push(datagram)).collect()
    }

    #[test]
    fn every_version_that_is_known_gives_the_name_with_and_without_a_token() {
        let frames = crypto(0, message().len());
        for version in [1, 0x6b33_43cf, 0xff00_001d, 0xff00_0020] {
            for token in [&b""[..], &[7; 60]] {
                for dcid in [&b""[..], b"destined", &[9; 20]] {
                    let initial = SampleInitial {
                        version,
                        token,
                        dcid,
                        frames: &frames,
                        number: 70_000,
                        ..SampleInitial::default()
                    };
                    assert_eq!(answers(&[initial.seal().unwrap()]), [home()]);
                }
            }
        }
    }

    #[test]
    fn a_hello_over_datagrams_is_read_in_every_order_and_with_repeats() {
        let end = message().len();
        let parts = [
            sealed(&[crypto(40, 41), crypto(30, 40), vec![1, 0, 0], crypto(0, 9)].concat()),
            sealed(&crypto(5, 35)),
            sealed(&crypto(41, end)),
        ];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let [first, second, third] = order.map(|place: usize| parts[place].clone());
            let given = answers(&[first.clone(), first.clone(), second.clone(), first, third]);
            assert_eq!(given, [vec![Sniffed::NeedMore; 4], vec![home()]].concat());
        }
    }

    #[test]
    fn coalesced_packets_are_read_but_not_those_of_another_connection() {
        let end = message().len();
        let small = |dcid, from, to| {
            let frames = crypto(from, to);
            SampleInitial { dcid, frames: &frames, least: 0, ..SampleInitial::default() }.seal().unwrap()
        };
        let both = [small(b"destined", 50, end), unreadable(0xd0, b"destined"), small(b"destined", 0, 50)].concat();
        let padded = |mut datagram: Vec<u8>| {
            datagram.resize(1200, 0);
            datagram
        };
        assert_eq!(answers(&[padded(both.clone())]), [home()]);
        let other = [small(b"destined", 50, end), small(b"stranger", 0, end)].concat();
        assert_eq!(answers(&[padded(other)]), [Sniffed::NeedMore]);
        assert_eq!(answers(&[both]), [Sniffed::NeedMore], "0-RTT alone counts in a datagram that is too short");
    }

    #[test]
    fn the_fixed_bit_may_be_greased() {
        let frames = crypto(0, message().len());
        let initial = SampleInitial { frames: &frames, has_greased_bit: true, ..SampleInitial::default() };
        let datagram = initial.seal().unwrap();
        assert_eq!((datagram[0] & 0xc0, answers(&[datagram])), (0x80, vec![home()]));
    }

    #[test]
    fn an_initial_in_a_short_datagram_is_refused() {
        let frames = crypto(0, message().len());
        for (least, expected) in [(1199, Sniffed::No), (1200, home())] {
            let initial = SampleInitial { frames: &frames, least, ..SampleInitial::default() };
            assert_eq!(answers(&[initial.seal().unwrap()]), [expected]);
        }
    }

    #[test]
    fn versions_not_known_and_greased_ones_are_quic_without_a_name() {
        for version in [0x1a2a_3a4a, 0xfafa_fafa, 2, 0xff00_001c, 0x709a_50c4] {
            assert_eq!(answers(&[unknown(version, 1200)]), [nameless()]);
            assert_eq!(answers(&[unknown(version, 1199)]), [Sniffed::No]);
        }
        let mut long_id = unknown(0x1a2a_3a4a, 1200);
        long_id[5] = 21;
        assert_eq!(answers(&[long_id]), [Sniffed::No]);
    }

    #[test]
    fn what_no_client_begins_with_is_refused() {
        let retry = [&[0xf0, 0, 0, 0, 1, 8][..], b"destined", &[0; 1300]].concat();
        let negotiation = unknown(0, 1200);
        let short_header = [0x40; 1200].to_vec();
        let forged = [&[0xc0, 0, 0, 0, 1, 8][..], b"destined", &[0, 0, 0x44, 0x9e], &[0x5a; 1182]].concat();
        for datagram in [retry, negotiation, short_header, forged, vec![], vec![0xc0]] {
            assert_eq!(answers(&[datagram]), [Sniffed::No]);
        }
    }

    #[test]
    fn early_data_waits_for_the_initial_and_a_late_handshake_has_no_name() {
        let initial = sealed(&crypto(0, message().len()));
        assert_eq!(answers(&[unreadable(0xd0, b"destined"), initial]), [Sniffed::NeedMore, home()]);
        assert_eq!(answers(&[unreadable(0xe0, b"destined")]), [nameless()]);
    }

    #[test]
    fn a_strangers_datagram_does_not_end_a_flow_that_has_begun() {
        let end = message().len();
        let mut reader = InitialReader::default();
        assert_eq!(reader.push(&sealed(&crypto(0, 50))), Sniffed::NeedMore);
        assert_eq!(reader.held(), 50);
        let mut damaged = sealed(&crypto(50, end));
        damaged[600] ^= 1;
        for noise in [vec![], vec![0x40; 50], unknown(0, 1200), unknown(0x1a2a_3a4a, 1200), damaged] {
            assert_eq!(reader.push(&noise), Sniffed::NeedMore);
        }
        assert_eq!(reader.push(&sealed(&crypto(50, end))), home());
        assert_eq!((reader.push(&[]), reader.held()), (home(), 0));
        assert_eq!(reader.hello().map(|hello| hello.alpn.len()), Some(1));
    }

    #[test]
    fn a_client_that_tries_anew_is_read_anew() {
        let frames = crypto(0, message().len());
        let again = SampleInitial { dcid: b"anotherid", frames: &frames, ..SampleInitial::default() };
        assert_eq!(answers(&[sealed(&crypto(9, 50)), again.seal().unwrap()]), [Sniffed::NeedMore, home()]);
    }

    #[test]
    fn frames_and_hellos_that_no_client_sends_are_refused() {
        let contradiction = [crypto(0, 20), vec![6, 0, 1, 9]].concat();
        let too_long = [6, 0, 4, 1, 0, 0x40, 1];
        for frames in [&[8, 0, 0][..], &contradiction, &[6, 0, 1, 2], &too_long, &[6, 0x80, 0, 0x40, 4, 1, 1]] {
            assert_eq!(answers(&[sealed(frames)]), [Sniffed::No]);
        }
    }

    #[test]
    fn a_flow_that_never_completes_its_hello_is_given_up() {
        let given = answers(&vec![sealed(&crypto(0, 50)); MOST_DATAGRAMS + 1]);
        assert_eq!(given.iter().filter(|&answer| *answer == Sniffed::NeedMore).count(), MOST_DATAGRAMS - 1);
        assert_eq!(given.last(), Some(&Sniffed::No));
    }
}
