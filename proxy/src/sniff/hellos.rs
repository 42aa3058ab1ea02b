//! The hellos of TLS, QUIC and DTLS, as the rest of the crate asks for them.

use super::{dtls, quic, tls, Sniffed};

/// The first bytes of a connection.
pub(crate) fn tls(bytes: &[u8]) -> Sniffed {
    tls::parse(bytes)
}

/// The first datagrams of a flow, in the order of arrival; of one hello, several may be needed.
pub(crate) fn quic(datagrams: &[Vec<u8>]) -> Sniffed {
    let mut reader = quic::InitialReader::default();
    last_of(datagrams, |datagram| reader.push(datagram))
}

/// As [`quic`].
pub(crate) fn dtls(datagrams: &[Vec<u8>]) -> Sniffed {
    let mut reader = dtls::HelloReader::default();
    last_of(datagrams, |datagram| reader.push(datagram))
}

/// What a reader says when it has seen all datagrams.
fn last_of(datagrams: &[Vec<u8>], mut push: impl FnMut(&[u8]) -> Sniffed) -> Sniffed {
    datagrams.iter().map(|datagram| push(datagram)).last().unwrap_or(Sniffed::NeedMore)
}
