//! Which parser answers for which protocol, over which transport. What has no parser there is not spoken there.

use super::{hellos, Sniffed};
use crate::config::model::{Protocol, Transport};

/// What the first bytes of a connection say of one protocol. [`Protocol::Silence`] is not in the bytes.
pub(crate) fn of_stream(protocol: Protocol, bytes: &[u8]) -> Sniffed {
    if protocol == Protocol::Tls {
        hellos::tls(bytes)
    } else {
        Sniffed::No
    }
}
pub(crate) fn stream_is_certain(_protocol: Protocol, _bytes: &[u8]) -> bool {
    false
}
pub(crate) fn of_datagrams(protocol: Protocol, datagrams: &[Vec<u8>]) -> Sniffed {
    match protocol {
        Protocol::Quic => hellos::quic(datagrams),
        _ => hellos::dtls(datagrams),
    }
}
pub(crate) fn exists_over(_protocol: Protocol, _transport: Transport) -> bool {
    true
}
