//! The type-length-values of a version 2 header: checked once when read, then only looked at (PROXY protocol, 2.2).

use super::header::HeaderRefusal;
use super::octets::{array_at, u16_at};
use super::signature;

/// One protocol name of TLS ALPN (RFC 7301).
pub const ALPN: u8 = 0x01;
/// The name that the client asked for: SNI.
pub const AUTHORITY: u8 = 0x02;
/// Over the whole header, its own value taken as zero.
pub const CRC32C: u8 = 0x03;
/// Padding.
pub const NOOP: u8 = 0x04;
/// Joins the log lines of several proxies.
pub const UNIQUE_ID: u8 = 0x05;
/// The TLS session that the peer has with the client, when it ends it; holds TLVs itself.
pub const SSL: u8 = 0x20;
/// The network namespace in which the client arrived.
pub const NETNS: u8 = 0x30;

/// What whoever operates the proxies has agreed on (2.2.7).
pub const CUSTOM: std::ops::RangeInclusive<u8> = 0xe0..=0xef;

/// Types of the TLVs within [`SSL`].
pub mod ssl {
    /// The version, as text: `TLSv1.3`.
    pub const VERSION: u8 = 0x21;
    /// Common name of the client's certificate.
    pub const CN: u8 = 0x22;
    /// The cipher, by its name.
    pub const CIPHER: u8 = 0x23;
    /// How the peer's certificate is signed.
    pub const SIG_ALG: u8 = 0x24;
    /// The key of the peer's certificate.
    pub const KEY_ALG: u8 = 0x25;
    /// The key exchange's group.
    pub const GROUP: u8 = 0x26;
    /// The signature scheme of the handshake.
    pub const SIG_SCHEME: u8 = 0x27;
    /// The client's certificate (DER).
    pub const CLIENT_CERT: u8 = 0x28;
}

/// The longest UNIQUE_ID (2.2.5).
pub const UNIQUE_ID_MAX: usize = 128;

/// Type and length.
const PREFIX: usize = 3;

