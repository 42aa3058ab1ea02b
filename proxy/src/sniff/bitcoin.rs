//! Bitcoin: `version`, the first message of whoever connects, on any of its networks. Of the encrypted transport (BIP 324) no
//! byte is fixed: it is not recognised.

use super::scan::{nameless, Scan, Stop};
use super::Sniffed;

/// Main, testnet 3, testnet 4 (BIP 94), signet (BIP 325), regtest: `pchMessageStart` of Bitcoin Core's `chainparams.cpp`.
const NETWORKS: [[u8; 4]; 5] = [
    [0xf9, 0xbe, 0xb4, 0xd9],
    [0x0b, 0x11, 0x09, 0x07],
    [0x1c, 0x16, 0x3f, 0x28],
    [0x0a, 0x03, 0xcf, 0x40],
    [0xfa, 0xbf, 0xb5, 0xda],
];

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    let of = |network: &[u8; 4]| {
        let mut scan = Scan::new(bytes);
        scan.literal(network).and_then(|()| scan.literal(b"version\0\0\0\0\0"))
    };
    // No two begin with the same byte.
    let answers = NETWORKS.iter().map(of);
    nameless(answers.reduce(|one, other| if one == Err(Stop::No) { other } else { one }).unwrap_or(Err(Stop::No)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn the_first_message_of_each_network_is_known() {
        for network in NETWORKS {
            let bytes = [&network[..], b"version\0\0\0\0\0"].concat();
            assert_eq!(cut_everywhere(sniff, &bytes), yes(None));
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 4] =
            [b"\xf8", b"\xf9\xbf", b"\xf9\xbe\xb4\xd9verack", b"\x0b\x11\x09\x07version\0\0\0\0\x01"];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
