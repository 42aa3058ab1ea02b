//! The hellos of TLS, QUIC and DTLS, as the rest of the crate asks for them.

use super::{dtls, quic, tls, Sniffed};

/// The first bytes of a connection.
pub(crate) fn tls(bytes: &[u8]) -> Sniffed {
    tls::parse(bytes)
}

/// The first datagrams of a flow, in the order of arrival; of one hello, several may be needed.
pub(crate) fn quic(datagrams: &[Vec<u8>]) -> Sniffed {
    let mut reader = quic::InitialReader::default();
    first_answer(datagrams, |datagram| reader.push(datagram))
}

/// As [`quic`].
pub(crate) fn dtls(datagrams: &[Vec<u8>]) -> Sniffed {
    let mut reader = dtls::HelloReader::default();
    first_answer(datagrams, |datagram| reader.push(datagram))
}

fn first_answer(datagrams: &[Vec<u8>], push: impl FnMut(&Vec<u8>) -> Sniffed) -> Sniffed {
    let mut answers = datagrams.iter().map(push);
    answers.find(|answer| *answer != Sniffed::NeedMore).unwrap_or(Sniffed::NeedMore)
}