/// The TLVs of one header, in its order. Bounded by the header's own bound; empty ones take no memory of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tlvs {
    /// As on the wire; invariant: `Walk` goes through it without a refusal and `Tlv::decode` takes each.
    block: Box<[u8]>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tlv<'a> {
    /// [`ALPN`]
    Alpn(&'a [u8]),
    /// [`AUTHORITY`]
    Authority(&'a str),
    /// [`CRC32C`]; it did match.
    Crc32c(u32),
    /// [`NOOP`]
    Noop(&'a [u8]),
    /// [`UNIQUE_ID`]
    UniqueId(&'a [u8]),
    /// [`SSL`]
    Ssl(Ssl<'a>),
    /// [`NETNS`]
    Netns(&'a str),
    /// Custom, experimental, or younger than this program.
    Other {
        /// Its type.
        kind: u8,
        /// As on the wire.
        value: &'a [u8],
    },
}

/// What a peer says of the TLS session that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ssl<'a> {
    /// Bits: 1 TLS, 2 a certificate on this connection, 4 a certificate in this session.
    pub client: u8,
    /// 0: the client's certificate was verified.
    pub verify: u32,
    fields: &'a [u8],
}

impl Tlvs {
    /// Checks a whole block of TLVs and keeps it.
    ///
    /// # Errors
    /// The first fault. The checksum is only checked in form: it covers more than this block.
    pub fn read(block: &[u8]) -> Result<Self, HeaderRefusal> {
        let mut checksums = 0_usize;
        for found in Walk::over(block) {
            let (_, kind, value) = found.map_err(|fault| match fault {
                Fault::Cut => HeaderRefusal::TlvCut,
                Fault::Overrun => HeaderRefusal::TlvOverrun,
            })?;
            Tlv::decode(kind, value)?;
            checksums += usize::from(kind == CRC32C);
        }
        if checksums > 1 {
            return Err(HeaderRefusal::Crc32cTwice);
        }
        Ok(Self { block: block.into() })
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Tlv<'_>> {
        Walk::over(&self.block).filter_map(Result::ok).filter_map(|(_, kind, value)| Tlv::decode(kind, value).ok())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// As on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }

    /// Those that are of the client, as on the wire and in their order: what the next hop may be told too. A checksum, padding, the
    /// identifier and a signature are of the header; of types that are younger than this program nobody knows.
    pub fn of_client(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let all = Walk::over(&self.block).filter_map(Result::ok);
        all.map(|(_, kind, value)| (kind, value)).filter(|(kind, _)| is_of_client(*kind))
    }

    /// The value of the first of a type, as on the wire.
    #[must_use]
    pub fn value(&self, kind: u8) -> Option<&[u8]> {
        first(&self.block, kind).map(|(_, value)| value)
    }

    /// The name that the client asked for; the first, should there be several.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.value(AUTHORITY).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The application protocol; the first, should there be several.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.value(ALPN)
    }

    /// What joins this connection's log lines with the peer's.
    #[must_use]
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.value(UNIQUE_ID)
    }

    /// The TLS session between client and peer.
    #[must_use]
    pub fn ssl(&self) -> Option<Ssl<'_>> {
        self.value(SSL).and_then(|value| Ssl::read(value).ok())
    }

    /// The network namespace in which the client arrived.
    #[must_use]
    pub fn netns(&self) -> Option<&str> {
        self.value(NETNS).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Where in the block the checksum's four bytes stand, and what they say.
    pub(crate) fn crc32c(&self) -> Option<(usize, u32)> {
        let (at, _) = first(&self.block, CRC32C)?;
        array_at(&self.block, at).map(|value| (at, u32::from_be_bytes(value)))
    }
}

impl<'a> Tlv<'a> {
    fn decode(kind: u8, value: &'a [u8]) -> Result<Self, HeaderRefusal> {
        Ok(match kind {
            ALPN => Self::Alpn(value),
            AUTHORITY => {
                Self::Authority(std::str::from_utf8(value).map_err(|_fault| HeaderRefusal::AuthorityEncoding)?)
            }
            CRC32C => {
                let sum = value.try_into().map_err(|_fault| HeaderRefusal::Crc32cLength(value.len()))?;
                Self::Crc32c(u32::from_be_bytes(sum))
            }
            NOOP => Self::Noop(value),
            UNIQUE_ID if value.len() > UNIQUE_ID_MAX => return Err(HeaderRefusal::UniqueIdLength(value.len())),
            UNIQUE_ID => Self::UniqueId(value),
            SSL => Self::Ssl(Ssl::read(value)?),
            NETNS if value.is_ascii() => {
                Self::Netns(std::str::from_utf8(value).map_err(|_fault| HeaderRefusal::NetnsEncoding)?)
            }
            NETNS => return Err(HeaderRefusal::NetnsEncoding),
            _ => Self::Other { kind, value },
        })
    }
}

impl<'a> Ssl<'a> {
    fn read(value: &'a [u8]) -> Result<Self, HeaderRefusal> {
        let cut = HeaderRefusal::SslCut(value.len());
        let client = *value.first().ok_or(cut)?;
        let verify = u32::from_be_bytes(array_at(value, 1).ok_or(cut)?);
        let fields = value.get(5..).unwrap_or_default();
        for found in Walk::over(fields) {
            found.map_err(|fault| match fault {
                Fault::Cut => HeaderRefusal::SslTlvCut,
                Fault::Overrun => HeaderRefusal::SslTlvOverrun,
            })?;
        }
        Ok(Self { client, verify, fields })
    }

    /// The TLVs within: type and value.
    pub fn fields(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        Walk::over(self.fields).filter_map(|found| found.ok().map(|(_, kind, value)| (kind, value)))
    }

    /// The first of a type of [`ssl`], when it is text.
    #[must_use]
    pub fn text(self, kind: u8) -> Option<&'a str> {
        first(self.fields, kind).and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

fn is_of_client(kind: u8) -> bool {
    matches!(kind, ALPN | AUTHORITY | SSL | NETNS) || CUSTOM.contains(&kind) && kind != signature::KIND
}

/// Those of a block that need not have been read, up to its first fault: offset of the value, type, value.
pub(crate) fn places(block: &[u8]) -> impl Iterator<Item = (usize, u8, &[u8])> {
    Walk::over(block).filter_map(Result::ok)
}

fn first(block: &[u8], kind: u8) -> Option<(usize, &[u8])> {
    Walk::over(block).filter_map(Result::ok).find(|found| found.1 == kind).map(|(at, _, value)| (at, value))
}

/// Why a block ends in no whole TLV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Within type and length.
    Cut,
    /// Within the value.
    Overrun,
}

/// Goes from TLV to TLV, and ends at the first fault: offset of the value, type, value.
struct Walk<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn over(block: &'a [u8]) -> Self {
        Self { block, at: 0 }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<(usize, u8, &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.block.get(self.at)?;
        let start = self.at + PREFIX;
        let length = u16_at(self.block, self.at + 1);
        let value = length.and_then(|length| self.block.get(start..start + usize::from(length)));
        self.at = value.map_or(self.block.len(), |value| start + value.len());
        Some(match (length, value) {
            (None, _) => Err(Fault::Cut),
            (Some(_), None) => Err(Fault::Overrun),
            (Some(_), Some(value)) => Ok((start, kind, value)),
        })
    }
}

#[cfg(test)]
mod tests;
