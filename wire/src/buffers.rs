//! Buffers that are used again and again, so that a packet needs no allocation once the traffic is known.

/// Lengths of the buffers, in bytes: small packets, a frame of the usual MTU, a jumbo frame, a whole segment.
const LENGTHS: [usize; 4] = [256, 2048, 16 * 1024, 68 * 1024];
/// What all spare buffers hold at most; what comes back beyond is given to the allocator.
const SPARE_BYTES: usize = 16 << 20;

/// A frame's own bytes.
pub(crate) type Buffer = Vec<u8>;

/// The spare buffers, by length.
#[derive(Debug, Default)]
pub struct Buffers {
    spare: [Vec<Buffer>; LENGTHS.len()],
    spare_bytes: usize,
}

impl Buffers {
    /// What a frame of `length` bytes will occupy: the buffer, not the frame.
    pub(crate) fn occupied(length: usize) -> usize {
        LENGTHS.into_iter().find(|&fits| fits >= length).unwrap_or(length)
    }

    /// A buffer with these bytes.
    pub(crate) fn filled(&mut self, bytes: &[u8]) -> Buffer {
        let mut buffer = self.take(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn put_back(&mut self, mut buffer: Buffer) {
        let occupied = buffer.capacity();
        let class = LENGTHS.iter().position(|&length| length == occupied);
        if let Some(spare) = class.and_then(|class| self.spare.get_mut(class)) {
            if self.spare_bytes + occupied <= SPARE_BYTES {
                buffer.clear();
                spare.push(buffer);
                self.spare_bytes += occupied;
            }
        }
    }

    fn take(&mut self, length: usize) -> Buffer {
        let occupied = Self::occupied(length);
        let class = LENGTHS.iter().position(|&fits| fits == occupied);
        match class.and_then(|class| self.spare.get_mut(class)).and_then(Vec::pop) {
            Some(buffer) => {
                self.spare_bytes -= buffer.capacity();
                buffer
            }
            None => Buffer::with_capacity(occupied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_came_back_is_used_again_for_the_same_length() {
        let mut buffers = Buffers::default();
        let first = buffers.filled(&[1; 1514]);
        let place = first.as_ptr();
        buffers.put_back(first);
        let other = buffers.filled(&[2; 9000]);
        let again = buffers.filled(&[3; 60 * 20]);
        assert_eq!((again.as_ptr(), again.as_slice()), (place, [3; 1200].as_slice()));
        assert_ne!(other.as_ptr(), place);
    }

    #[test]
    fn spare_buffers_are_bounded() {
        let mut buffers = Buffers::default();
        let many: Vec<Buffer> = (0..400).map(|_| buffers.filled(&[0; 65_000])).collect();
        many.into_iter().for_each(|buffer| buffers.put_back(buffer));
        assert!(buffers.spare_bytes <= SPARE_BYTES);
        assert_eq!(buffers.spare[3].len(), SPARE_BYTES / LENGTHS[3]);
    }

    #[test]
    fn a_frame_occupies_a_buffer_that_fits() {
        for (length, occupied) in [(1, 256), (256, 256), (257, 2048), (65_600, 68 * 1024), (100_000, 100_000)] {
            assert_eq!(Buffers::occupied(length), occupied);
        }
        assert_eq!(Buffers::default().filled(&[9; 100_000]).len(), 100_000);
    }
}
