//! Whether the kernel may cut what a socket sends.

use std::cell::Cell;
use std::os::fd::BorrowedFd;

use crate::kernel::allow_fragments;

use super::sending::Joined;

/// What clients of QUIC send before they have found out what their path carries: 1200 bytes and more (RFC 9000 section 14),
/// Chromium 1250, quic-go 1280.
const BASE: usize = 1280;

/// An option of the socket, which flows of several protocols may share. QUIC finds the size of its path by datagrams that are
/// lost (RFC 9000 section 14), so they must not be cut; others depend on it.
#[derive(Debug)]
pub(crate) struct Fragments {
    is_ipv6: bool,
    /// None: an earlier process may have left it either way.
    allowed: Cell<Option<bool>>,
}

impl Fragments {
    pub(crate) fn new(is_ipv6: bool) -> Self {
        Self { is_ipv6, allowed: Cell::new(None) }
    }

    /// Sets the option, if it is not set so.
    pub(crate) fn allow(&self, socket: BorrowedFd<'_>, allowed: bool) {
        if self.allowed.get() != Some(allowed) && allow_fragments(socket, self.is_ipv6, allowed).is_ok() {
            self.allowed.set(Some(allowed));
        }
    }
}

/// Whether datagrams of QUIC may be cut that bear a header of ours: a client knows nothing of it, so those that it takes for
/// small enough for any path, and those of the handshake (RFC 8999 section 5.1), would be lost for good on a narrow one.
pub(crate) fn may_be_cut(joined: Joined<'_>) -> bool {
    let is_of_handshake = joined.bytes.first().is_some_and(|first| first & 0x80 != 0);
    is_of_handshake || joined.segment.min(joined.bytes.len()) <= BASE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_before_it_knows_its_path_may_be_cut_and_its_probes_not() {
        let of = |first: u8, length: usize| [vec![first], vec![0; length - 1]].concat();
        for (datagram, expected) in
            [(of(0xc0, 1200), true), (of(0xe0, 1452), true), (of(0x40, 1280), true), (of(0x40, 1281), false)]
        {
            assert_eq!(may_be_cut(Joined::one(&datagram)), expected, "{} {}", datagram[0], datagram.len());
        }
        let many = of(0x40, 12_800);
        assert!(may_be_cut(Joined { bytes: &many, segment: 1280 }));
        assert!(may_be_cut(Joined::one(b"")));
    }
}
