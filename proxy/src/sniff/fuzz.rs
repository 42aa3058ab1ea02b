//! Bodies of the fuzz targets: laws that hold for every input. They end the process where one does not, and answer what was
//! read, so that a corpus can be shown to get deep.

use super::quic_header::{connection_ids, short_header_dcid};
use super::quic_seal::SampleInitial;
use super::{authority, dispatch, dtls, hpack, http2, quic, tls, Found, Sniffed};
use crate::config::model::Protocol;

/// All protocols that are recognised by their bytes.
pub(crate) const ALL: [Protocol; 30] = [
    Protocol::Tls,
    Protocol::Quic,
    Protocol::Http1,
    Protocol::Http2,
    Protocol::Ssh,
    Protocol::Dtls,
    Protocol::Socks4,
    Protocol::Socks5,
    Protocol::Rdp,
    Protocol::Postgres,
    Protocol::Mqtt,
    Protocol::Xmpp,
    Protocol::Wireguard,
    Protocol::Openvpn,
    Protocol::Dns,
    Protocol::Stun,
    Protocol::Minecraft,
    Protocol::EternalTerminal,
    Protocol::Smb,
    Protocol::Redis,
    Protocol::Amqp,
    Protocol::Bittorrent,
    Protocol::Syslog,
    Protocol::Rsync,
    Protocol::Git,
    Protocol::Bitcoin,
    Protocol::Adb,
    Protocol::SyncthingRelay,
    Protocol::Teamspeak3,
    Protocol::SourceQuery,
];

/// Cuts of a long input that are tried: all near its begin, where parsers decide, and some of the rest.
const EACH_UP_TO: usize = 256;
const STEP: usize = 97;
/// Of a header block, with what stands before it below what is looked at.
const LONGEST_BLOCK: usize = 4096;

/// A stream of TLS: its answer does not depend on its cuts, and what was answered stays.
pub fn client_hello(data: &[u8]) -> Sniffed {
    let whole = tls::parse(data);
    for length in [1, 5, 7, 64] {
        let mut reader = tls::HelloReader::default();
        let mut answer = Sniffed::NeedMore;
        for part in data.chunks(length) {
            let next = reader.push(part);
            assert!(answer == Sniffed::NeedMore || answer == next, "an answer must stay");
            answer = next;
            assert!(reader.held() <= data.len(), "no more is kept than was given");
        }
        assert_eq!(answer, whole, "the cuts must not matter");
    }
    check_found(&whole);
    whole
}

/// Datagrams, as QUIC and as DTLS. The first byte chooses: pieces of the input are datagrams, or frames that are sealed first.
pub fn quic_initial(data: &[u8]) -> [Sniffed; 2] {
    let Some((&choice, data)) = data.split_first() else {
        return [Sniffed::NeedMore, Sniffed::NeedMore];
    };
    let mut readers = (quic::InitialReader::default(), dtls::HelloReader::default());
    let mut answers = (Sniffed::NeedMore, Sniffed::NeedMore);
    for (piece, number) in data.chunks(usize::from(choice.max(8)) * 8).zip(0_u32..) {
        let sealed = choice.is_power_of_two().then(|| sealed_initial(choice, number, piece)).flatten();
        let datagram = sealed.as_deref().unwrap_or(piece);
        let _ = (connection_ids(datagram), short_header_dcid(datagram, 8));
        let next = (readers.0.push(datagram), readers.1.push(datagram));
        assert!(answers.0 == Sniffed::NeedMore || answers.0 == next.0, "an answer must stay");
        assert!(answers.1 == Sniffed::NeedMore || answers.1 == next.1, "an answer must stay");
        assert!(readers.0.held().max(readers.1.held()) <= 16 * 1024 + 4, "what is kept is bounded");
        answers = next;
    }
    check_found(&answers.0);
    check_found(&answers.1);
    answers.into()
}

/// Any protocol, of a stream and of one datagram: what was answered stays, and a name is in its one form.
pub fn sniff(data: &[u8]) {
    for protocol in ALL {
        let mut answer = Sniffed::NeedMore;
        for end in (0..=data.len()).filter(|end| *end <= EACH_UP_TO || end % STEP == 0 || *end == data.len()) {
            let next = dispatch::of_stream(protocol, data.get(..end).unwrap_or_default());
            assert!(answer == Sniffed::NeedMore || answer == next, "{protocol:?}: an answer must stay");
            answer = next;
        }
        let certain = dispatch::stream_is_certain(protocol, data);
        assert!(!(certain && answer == Sniffed::No), "{protocol:?}: what is certain is not denied");
        check_found(&answer);
        check_found(&dispatch::of_datagrams(protocol, &[data.to_vec()]));
    }
}

/// A header block of HTTP/2: the name of a connection that begins with it is the block's authority.
pub fn header_block(block: &[u8]) {
    let block = block.get(..LONGEST_BLOCK).unwrap_or(block);
    let found = hpack::authority(block);
    assert!(found.as_ref().map_or(0, Vec::len) <= block.len() * 8 / 5, "a code has five bits at least");
    let length = u16::try_from(block.len()).unwrap_or_default().to_be_bytes();
    let connection = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", &length[..], &[1, 4, 0, 0, 0, 1], block].concat();
    assert_eq!(http2::sniff(connection.get(..connection.len() - 1).unwrap_or_default()), Sniffed::NeedMore);
    let whole = http2::sniff(&connection);
    let name = found.and_then(|authority| authority::of_authority(&authority));
    assert_eq!(whole, Sniffed::Yes(Found { name, ..Found::default() }));
    check_found(&whole);
}

fn sealed_initial(choice: u8, number: u32, frames: &[u8]) -> Option<Vec<u8>> {
    let version = match choice.trailing_zeros() % 3 {
        0 => 1,
        1 => 0x6b33_43cf,
        _ => 0xff00_001d,
    };
    SampleInitial { version, number, frames, ..SampleInitial::default() }.seal()
}

fn check_found(answer: &Sniffed) {
    if let Sniffed::Yes(found) = answer {
        let is_sound = |name: &String| {
            (1..=253).contains(&name.len()) && !name.ends_with('.') && *name == name.to_ascii_lowercase()
        };
        assert!(found.name.iter().all(is_sound), "a name is in its one form");
        assert!(found.alpn.iter().all(|name| !name.is_empty()), "no protocol is empty");
    }
}
