//! DNS (RFC 1035, section 4.1): a query, over UDP or, behind its length, over TCP; its name is the one asked for.

use super::authority::of_host;
use super::scan::{named, require, settled, Scan, Stop};
use super::{Found, Sniffed};

/// Header, the root's name, type and class.
const SHORTEST: u32 = 12 + 1 + 4;
/// Over TCP. Who asks, asks briefly, and longer ones would keep the greetings of SOCKS 5 waiting, which begin with 5.
const LONGEST: u32 = 0x04ff;
/// As text, without the lengths of the first label and of the root.
const LONGEST_NAME: usize = 253;
/// QR, AA, TC, RA, the reserved bit and RCODE: none of them is set by who asks.
const OF_ANSWERS: u16 = 0x86cf;
const AUTHORITATIVE: u16 = 0x0400;
const NOTIFY: u16 = 4;
const UPDATE: u16 = 5;
/// IN, CH, HS, NONE, ANY.
const CLASSES: [u16; 5] = [1, 3, 4, 254, 255];

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    let mut scan = Scan::new(bytes);
    settled(scan.number(2, SHORTEST..=LONGEST).and_then(|_| query(scan)))
}

/// A whole datagram.
pub(crate) fn sniff_datagram(datagram: &[u8]) -> Sniffed {
    settled(query(Scan::new(datagram)))
}

fn query(mut scan: Scan<'_>) -> Result<Found, Stop> {
    scan.u16()?;
    scan.next_is(|high| u16::from(high) & (OF_ANSWERS & !AUTHORITATIVE) >> 8 == 0)?;
    let flags = scan.u16()?;
    let operation = flags >> 11 & 15;
    let odd = flags & OF_ANSWERS;
    require(odd == 0 || operation == NOTIFY && odd == AUTHORITATIVE)?; // RFC 1996, 4.5
    require(matches!(operation, 0 | NOTIFY | UPDATE))?;
    scan.literal(&[0, 1])?;
    let (answers, authorities) = match operation {
        UPDATE => (u32::from(u16::MAX), u32::from(u16::MAX)), // prerequisites and updates (RFC 2136, 2.2)
        NOTIFY => (1, 0),                                     // the new SOA
        _ => (0, 1),                                          // the SOA that an IXFR knows (RFC 1995, 3)
    };
    scan.number(2, 0..=answers)?;
    scan.number(2, 0..=authorities)?;
    scan.number(2, 0..=2)?; // OPT, and TSIG or SIG(0)
    let name = question_name(&mut scan)?;
    scan.u16()?;
    require(CLASSES.contains(&scan.u16()?))?;
    Ok(named(of_host(&name)))
}

/// Labels joined by dots; a question has no pointer to an earlier name.
fn question_name(scan: &mut Scan<'_>) -> Result<Vec<u8>, Stop> {
    let mut name = Vec::new();
    loop {
        let length = scan.byte_of(|length| length < 64)?;
        if length == 0 {
            return Ok(name);
        }
        if !name.is_empty() {
            name.push(b'.');
        }
        let label = scan.take(usize::from(length))?;
        require(!label.contains(&b'.'))?;
        name.extend_from_slice(label);
        require(name.len() <= LONGEST_NAME)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn query(flags: u16, counts: [u16; 4], question: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd];
        bytes.extend(flags.to_be_bytes());
        counts.iter().for_each(|count| bytes.extend(count.to_be_bytes()));
        bytes.extend(question);
        bytes
    }

    fn over_tcp(message: &[u8]) -> Vec<u8> {
        [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }

    #[test]
    fn the_name_is_the_one_asked_for() {
        for (question, name) in [
            (&b"\x03Www\x07Example\0\0\x01\0\x01"[..], Some("www.example")),
            (b"\0\0\x02\0\x01", None),
            (b"\x04_dns\x04home\0\0\x10\0\xff", Some("_dns.home")),
            (b"\x03a b\0\0\x01\0\x01", None),
        ] {
            let message = query(0x0120, [1, 0, 0, 1], question);
            assert_eq!(sniff_datagram(&message), yes(name));
            assert_eq!(cut_everywhere(sniff, &over_tcp(&message)), yes(name));
        }
    }

    #[test]
    fn notifies_and_updates_ask_too() {
        let zone = b"\x04home\0\0\x06\0\x01";
        assert_eq!(sniff_datagram(&query(0x2400, [1, 1, 0, 0], zone)), yes(Some("home")));
        assert_eq!(sniff_datagram(&query(0x2800, [1, 3, 7, 1], zone)), yes(Some("home")));
    }

    #[test]
    fn answers_and_nonsense_are_none() {
        let question = b"\x04home\0\0\x01\0\x01";
        for flags in [0x8000, 0x0400, 0x0200, 0x0080, 0x0040, 0x0003, 0x0800, 0x3000] {
            assert_eq!(sniff_datagram(&query(flags, [1, 0, 0, 0], question)), Sniffed::No, "{flags:x}");
        }
        for counts in [[0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 0, 0], [1, 0, 2, 0], [1, 0, 0, 3]] {
            assert_eq!(sniff_datagram(&query(0, counts, question)), Sniffed::No, "{counts:?}");
        }
        let endless = [0x3f; 300];
        for question in [&b"\xc0\x0c\0\x01\0\x01"[..], b"\0\0\x01\0\x07", b"\x03a.b\0\0\x01\0\x01", &endless] {
            assert_eq!(sniff_datagram(&query(0, [1, 0, 0, 0], question)), Sniffed::No, "{question:?}");
        }
        assert_eq!([sniff(&[0, 16]), sniff(&[5])], [Sniffed::No, Sniffed::No]);
    }
}
