//! Reads fields of the first bytes one after the other, and tells "other than expected" from "not here yet".

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
    fn what_was_taken_is_not_read_again() {
        let mut scan = Scan::new(&[1, 0, 2, 0, 0, 0, 3, 9]);
        assert_eq!((scan.u8(), scan.u16(), scan.u32()), (Ok(1), Ok(2), Ok(3)));
        assert_eq!((scan.rest(), scan.take(2)), (&[9][..], Err(Stop::NeedMore)));
    }
}
