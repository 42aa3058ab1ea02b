//! WireGuard: the type and size of a message (the protocol's description, "Subsequent Messages").

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

const TRANSPORT_SHORTEST: usize = 32;
const PADDED_TO: usize = 16;

/// A whole datagram. Data counts as well as a handshake: a proxy that was started anew meets peers that have their keys.
pub(crate) fn sniff(datagram: &[u8]) -> Sniffed {
    nameless(message(datagram))
}

fn message(datagram: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(datagram);
    let kind = scan.u8()?;
    scan.literal(&[0, 0, 0])?;
    require(match kind {
        1 => datagram.len() == 148,
        2 => datagram.len() == 92,
        3 => datagram.len() == 64,
        4 => datagram.len() >= TRANSPORT_SHORTEST && datagram.len() % PADDED_TO == 0,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::yes;

    #[test]
    fn each_type_has_its_size() {
        for (kind, size) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 1424)] {
            let mut datagram = vec![7; size];
            datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
            assert_eq!(sniff(&datagram), yes(None), "{kind}");
            datagram.push(7);
            assert_eq!(sniff(&datagram), Sniffed::No, "{kind}");
            datagram.pop();
            datagram[3] = 1;
            assert_eq!(sniff(&datagram), Sniffed::No, "{kind}");
        }
        assert_eq!(sniff(&[4, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]), Sniffed::No);
        assert_eq!(sniff(&[5, 0, 0, 0]), Sniffed::No);
    }
}
