//! Reads fields of the first bytes one after the other, and tells "other than expected" from "not here yet".

use std::ops::RangeInclusive;

use super::{Found, Sniffed};

/// Why reading ends before everything is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// What is here is not of the protocol.
    No,
    /// The bytes end too early.
    NeedMore,
}

/// The bytes that have not been read yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next byte, which stays unread.
    pub(crate) fn peek(&self) -> Result<u8, Stop> {
        self.rest.first().copied().ok_or(Stop::NeedMore)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let taken = self.rest.get(..length).ok_or(Stop::NeedMore)?;
        self.rest = self.rest.get(length..).unwrap_or_default();
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.take(N)?.try_into().map_err(|_| Stop::NeedMore)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Stop> {
        self.array().map(u8::from_be_bytes)
    }

    /// Big-endian, as the network's order is.
    pub(crate) fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_be_bytes)
    }

    /// A big-endian number of so many bytes within a range; the first byte that leaves the range is a `No`.
    pub(crate) fn number(&mut self, width: u32, range: RangeInclusive<u32>) -> Result<u32, Stop> {
        let mut number = 0;
        for left in (0..width).rev() {
            let open = 8 * left; // bits that later bytes fill
            let with = |byte: u8| number << 8 | u32::from(byte);
            number = with(self.byte_of(|byte| {
                let low = with(byte) << open;
                let high = low | ((1 << open) - 1);
                high >= *range.start() && low <= *range.end()
            })?);
        }
        Ok(number)
    }

    /// Exactly these bytes; the first other one is a `No`.
    pub(crate) fn literal(&mut self, expected: &[u8]) -> Result<(), Stop> {
        for byte in expected {
            self.byte_of(|it| it == *byte)?;
        }
        Ok(())
    }

    /// One byte that fulfils a condition.
    pub(crate) fn byte_of(&mut self, fits: impl Fn(u8) -> bool) -> Result<u8, Stop> {
        let byte = self.peek()?;
        require(fits(byte))?;
        self.u8()
    }

    /// The same, and it stays unread.
    pub(crate) fn next_is(&self, fits: impl Fn(u8) -> bool) -> Result<(), Stop> {
        self.peek().and_then(|byte| require(fits(byte)))
    }

    /// All bytes up to `end`, which is read too and is not among them. They fit, and are at most `longest`.
    pub(crate) fn until(&mut self, end: u8, longest: usize, fits: impl Fn(u8) -> bool) -> Result<&'a [u8], Stop> {
        let window = self.rest.get(..=longest).unwrap_or(self.rest);
        let found = window.iter().position(|byte| *byte == end);
        let inside = window.get(..found.unwrap_or(window.len())).unwrap_or_default();
        require(inside.iter().all(|byte| fits(*byte)))?;
        require(found.is_some() || inside.len() <= longest)?;
        let taken = self.take(found.ok_or(Stop::NeedMore)?)?;
        self.u8()?;
        Ok(taken)
    }
}

/// A `No` where this is false.
pub(crate) fn require(holds: bool) -> Result<(), Stop> {
    if holds {
        Ok(())
    } else {
        Err(Stop::No)
    }
}

/// Without white space at either end.
pub(crate) fn trimmed(text: &[u8]) -> &[u8] {
    let begin = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(begin, |last| last + 1);
    text.get(begin..end).unwrap_or_default()
}

/// The answer of a parser of the first bytes.
pub(crate) fn settled(read: Result<Found, Stop>) -> Sniffed {
    match read {
        Ok(found) => Sniffed::Yes(found),
        Err(Stop::No) => Sniffed::No,
        Err(Stop::NeedMore) => Sniffed::NeedMore,
    }
}

/// The same for a protocol that names nobody.
pub(crate) fn nameless(read: Result<(), Stop>) -> Sniffed {
    settled(read.map(|()| Found::default()))
}

/// The protocol is spoken, with this name.
pub(crate) fn named(name: Option<String>) -> Found {
    Found { name, ..Found::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_stops_at_the_first_other_byte() {
        assert_eq!(Scan::new(b"ab").literal(b"abc"), Err(Stop::NeedMore));
        assert_eq!(Scan::new(b"ax").literal(b"abc"), Err(Stop::No));
        assert_eq!(Scan::new(b"abcd").literal(b"abc"), Ok(()));
    }

    #[test]
    fn until_allows_as_many_bytes_as_said_and_not_one_more() {
        let until = |bytes: &'static [u8]| Scan::new(bytes).until(b'.', 3, |byte| byte != b'!');
        assert_eq!(until(b"abc."), Ok(&b"abc"[..]));
        assert_eq!(until(b"abc"), Err(Stop::NeedMore));
        assert_eq!(until(b"abcd"), Err(Stop::No));
        assert_eq!(until(b"abcd."), Err(Stop::No));
        assert_eq!(until(b"a!"), Err(Stop::No));
        assert_eq!(until(b"."), Ok(&b""[..]));
    }

    #[test]
    fn a_number_stops_at_the_byte_that_leaves_its_range() {
        let number = |bytes: &'static [u8]| Scan::new(bytes).number(2, 0x0110..=0x0220);
        assert_eq!([number(&[0]), number(&[3]), number(&[1, 0x0f]), number(&[2, 0x21])], [Err(Stop::No); 4]);
        assert_eq!([number(&[]), number(&[1]), number(&[2])], [Err(Stop::NeedMore); 3]);
        assert_eq!([number(&[1, 0x10]), number(&[2, 0x20])], [Ok(0x110), Ok(0x220)]);
        assert_eq!(Scan::new(&[0xff; 4]).number(4, 0..=u32::MAX), Ok(u32::MAX));
    }

    #[test]
    fn trimming_takes_the_ends_only() {
        assert_eq!([trimmed(b" a b\t"), trimmed(b" "), trimmed(b"")], [&b"a b"[..], b"", b""]);
    }

    #[test]
    fn what_was_taken_is_not_read_again() {
        let mut scan = Scan::new(&[1, 0, 2, 0, 0, 0, 3, 9]);
        assert_eq!((scan.u8(), scan.u16(), scan.u32()), (Ok(1), Ok(2), Ok(3)));
        assert_eq!((scan.rest(), scan.take(2)), (&[9][..], Err(Stop::NeedMore)));
    }
}
