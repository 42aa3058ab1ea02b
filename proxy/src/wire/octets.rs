//! Fixed-width fields out of a slice: absent where the slice ends first, so that no length can panic.

/// `N` bytes at `at`.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The number of two bytes at `at`, in network order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_past_the_end_is_absent() {
        assert_eq!(u16_at(&[1, 2, 3], 1), Some(0x0203));
        assert_eq!(u16_at(&[1, 2, 3], 2), None);
        assert_eq!(array_at::<4>(&[1, 2, 3], usize::MAX), None);
    }
}
