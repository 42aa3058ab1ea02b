//! Questions to a game server of the Source engine and of those that answer as it does (Valve's "Server queries"): about
//! itself, its players, its rules.

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

/// In one piece.
const WHOLE: [u8; 4] = [0xff; 4];
const CHALLENGE: usize = 4;

/// A whole datagram.
pub(crate) fn sniff_datagram(datagram: &[u8]) -> Sniffed {
    nameless(question(datagram))
}

fn question(datagram: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(datagram);
    scan.literal(&WHOLE)?;
    match scan.u8()? {
        b'T' => {
            scan.literal(b"Source Engine Query\0")?;
            require([0, CHALLENGE].contains(&scan.rest().len()))
        }
        b'U' | b'V' => require(scan.rest().len() == CHALLENGE),
        _ => Err(Stop::No),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::yes;

    #[test]
    fn each_question_is_known_with_and_without_a_challenge() {
        let samples: [&[u8]; 4] = [
            b"\xff\xff\xff\xffTSource Engine Query\0",
            b"\xff\xff\xff\xffTSource Engine Query\0abcd",
            b"\xff\xff\xff\xffU\0\0\0\0",
            b"\xff\xff\xff\xffV\xff\xff\xff\xff",
        ];
        for bytes in samples {
            assert_eq!(sniff_datagram(bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn other_datagrams_are_none() {
        let samples: [&[u8]; 6] = [
            b"\xff\xff\xff\xfeTSource Engine Query\0",
            b"\xff\xff\xff\xffTSource Engine Query\0abc",
            b"\xff\xff\xff\xffTSource Engine Query.",
            b"\xff\xff\xff\xffU\0\0\0",
            b"\xff\xff\xff\xffV\0\0\0\0\0",
            b"\xff\xff\xff\xffW\0\0\0\0",
        ];
        for bytes in samples {
            assert_eq!(sniff_datagram(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
