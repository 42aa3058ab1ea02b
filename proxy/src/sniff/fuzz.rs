//! Bodies of the fuzz targets: laws that hold for every input. They end the process where one does not.

use super::quic_header::{connection_ids, short_header_dcid, Version};
use super::quic_keys::ClientKeys;
use super::{dtls, quic, tls, Sniffed};

/// A stream of TLS: its answer does not depend on its cuts, and what was answered stays.
pub fn client_hello(data: &[u8]) {
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
    check_found(&dtls::HelloReader::default().push(data));
}

/// Datagrams of QUIC and of DTLS. The first byte chooses: pieces of the input are datagrams, or frames that are sealed first.
pub fn quic_initial(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let mut readers = (quic::InitialReader::default(), dtls::HelloReader::default());
    let mut answers = (Sniffed::NeedMore, Sniffed::NeedMore);
    for (piece, number) in data.chunks(usize::from(choice | 1) * 8).zip(0_u32..) {
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
}

/// A datagram with `frames` in one Initial packet, padded to its least length.
#[must_use]
pub fn sealed_initial(version: u8, number: u32, frames: &[u8]) -> Option<Vec<u8>> {
    let (first, wire): (u8, u32) = match version % 3 {
        0 => (0xc3, 0xff00_001d),
        1 => (0xc3, 1),
        _ => (0xd3, 0x6b33_43cf),
    };
    let dcid = b"fuzzfuzz";
    let mut frames = frames.to_vec();
    frames.resize(frames.len().max(quic::SHORTEST_INITIAL_DATAGRAM), 0);
    let length = u16::try_from(4 + frames.len() + 16).ok().filter(|&length| length < 1 << 14)?;
    let header = [
        &[first][..],
        &wire.to_be_bytes(),
        &[8],
        dcid,
        &[0, 0], // neither a source id nor a token
        &(0x4000 | length).to_be_bytes(),
        &number.to_be_bytes(),
    ]
    .concat();
    ClientKeys::derive(Version::from_wire(wire)?, dcid)?.seal(&header, number, &frames)
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
