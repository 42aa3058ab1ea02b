//! Redis: a command as an array of strings (RESP), or an inline `PING`.

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

const MOST_DIGITS: usize = 7;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(command(bytes))
}

fn command(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    if scan.peek()? != b'*' {
        return ping(scan);
    }
    scan.u8()?;
    number(&mut scan)?;
    scan.literal(b"$")?;
    number(&mut scan)
}

/// What is typed by hand, and by some checks of health.
fn ping(mut scan: Scan<'_>) -> Result<(), Stop> {
    for letter in b"ping" {
        scan.byte_of(|byte| byte.to_ascii_lowercase() == *letter)?;
    }
    if scan.peek()? == b'\r' {
        scan.u8()?;
    }
    scan.literal(b"\n")
}

fn number(scan: &mut Scan<'_>) -> Result<(), Stop> {
    let digits = scan.until(b'\r', MOST_DIGITS, |byte| byte.is_ascii_digit())?;
    require(digits.first().is_some_and(|first| *first != b'0'))?;
    scan.literal(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        let samples: [&[u8]; 4] = [b"*1\r\n$4\r\n", b"*12\r\n$1234\r\n", b"PING\r\n", b"ping\n"];
        for bytes in samples {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 8] = [b"*0\r", b"*\r", b"*1\n", b"*12345678", b"*1\r\n:", b"*1\r\n$a", b"PING ", b"+"];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
