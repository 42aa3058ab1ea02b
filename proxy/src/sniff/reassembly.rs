//! Bytes that arrive at offsets, in any order and more than once, put back in order; bounded.

use std::iter;
use std::ops::Range;

/// More separate stretches than this no client makes; it bounds the cost of one that tries.
const MOST_STRETCHES: usize = 256;

/// A message under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reassembly {
    bytes: Vec<u8>,
    /// What of `bytes` is there: ascending, with gaps between.
    held: Vec<Range<usize>>,
}

/// Why a part is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It ends past the limit.
    TooLong,
    /// It differs from what came before at the same place (RFC 9000 section 2.2). Whoever reads the other version sees another
    /// name, so neither is believed.
    Contradicts,
    /// There would be too many gaps.
    TooScattered,
}

impl Reassembly {
    /// Puts `part` at `offset`; nothing may lie past `limit`.
    pub(crate) fn insert(&mut self, offset: usize, part: &[u8], limit: usize) -> Result<(), Unfit> {
        let end = offset.checked_add(part.len()).filter(|&end| end <= limit).ok_or(Unfit::TooLong)?;
        if part.is_empty() {
            return Ok(());
        }
        if self.contradicts(offset, part) {
            return Err(Unfit::Contradicts);
        }
        let first = self.held.partition_point(|range| range.end < offset);
        let past = self.held.partition_point(|range| range.start <= end);
        if first == past && self.held.len() == MOST_STRETCHES {
            return Err(Unfit::TooScattered);
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(offset..end) {
            place.copy_from_slice(part);
        }
        let joined = self.held.get(first..past).unwrap_or_default();
        let start = joined.first().map_or(offset, |range| range.start.min(offset));
        let end = joined.last().map_or(end, |range| range.end.max(end));
        self.held.splice(first..past, iter::once(start..end));
        Ok(())
    }

    /// What there is without a gap, from the beginning.
    pub(crate) fn front(&self) -> &[u8] {
        match self.held.first() {
            Some(range) if range.start == 0 => self.bytes.get(range.clone()).unwrap_or_default(),
            Some(_) | None => &[],
        }
    }

    /// Bytes of memory taken.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn contradicts(&self, offset: usize, part: &[u8]) -> bool {
        let end = offset + part.len();
        let begin = self.held.partition_point(|range| range.end <= offset);
        self.held.iter().skip(begin).take_while(|range| range.start < end).any(|range| {
            let (from, to) = (range.start.max(offset), range.end.min(end));
            self.bytes.get(from..to) != part.get(from - offset..to - offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Reassembly, Unfit, MOST_STRETCHES};

    #[test]
    fn parts_in_any_order_and_twice_make_the_whole() {
        let whole: Vec<u8> = (0..40).collect();
        let cuts = [(30, 40), (0, 5), (3, 12), (20, 22), (0, 40), (12, 20), (38, 40)];
        for skip in 0..cuts.len() {
            let mut parts = Reassembly::default();
            for &(from, to) in cuts.iter().cycle().skip(skip).take(cuts.len()) {
                parts.insert(from, &whole[from..to], 40).unwrap();
                assert!(whole.starts_with(parts.front()));
            }
            assert_eq!(parts.front(), whole);
        }
    }

    #[test]
    fn nothing_is_at_the_front_while_its_first_byte_is_missing() {
        let mut parts = Reassembly::default();
        parts.insert(1, b"bcd", 9).unwrap();
        assert_eq!(parts.front(), b"");
        parts.insert(0, b"a", 9).unwrap();
        assert_eq!((parts.front(), parts.held.len()), (&b"abcd"[..], 1));
    }

    #[test]
    fn other_bytes_at_the_same_place_are_refused() {
        let mut parts = Reassembly::default();
        parts.insert(2, b"cde", 9).unwrap();
        parts.insert(7, b"h", 9).unwrap();
        for (offset, part) in [(0, &b"abX"[..]), (4, b"X"), (4, b"efgX"), (3, b"deXX")] {
            let expected = if part == b"deXX" { Ok(()) } else { Err(Unfit::Contradicts) };
            assert_eq!(parts.clone().insert(offset, part, 9), expected, "{offset}");
        }
    }

    #[test]
    fn length_and_gaps_are_bounded() {
        let mut parts = Reassembly::default();
        assert_eq!(parts.insert(8, b"ab", 9), Err(Unfit::TooLong));
        assert_eq!(parts.insert(usize::MAX, b"a", 9), Err(Unfit::TooLong));
        for place in 0..MOST_STRETCHES {
            parts.insert(place * 2, b"a", 9999).unwrap();
        }
        assert_eq!(parts.insert(MOST_STRETCHES * 2, b"a", 9999), Err(Unfit::TooScattered));
        parts.insert(1, b"b", 9999).unwrap();
        assert_eq!((parts.front(), parts.size()), (&b"aba"[..], MOST_STRETCHES * 2 - 1));
    }
}
