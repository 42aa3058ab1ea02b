//! Syslog (RFC 5424, section 6; RFC 6587, section 3.4): the priority with which a message begins, perhaps behind its length.

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

const MOST_LENGTH_DIGITS: usize = 5;
const MOST_PRIORITY_DIGITS: usize = 3;
/// Facility 23, severity 7.
const LAST_PRIORITY: u32 = 191;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(priority(bytes))
}

fn priority(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    if scan.peek()? != b'<' {
        number(scan.until(b' ', MOST_LENGTH_DIGITS, |byte| byte.is_ascii_digit())?)?;
    }
    scan.literal(b"<")?;
    let priority = number(scan.until(b'>', MOST_PRIORITY_DIGITS, |byte| byte.is_ascii_digit())?)?;
    require(priority <= LAST_PRIORITY)
}

/// Without leading zeroes.
fn number(digits: &[u8]) -> Result<u32, Stop> {
    require(!digits.is_empty() && (digits.len() == 1 || !digits.starts_with(b"0")))?;
    Ok(digits.iter().fold(0, |sum, digit| 10 * sum + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        let samples: [&[u8]; 3] = [b"<0>a", b"<191>1 -", b"95 <13>1 -"];
        for bytes in samples {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 10] =
            [b"<192>", b"<00>", b"<>", b"<1234", b"<?xml", b"123456", b"0x", b"05 ", b" <", b"9 1"];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
