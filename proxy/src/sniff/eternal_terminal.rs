//! Eternal Terminal: the length, in eight bytes, of the request with which a client begins; it is always 20.

use super::scan::{nameless, Scan};
use super::Sniffed;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(Scan::new(bytes).literal(&[20, 0, 0, 0, 0, 0, 0, 0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        let samples: [&[u8]; 1] = [&[20, 0, 0, 0, 0, 0, 0, 0]];
        for bytes in samples {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 2] = [&[21], &[20, 0, 0, 0, 0, 0, 0, 1]];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
