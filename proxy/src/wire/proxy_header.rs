//! Whether a stream begins with a PROXY header, of whichever version, and what it says.

use super::header::{HeaderRefusal, HeaderTransport, ProxyHeader};
use super::{proxy_v1, proxy_v2, Parse};

/// Why a stream has no header to go by. The two are not alike: where a header is optional, bytes that are none are the
/// client's, but a broken header of a trusted peer is the peer's fault and never payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StreamRefusal {
    /// The first bytes begin no header.
    #[error("the first bytes begin no PROXY header")]
    NotAHeader,
    /// They begin a header that is faulty.
    #[error("broken PROXY header: {0}")]
    Broken(#[from] HeaderRefusal),
}

impl StreamRefusal {
    /// A short name that stays the same, for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotAHeader => "not_a_header",
            Self::Broken(refusal) => refusal.label(),
        }
    }
}

/// Reads the header with which a stream begins. What follows it is the client's, also when it looks like another header.
#[must_use]
pub fn detect_and_parse(input: &[u8]) -> Parse<ProxyHeader, StreamRefusal> {
    let answer = match (begins(input, proxy_v2::SIGNATURE), begins(input, proxy_v1::BEGINNING)) {
        (Begins::No, Begins::No) => return Parse::Refuse(StreamRefusal::NotAHeader),
        (Begins::Yes, _) => proxy_v2::parse(input),
        (_, Begins::Yes) => proxy_v1::parse(input),
        (Begins::SoFar, _) | (_, Begins::SoFar) => return Parse::NeedMore,
    };
    match answer {
        Parse::Done { value, consumed } => match value.not_of(HeaderTransport::Datagram) {
            Ok(value) => Parse::Done { value, consumed },
            Err(refusal) => Parse::Refuse(StreamRefusal::Broken(refusal)),
        },
        Parse::NeedMore => Parse::NeedMore,
        Parse::Refuse(refusal) => Parse::Refuse(StreamRefusal::Broken(refusal)),
    }
}

enum Begins {
    Yes,
    SoFar,
    No,
}

fn begins(input: &[u8], with: &[u8]) -> Begins {
    if input.starts_with(with) {
        Begins::Yes
    } else if with.starts_with(input) {
        Begins::SoFar
    } else {
        Begins::No
    }
}

#[cfg(test)]
mod tests;
