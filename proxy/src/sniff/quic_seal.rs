//! Initial packets as a client makes them, for tests and fuzzing, which must get past the tag.

use super::quic::SHORTEST_INITIAL_DATAGRAM;
use super::quic_header::{PacketType, Version};
use super::quic_keys::ClientKeys;

/// What an Initial packet is made of.
#[derive(Debug, Clone)]
pub(crate) struct SampleInitial<'a> {
    /// As on the wire; one that is known.
    pub(crate) version: u32,
    pub(crate) dcid: &'a [u8],
    pub(crate) token: &'a [u8],
    pub(crate) number: u32,
    pub(crate) frames: &'a [u8],
    /// Bytes that the packet has at least; PADDING fills it up.
    pub(crate) least: usize,
    /// The "fixed" bit is 0 (RFC 9287).
    pub(crate) has_greased_bit: bool,
}

impl Default for SampleInitial<'_> {
    fn default() -> Self {
        let least = SHORTEST_INITIAL_DATAGRAM;
        Self { version: 1, dcid: b"destined", token: b"", number: 0, frames: b"", least, has_greased_bit: false }
    }
}

impl SampleInitial<'_> {
    /// `None` if it is no packet: an unknown version, an id or a token too long.
    pub(crate) fn seal(&self) -> Option<Vec<u8>> {
        let version = Version::from_wire(self.version)?;
        let turned = [0xc3, 0xd3].into_iter().find(|&first| version.packet_type(first) == PacketType::Initial)?;
        let token = u8::try_from(self.token.len()).ok().filter(|&length| length < 1 << 6)?;
        let mut header = vec![if self.has_greased_bit { turned & !0x40 } else { turned }];
        header.extend(self.version.to_be_bytes());
        header.push(u8::try_from(self.dcid.len()).ok()?);
        header.extend(self.dcid);
        header.extend([0, token]);
        header.extend(self.token);
        let overhead = header.len() + 2 + 4 + 16;
        let mut frames = self.frames.to_vec();
        frames.resize(frames.len().max(self.least.saturating_sub(overhead)), 0);
        let length = u16::try_from(4 + frames.len() + 16).ok().filter(|&length| length < 1 << 14)?;
        header.extend((0x4000 | length).to_be_bytes());
        header.extend(self.number.to_be_bytes());
        ClientKeys::derive(version, self.dcid)?.seal(&header, self.number, &frames)
    }
}
