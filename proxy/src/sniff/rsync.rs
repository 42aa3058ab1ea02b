//! rsync: the greeting of a client of its daemon (rsyncd.conf(5)).

use super::scan::{nameless, Scan};
use super::Sniffed;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    let mut scan = Scan::new(bytes);
    nameless(scan.literal(b"@RSYNCD: ").and_then(|()| scan.byte_of(|byte| byte.is_ascii_digit())).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        let samples: [&[u8]; 1] = [b"@RSYNCD: 31.0\n"];
        for bytes in samples {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 3] = [b"@RSYNCD:3", b"@RSYNCD: a", b"#"];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
