//! The hellos of TLS, QUIC and DTLS, as the rest of the crate asks for them.

use super::Sniffed;

/// The first bytes of a connection.
pub(crate) fn tls(_bytes: &[u8]) -> Sniffed {
    Sniffed::No
}

/// The first datagrams of a flow, in the order of arrival; of one hello, several may be needed.
pub(crate) fn quic(_datagrams: &[Vec<u8>]) -> Sniffed {
    Sniffed::No
}

/// As [`quic`].
pub(crate) fn dtls(_datagrams: &[Vec<u8>]) -> Sniffed {
    Sniffed::No
}
