//! AMQP: the protocol header (0-9-1, section 4.2.2; 1.0, section 2.2).

use super::scan::{nameless, Scan, Stop};
use super::Sniffed;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(header(bytes))
}

fn header(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    scan.literal(b"AMQP")?;
    scan.byte_of(|class| class <= 3)?; // AMQP itself, elder ones, TLS, SASL
    scan.byte_of(|major| major <= 1)?;
    scan.byte_of(|minor| minor <= 10)?;
    scan.byte_of(|revision| revision <= 10).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn its_begin_is_enough() {
        let samples: [&[u8]; 3] = [b"AMQP\0\0\x09\x01", b"AMQP\x03\x01\0\0", b"AMQP\x01\x01\x08\0"];
        for bytes in samples {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 4] = [b"AMQ ", b"AMQP\x04", b"AMQP\0\x02", b"AMQP\0\0\x0b"];
        for bytes in samples {
            assert_eq!(sniff(bytes), Sniffed::No, "{}", bytes.escape_ascii());
        }
    }
}
