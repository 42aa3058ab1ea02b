//! The Internet checksum (RFC 1071), whole and incremental (RFC 1624).

use crate::packet::word;

/// The checksum of parts that follow one another; only the last may have an odd length.
pub(crate) fn of(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let (high, low) = (pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0));
            sum += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    !fold(sum)
}

/// What replaced words change in a sum that covers them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change(u64);

impl Change {
    /// Both changes.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after this change, HC' = ~(~HC + ~m + m') (RFC 1624, equation 3).
    pub(crate) fn applied_to(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + self.0)
    }
}

/// Writes a word and says what that changes; nothing where the bytes end before.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) -> Change {
    let Some(old) = word(bytes, at) else { return Change::default() };
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
    Change(u64::from(!old) + u64::from(value))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(of(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    /// RFC 1624 section 4: the case in which the older equation gives 0xffff.
    #[test]
    fn the_example_of_rfc_1624() {
        let mut bytes = [0x55, 0x55];
        assert_eq!(put(&mut bytes, 0, 0x3285).applied_to(0xdd2f), 0x0000);
    }

    proptest! {
        #[test]
        fn incremental_equals_whole(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..64), at in 0usize..30, value: u16
        ) {
            bytes[0] |= 1; // a sum over nothing but zeroes has two forms
            let at = at * 2;
            prop_assume!(at + 2 <= bytes.len() && at > 0);
            let before = of(&[&bytes]);
            let change = put(&mut bytes, at, value);
            prop_assert_eq!(change.applied_to(before), of(&[&bytes]));
        }
    }
}
