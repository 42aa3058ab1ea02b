//! A frame as a TAP gives and takes it, and what its offload header (`struct virtio_net_hdr`, `linux/virtio_net.h`) says.

/// Bytes of the `virtio_net_hdr` before each Ethernet frame, without `num_buffers`.
pub const VNET_HEADER_LEN: usize = 10;
/// Bytes of the shortest Ethernet header: two addresses and a type.
pub const ETHERNET_HEADER_LEN: usize = 14;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the sum of the pseudo header only.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_ECN`, a mark beside the kind of segment.
const GSO_ECN: u8 = 0x80;
const GSO_NONE: u8 = 0;
const GSO_UDP_L4: u8 = 5;
const UDP_HEADER_LEN: usize = 8;
/// Where a TCP header has its own length, in bytes from its start: the upper half of this byte, in words of four.
const TCP_DATA_OFFSET: usize = 12;

/// The kernel's offload header, then the Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a>(&'a [u8]);

impl<'a> Frame<'a> {
    /// None if the bytes are too few to be one.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= VNET_HEADER_LEN + ETHERNET_HEADER_LEN).then_some(Self(bytes))
    }

    /// Header and frame, as they are read and written.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Length of the Ethernet frame alone, in bytes.
    #[must_use]
    pub fn ethernet_len(self) -> usize {
        self.0.len() - VNET_HEADER_LEN
    }

    /// Bytes that the frame has on a real wire, from the Ethernet header on: a segment still to be cut (GSO) counts as
    /// all of its frames, each with its own headers.
    #[must_use]
    pub fn wire_len(self) -> usize {
        let whole = self.ethernet_len();
        let Some((headers, segment)) = self.cut() else {
            return whole;
        };
        let payload = whole.saturating_sub(headers);
        let frames = payload.div_ceil(segment).max(1);
        payload + frames * headers
    }

    /// Length of the headers and of the payload of each frame that the kernel is to cut; None if it is to cut none.
    fn cut(self) -> Option<(usize, usize)> {
        let kind = self.byte(1)? & !GSO_ECN;
        let segment = self.word(4)?;
        if kind == GSO_NONE || segment == 0 {
            return None;
        }
        // `hdr_len` is no more than a hint; where the transport header begins is told exactly by `csum_start`.
        let transport = self.word(6)?;
        let header = if kind == GSO_UDP_L4 {
            UDP_HEADER_LEN
        } else {
            usize::from(self.byte(VNET_HEADER_LEN + transport + TCP_DATA_OFFSET)? >> 4) * 4
        };
        Some((transport + header, segment))
    }

    fn byte(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    /// A field of the offload header, which has the byte order of the host.
    fn word(self, at: usize) -> Option<usize> {
        let bytes = self.0.get(at..at + 2)?.try_into().ok()?;
        Some(usize::from(u16::from_ne_bytes(bytes)))
    }
}

/// Flips one bit behind the Ethernet header, which one by `chance`. The checksum is completed before, so that the
/// receiver finds it wrong. False, and nothing is changed, if there is no byte to spoil.
pub(crate) fn corrupt(bytes: &mut [u8], chance: u64) -> bool {
    let first = VNET_HEADER_LEN + ETHERNET_HEADER_LEN;
    let bits = bytes.len().saturating_sub(first) * 8;
    if bits == 0 {
        return false;
    }
    complete_checksum(bytes);
    let bit = usize::try_from(chance % bits as u64).unwrap_or(0);
    if let Some(byte) = bytes.get_mut(first + bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    true
}

/// Does what the sender's offload left to do (`skb_checksum_help`), and withdraws every claim about the checksum.
/// A segment still to be cut keeps its header: each of its frames gets its own sum when the kernel cuts it.
fn complete_checksum(bytes: &mut [u8]) {
    let (header, frame) = bytes.split_at_mut(VNET_HEADER_LEN.min(bytes.len()));
    let [flags, kind, _, _, _, _, start_0, start_1, offset_0, offset_1] = header else {
        return;
    };
    if *kind & !GSO_ECN != GSO_NONE {
        return;
    }
    if *flags & NEEDS_CHECKSUM != 0 {
        let start = usize::from(u16::from_ne_bytes([*start_0, *start_1]));
        let field = start + usize::from(u16::from_ne_bytes([*offset_0, *offset_1]));
        let sum = frame.get(start..).map(internet_checksum);
        if let (Some(sum), Some(place)) = (sum, frame.get_mut(field..field + 2)) {
            // A UDP sum of zero would mean "none" (RFC 768), so it is sent as its complement; to TCP both are one.
            place.copy_from_slice(&if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() });
        }
    }
    header.fill(0);
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += match *pair {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            [high] => u64::from(high) << 8,
            _ => 0,
        };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of `payload` zeroes with the headers of TCP over IPv4 (34 bytes, then `words` words), to be cut at `segment`.
    fn tcp_segment(kind: u8, words: u8, payload: usize, segment: u16) -> Vec<u8> {
        let mut bytes = vec![0; VNET_HEADER_LEN + 34 + usize::from(words) * 4 + payload];
        bytes[0] = NEEDS_CHECKSUM;
        bytes[1] = kind;
        bytes[2..4].copy_from_slice(&90_u16.to_ne_bytes()); // a hint that is off, as the kernel's often is
        bytes[4..6].copy_from_slice(&segment.to_ne_bytes());
        bytes[6..8].copy_from_slice(&34_u16.to_ne_bytes());
        bytes[VNET_HEADER_LEN + 34 + TCP_DATA_OFFSET] = words << 4;
        bytes
    }

    #[test]
    fn fewer_bytes_than_both_headers_are_no_frame() {
        let shortest = VNET_HEADER_LEN + ETHERNET_HEADER_LEN;
        for length in 0..shortest {
            assert_eq!(Frame::new(&vec![0; length]), None);
        }
        assert_eq!(Frame::new(&vec![0; shortest]).map(Frame::ethernet_len), Some(ETHERNET_HEADER_LEN));
    }

    #[test]
    fn a_segment_counts_as_all_of_its_frames_with_their_headers() {
        for (kind, ecn) in [(1, 0), (4, 0), (1, GSO_ECN)] {
            let bytes = tcp_segment(kind | ecn, 8, 2 * 1448 + 1, 1448);
            let frame = Frame::new(&bytes).unwrap();
            assert_eq!(frame.wire_len(), 2 * 1448 + 1 + 3 * (34 + 32));
        }
        let mut udp = tcp_segment(GSO_UDP_L4, 0, 8 + 3000, 1000);
        udp[4..6].copy_from_slice(&1000_u16.to_ne_bytes());
        assert_eq!(Frame::new(&udp).unwrap().wire_len(), 3000 + 3 * 42);
    }

    #[test]
    fn a_plain_frame_counts_as_itself() {
        assert_eq!(Frame::new(&[0; 70]).unwrap().wire_len(), 60);
        let no_segment_size = tcp_segment(1, 8, 500, 0);
        assert_eq!(Frame::new(&no_segment_size).unwrap().wire_len(), 34 + 32 + 500);
    }

    #[test]
    fn any_header_gives_a_length_of_at_least_the_frame() {
        let chance = crate::chance::Stream::new(1, 1);
        for number in 0..20_000 {
            let length = VNET_HEADER_LEN + 14 + usize::from(chance.draw(number, 0).to_ne_bytes()[0]);
            let bytes: Vec<u8> = (0..length as u64).map(|at| chance.draw(number, at + 1).to_ne_bytes()[0]).collect();
            let frame = Frame::new(&bytes).unwrap();
            assert!(frame.wire_len() >= frame.ethernet_len());
        }
    }

    #[test]
    fn one_bit_behind_the_ethernet_header_is_flipped_and_each_can_be() {
        let mut seen = [0_u32; 16];
        for chance in 0..16 {
            let mut bytes = vec![0; VNET_HEADER_LEN + ETHERNET_HEADER_LEN + 2];
            assert!(corrupt(&mut bytes, chance));
            assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
            assert!(bytes[..VNET_HEADER_LEN + ETHERNET_HEADER_LEN].iter().all(|byte| *byte == 0));
            seen[usize::try_from(chance).unwrap()] = u32::from(bytes[24]) | u32::from(bytes[25]) << 8;
        }
        assert_eq!(seen.iter().fold(0, |all, bit| all | bit), 0xffff);
    }

    #[test]
    fn a_bare_header_has_nothing_to_spoil() {
        let mut bytes = vec![7; VNET_HEADER_LEN + ETHERNET_HEADER_LEN];
        assert!(!corrupt(&mut bytes, 3));
        assert_eq!(bytes, vec![7; VNET_HEADER_LEN + ETHERNET_HEADER_LEN]);
    }

    #[test]
    fn the_checksum_is_completed_before_so_that_the_receiver_sees_the_damage() {
        // UDP 1000 -> 2000 of 192.0.2.1 and 192.0.2.2 with the content "hello": the field holds the pseudo header's sum.
        let mut bytes = vec![0; VNET_HEADER_LEN + 34 + 13];
        bytes[0] = NEEDS_CHECKSUM;
        bytes[6..8].copy_from_slice(&34_u16.to_ne_bytes());
        bytes[8..10].copy_from_slice(&6_u16.to_ne_bytes());
        let udp = VNET_HEADER_LEN + 34;
        let pseudo = [192, 0, 2, 1, 192, 0, 2, 2, 0, 17, 0, 13];
        bytes[udp..udp + 8].copy_from_slice(&[0x03, 0xe8, 0x07, 0xd0, 0, 13, 0, 0]);
        bytes[udp + 8..].copy_from_slice(b"hello");
        let partial = !internet_checksum(&pseudo);
        bytes[udp + 6..udp + 8].copy_from_slice(&partial.to_be_bytes());
        let mut whole = bytes.clone();
        complete_checksum(&mut whole);
        let verified = |bytes: &[u8]| internet_checksum(&[pseudo.as_slice(), &bytes[udp..]].concat());
        assert_eq!(verified(&whole), 0);
        assert_eq!(whole[..VNET_HEADER_LEN], [0; VNET_HEADER_LEN]);
        for chance in (20 * 8)..(33 * 8) {
            let mut spoilt = bytes.clone();
            corrupt(&mut spoilt, chance);
            assert_ne!(verified(&spoilt), 0, "bit {chance}");
            let flipped: u32 = spoilt.iter().zip(&whole).map(|(one, other)| (one ^ other).count_ones()).sum();
            assert_eq!(flipped, 1, "but for one bit it is the frame with its checksum whole");
        }
    }

    #[test]
    fn a_checksum_that_points_outside_is_left_alone() {
        let mut bytes = vec![0xff; VNET_HEADER_LEN + 60];
        bytes[..2].copy_from_slice(&[NEEDS_CHECKSUM, GSO_NONE]);
        assert!(corrupt(&mut bytes, 0));
        assert!(bytes[VNET_HEADER_LEN + 15..].iter().all(|byte| *byte == 0xff));
    }
}
