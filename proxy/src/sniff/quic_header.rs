//! Headers of QUIC packets: what any version shows (RFC 8999), and the packet types of those that are known.

use super::cursor::Cursor;

/// Connection ids are at most this long in the known versions (RFC 9000 section 17.2); the invariants allow 255.
pub const LONGEST_CONNECTION_ID: usize = 20;

/// The beginning of a packet with a long header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader<'a> {
    /// As on the wire.
    pub version: u32,
    /// Connection id of the receiver.
    pub dcid: &'a [u8],
    /// Connection id of the sender: what the other end will put into its packets from then on.
    pub scid: &'a [u8],
    /// What the packet is for.
    pub packet_type: PacketType,
    /// What follows the connection ids.
    pub(crate) rest: &'a [u8],
}

/// What a packet with a long header is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// The first of a connection, with (a part of) the hello.
    Initial,
    /// Data before the handshake is over.
    ZeroRtt,
    /// The rest of the handshake.
    Handshake,
    /// A server asks to begin again with a token.
    Retry,
    /// A server tells which versions it speaks.
    VersionNegotiation,
    /// The version is not known, so neither is the type; greased versions (`0x?a?a?a?a`) are of this kind.
    Unknown,
}

/// Versions whose Initial packets can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Drafts 29 to 32: one salt, and version 1 otherwise.
    Draft29,
    /// RFC 9000.
    V1,
    /// RFC 9369.
    V2,
}

impl Version {
    pub(crate) fn from_wire(version: u32) -> Option<Self> {
        match version {
            0xff00_001d..=0xff00_0020 => Some(Self::Draft29),
            1 => Some(Self::V1),
            0x6b33_43cf => Some(Self::V2),
            _ => None,
        }
    }

    pub(crate) fn packet_type(self, first: u8) -> PacketType {
        let bits = (first >> 4) & 3;
        // Version 2 turns the types by one (RFC 9369 section 3.2).
        let bits = if self == Self::V2 { bits.wrapping_sub(1) & 3 } else { bits };
        match bits {
            0 => PacketType::Initial,
            1 => PacketType::ZeroRtt,
            2 => PacketType::Handshake,
            _ => PacketType::Retry,
        }
    }
}

/// Reads a long header. The "fixed" bit may be 0 (RFC 9287), so only the top bit tells. `None`: a short header, or cut off,
/// or connection ids too long for its version.
#[must_use]
pub fn long_header(packet: &[u8]) -> Option<LongHeader<'_>> {
    let mut cursor = Cursor::new(packet);
    let first = cursor.u8().filter(|first| first & 0x80 != 0)?;
    let version = cursor.u32()?;
    let (dcid, scid) = (cursor.vector8()?, cursor.vector8()?);
    let packet_type = match (version, Version::from_wire(version)) {
        (0, _) => PacketType::VersionNegotiation,
        (_, None) => PacketType::Unknown,
        (_, Some(known)) => {
            if dcid.len().max(scid.len()) > LONGEST_CONNECTION_ID {
                return None;
            }
            known.packet_type(first)
        }
    };
    Some(LongHeader { version, dcid, scid, packet_type, rest: cursor.rest() })
}

/// Connection ids, receiver's and sender's, of the first packet of a datagram, if its header is long.
#[must_use]
pub fn connection_ids(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    long_header(datagram).map(|header| (header.dcid, header.scid))
}

/// The receiver's connection id in a packet with a short header. Its length is not on the wire (RFC 8999 section 5.2): it is
/// that of the sender's id in the long headers that came the other way.
#[must_use]
pub fn short_header_dcid(packet: &[u8], length: usize) -> Option<&[u8]> {
    let mut cursor = Cursor::new(packet);
    cursor.u8().filter(|first| first & 0x80 == 0)?;
    cursor.take(length)
}

#[cfg(test)]
mod tests {
    use super::{connection_ids, long_header, short_header_dcid, PacketType};

    fn header(first: u8, version: u32, dcid: &[u8], scid: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        bytes.extend(version.to_be_bytes());
        for id in [dcid, scid] {
            bytes.push(u8::try_from(id.len()).unwrap());
            bytes.extend(id);
        }
        bytes
    }

    #[test]
    fn types_are_told_by_version() {
        use PacketType::{Handshake, Initial, Retry, Unknown, VersionNegotiation, ZeroRtt};
        let cases = [
            (1, [Initial, ZeroRtt, Handshake, Retry]),
            (0xff00_001d, [Initial, ZeroRtt, Handshake, Retry]),
            (0xff00_0020, [Initial, ZeroRtt, Handshake, Retry]),
            (0x6b33_43cf, [Retry, Initial, ZeroRtt, Handshake]),
            (0x1a2a_3a4a, [Unknown; 4]),
            (0xff00_001c, [Unknown; 4]),
            (0, [VersionNegotiation; 4]),
        ];
        for (version, types) in cases {
            for (first, expected) in [0xc0, 0xd0, 0xe0, 0xf0].into_iter().zip(types) {
                let bytes = header(first, version, b"destined", b"src");
                let read = long_header(&bytes).unwrap();
                assert_eq!((read.version, read.packet_type), (version, expected));
                assert_eq!(connection_ids(&bytes), Some((&b"destined"[..], &b"src"[..])));
            }
        }
    }

    #[test]
    fn connection_ids_may_be_longer_only_in_versions_not_known() {
        assert!(long_header(&header(0xc0, 1, &[7; 20], &[7; 20])).is_some());
        assert!(long_header(&header(0xc0, 1, &[7; 21], &[])).is_none());
        assert!(long_header(&header(0xc0, 0x6b33_43cf, &[], &[7; 21])).is_none());
        assert!(long_header(&header(0xc0, 0x1a2a_3a4a, &[7; 255], &[7; 255])).is_some());
    }

    #[test]
    fn a_long_header_needs_all_its_bytes_and_its_first_bit() {
        let bytes = header(0x80, 1, b"destined", b"src");
        assert!(long_header(&bytes).is_some(), "the fixed bit may be greased");
        for cut in 0..bytes.len() {
            assert_eq!(long_header(&bytes[..cut]), None);
        }
        assert_eq!(long_header(&header(0x40, 1, b"destined", b"src")), None);
    }

    #[test]
    fn a_short_header_shows_the_id_whose_length_is_known() {
        assert_eq!(short_header_dcid(b"\x40destined and more", 8), Some(&b"destined"[..]));
        assert_eq!(short_header_dcid(b"\x40", 0), Some(&b""[..]));
        assert_eq!(short_header_dcid(b"\x40dest", 8), None);
        assert_eq!(short_header_dcid(b"\xc0destined", 8), None);
        assert_eq!(short_header_dcid(b"", 0), None);
    }
}
