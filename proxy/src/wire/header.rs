//! What a PROXY header says, in whichever form it came, and why one is refused.

use std::net::SocketAddr;

use super::tlv::Tlvs;

/// A PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    /// On whose behalf the peer connects.
    pub command: Command,
    /// What the client spoke to the peer.
    pub transport: HeaderTransport,
    /// The client and the original destination. `None`: the connection's own endpoints hold, for the header is
    /// [`Command::Local`], `UNKNOWN`, or of a family that is not IP. Two v4-mapped addresses are given as IPv4.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What version 2 carries beside addresses.
    pub tlvs: Tlvs,
}

/// On whose behalf a peer connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Its own: a health check.
    Local,
    /// A client's.
    Proxy,
}

/// What a client spoke to the peer that sends the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderTransport {
    /// Not said.
    Unspecified,
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

impl ProxyHeader {
    /// A header that leaves the connection's own endpoints in force.
    #[must_use]
    pub(crate) fn without_addresses(command: Command, transport: HeaderTransport) -> Self {
        Self { command, transport, addresses: None, tlvs: Tlvs::default() }
    }

    /// Itself, if it does not name a client of the other transport than that by which it came. The specification leaves open
    /// whether such a header is refused or passed over (2.2); passed over, a stranger would have the address of a trusted peer.
    ///
    /// # Errors
    ///
    /// [`HeaderRefusal::V2OtherTransport`].
    pub(crate) fn not_of(self, other: HeaderTransport) -> Result<Self, HeaderRefusal> {
        if self.addresses.is_some() && self.transport == other {
            return Err(HeaderRefusal::V2OtherTransport);
        }
        Ok(self)
    }
}

/// Why a header is refused. Section numbers are those of the PROXY protocol's specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeaderRefusal {
    /// 2.1
    #[error("the line does not begin with \"PROXY\"")]
    V1Missing,
    /// 2.1: "if the CRLF sequence is not found in the first 107 characters".
    #[error("no end of line within 107 bytes")]
    V1TooLong,
    /// 2.1: "must not tolerate a single CR or LF character".
    #[error("CR or LF alone in the line; only CRLF ends it")]
    V1LineEnd,
    /// 2.1: "exactly one space".
    #[error("not six fields with one space between each")]
    V1Fields,
    /// 2.1
    #[error("the protocol is none of TCP4, TCP6, UNKNOWN")]
    V1Protocol,
    /// 2.1: "the advertised protocol family dictates what format to use".
    #[error("an address is not a valid one of the family that the line names")]
    V1Address,
    /// 2.1: "heading zeroes are not permitted".
    #[error("a port is not a decimal number of 0 to 65535 without leading zeros")]
    V1Port,
    /// 2.2
    #[error("the header does not begin with the signature of version 2")]
    V2Missing,
    /// 2.2: the highest four bits of byte 13.
    #[error("version {0}, where only 2 has this signature")]
    V2Version(u8),
    /// 2.2: the lowest four bits of byte 13.
    #[error("command {0}; allowed are 0 (LOCAL) and 1 (PROXY)")]
    V2Command(u8),
    /// 2.2: the highest four bits of byte 14.
    #[error("address family {0}; allowed are 0 to 3")]
    V2Family(u8),
    /// 2.2: the lowest four bits of byte 14; 0 only beside family 0, for else it is open how long the addresses are.
    #[error("transport {0} beside this address family; allowed are 1 (stream) and 2 (datagram)")]
    V2Transport(u8),
    /// [`ProxyHeader::not_of`].
    #[error("a client of UDP named over TCP, or one of TCP over UDP")]
    V2OtherTransport,
    /// [`super::proxy_v2::MAX_LENGTH`].
    #[error("the header would take {0} bytes; at most 4096 are read")]
    V2TooLong(usize),
    /// 2.2: the length counts the addresses too.
    #[error("the length of {0} bytes does not hold the addresses")]
    V2AddressesCut(usize),
    /// A datagram is whole, so nothing can follow.
    #[error("the datagram ends within its header")]
    V2Cut,
    /// 2.2: type and length take three bytes.
    #[error("one or two bytes are left where a TLV must begin")]
    TlvCut,
    /// 2.2
    #[error("a TLV is longer than what is left of the header")]
    TlvOverrun,
    /// 2.2.2
    #[error("AUTHORITY is not UTF-8")]
    AuthorityEncoding,
    /// 2.2.3
    #[error("CRC32C of {0} bytes, not 4")]
    Crc32cLength(usize),
    /// 2.2.3: each would count the other as zero or not, which is not specified.
    #[error("CRC32C twice")]
    Crc32cTwice,
    /// 2.2.3: "the receiver MUST treat the TCP connection providing the header as invalid".
    #[error("CRC32C does not match")]
    Crc32cMismatch,
    /// 2.2.5
    #[error("UNIQUE_ID of {0} bytes; at most 128")]
    UniqueIdLength(usize),
    /// 2.2.6
    #[error("SSL of {0} bytes; at least 5")]
    SslCut(usize),
    /// 2.2.6
    #[error("one or two bytes are left where a TLV within SSL must begin")]
    SslTlvCut,
    /// 2.2.6
    #[error("a TLV within SSL is longer than what is left of it")]
    SslTlvOverrun,
    /// 2.2.7
    #[error("NETNS is not ASCII")]
    NetnsEncoding,
    /// Cloudflare's Simple Proxy Protocol.
    #[error("the datagram does not begin with 0x56EC")]
    SppMissing,
    /// Cloudflare's Simple Proxy Protocol.
    #[error("the datagram does not hold the 38 bytes of its header")]
    SppCut,
}

impl HeaderRefusal {
    /// A short name that stays the same, for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::V1Missing => "v1_missing",
            Self::V1TooLong => "v1_too_long",
            Self::V1LineEnd => "v1_line_end",
            Self::V1Fields => "v1_fields",
            Self::V1Protocol => "v1_protocol",
            Self::V1Address => "v1_address",
            Self::V1Port => "v1_port",
            Self::V2Missing => "v2_missing",
            Self::V2Version(_) => "v2_version",
            Self::V2Command(_) => "v2_command",
            Self::V2Family(_) => "v2_family",
            Self::V2Transport(_) => "v2_transport",
            Self::V2OtherTransport => "v2_other_transport",
            Self::V2TooLong(_) => "v2_too_long",
            Self::V2AddressesCut(_) => "v2_addresses_cut",
            Self::V2Cut => "v2_cut",
            Self::TlvCut => "tlv_cut",
            Self::TlvOverrun => "tlv_overrun",
            Self::AuthorityEncoding => "authority_encoding",
            Self::Crc32cLength(_) => "crc32c_length",
            Self::Crc32cTwice => "crc32c_twice",
            Self::Crc32cMismatch => "crc32c_mismatch",
            Self::UniqueIdLength(_) => "unique_id_length",
            Self::SslCut(_) => "ssl_cut",
            Self::SslTlvCut => "ssl_tlv_cut",
            Self::SslTlvOverrun => "ssl_tlv_overrun",
            Self::NetnsEncoding => "netns_encoding",
            Self::SppMissing => "spp_missing",
            Self::SppCut => "spp_cut",
        }
    }
}
