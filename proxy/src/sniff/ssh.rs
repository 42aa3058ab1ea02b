//! SSH (RFC 4253, section 4.2): the client's identification.

use super::scan::{nameless, Scan};
use super::Sniffed;

/// `SSH-2.0-`, `SSH-1.99-` and elder ones. A client may not send other lines before it.
pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    let mut scan = Scan::new(bytes);
    nameless(scan.literal(b"SSH-").and_then(|()| scan.byte_of(|byte| byte.is_ascii_digit())).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        let samples: [&[u8]; 2] = [b"SSH-2.0-a\r\n", b"SSH-1.99-a\n"];
        for bytes in samples {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 3] = [b"ssh", b"SSH ", b"SSH-a"];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
