//! The words for what became of PROXY headers and of datagrams.

use serde::{Deserialize, Serialize};

/// What became of a PROXY header that a peer sent, or did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderIn {
    /// None was expected: bytes that look like one are payload.
    NotExpected,
    /// None came, and none was needed.
    Absent,
    /// Version 1, believed.
    V1,
    /// Version 2, believed.
    V2,
    /// A header that says to use the real endpoints (LOCAL, UNKNOWN, UNSPEC).
    Local,
    /// Cloudflare's Simple Proxy Protocol, believed.
    Spp,
    /// A datagram without one, under the header of an earlier datagram of its peer.
    Remembered,
    /// None came though one was needed.
    Missing,
    /// What came is none.
    Broken,
    /// It was not whole in time.
    TimedOut,
    /// It must be signed, and is not.
    Unsigned,
    /// It is signed with no key that is known here, or is not as it was when it was signed.
    WronglySigned,
    /// It was signed too long ago, or too far in the future, by this host's clock.
    SignedStale,
    /// What was signed was taken before.
    SignedReplayed,
}

/// Why the signature of a PROXY header is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureFault {
    /// There is none.
    Unsigned,
    /// No key that is known here has made it of this header.
    Wrong,
    /// It was made too long ago, or too far in the future, by this host's clock.
    Stale,
    /// It was taken before.
    Replayed,
}

impl SignatureFault {
    /// Its stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Wrong => "wrong",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
        }
    }
}

impl From<SignatureFault> for HeaderIn {
    fn from(fault: SignatureFault) -> Self {
        match fault {
            SignatureFault::Unsigned => Self::Unsigned,
            SignatureFault::Wrong => Self::WronglySigned,
            SignatureFault::Stale => Self::SignedStale,
            SignatureFault::Replayed => Self::SignedReplayed,
        }
    }
}

impl HeaderIn {
    /// All, in order.
    pub const ALL: [Self; 14] = [
        Self::NotExpected,
        Self::Absent,
        Self::V1,
        Self::V2,
        Self::Local,
        Self::Spp,
        Self::Remembered,
        Self::Missing,
        Self::Broken,
        Self::TimedOut,
        Self::Unsigned,
        Self::WronglySigned,
        Self::SignedStale,
        Self::SignedReplayed,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotExpected => "not_expected",
            Self::Absent => "absent",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Local => "local",
            Self::Spp => "spp",
            Self::Remembered => "remembered",
            Self::Missing => "missing",
            Self::Broken => "broken",
            Self::TimedOut => "timed_out",
            Self::Unsigned => "unsigned",
            Self::WronglySigned => "wrongly_signed",
            Self::SignedStale => "signed_stale",
            Self::SignedReplayed => "signed_replayed",
        }
    }
}

/// The PROXY header that a backend got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderOut {
    /// None.
    None,
    /// Version 1.
    V1,
    /// Version 2.
    V2,
    /// Cloudflare's Simple Proxy Protocol.
    Spp,
}

impl HeaderOut {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::None, Self::V1, Self::V2, Self::Spp];

    /// Its stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Spp => "spp",
        }
    }
}

/// Why a datagram went nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UdpDrop {
    /// Its source is on the deny list.
    Denied,
    /// Its PROXY header is missing, broken or not believed.
    Header,
    /// No rule takes it, or the rule refuses.
    Refused,
    /// The table of flows is full, or its source has too many.
    FlowLimit,
    /// More datagrams of its flow already wait for a decision than are kept.
    HeldTooMany,
    /// Its flow's rate, or its listener's, is used up.
    Rate,
    /// The backend's socket could not be had.
    NoUpstream,
    /// The kernel took it no more: its buffers are full.
    SendBuffer,
    /// With its header it is longer than the path carries.
    TooLong,
    /// The kernel refused to send it for another reason.
    SendError,
    /// It has no flow, and none begins while the proxy ends.
    Draining,
}

impl UdpDrop {
    /// All, in order.
    pub const ALL: [Self; 11] = [
        Self::Denied,
        Self::Header,
        Self::Refused,
        Self::FlowLimit,
        Self::HeldTooMany,
        Self::Rate,
        Self::NoUpstream,
        Self::SendBuffer,
        Self::TooLong,
        Self::SendError,
        Self::Draining,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Header => "header",
            Self::Refused => "refused",
            Self::FlowLimit => "flow_limit",
            Self::HeldTooMany => "held_too_many",
            Self::Rate => "rate",
            Self::NoUpstream => "no_upstream",
            Self::SendBuffer => "send_buffer",
            Self::TooLong => "too_long",
            Self::SendError => "send_error",
            Self::Draining => "draining",
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Who came to a listener.
    Client,
    /// A candidate that was connected to.
    Backend,
}

impl Peer {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Client, Self::Backend];

    /// Its stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
        }
    }
}

/// Which endpoint the backend sees: the rung of the ladder on which the bind succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceUsed {
    /// The client's address and port.
    ClientEndpoint,
    /// The client's address, another port.
    ClientAddress,
    /// The proxy's own.
    Own,
}

impl SourceUsed {
    /// Its stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientEndpoint => "client_endpoint",
            Self::ClientAddress => "client_address",
            Self::Own => "own",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_at_its_own_place_with_its_own_word() {
        assert!(HeaderIn::ALL.iter().enumerate().all(|(place, outcome)| *outcome as usize == place));
        assert!(HeaderOut::ALL.iter().enumerate().all(|(place, form)| *form as usize == place));
        assert!(UdpDrop::ALL.iter().enumerate().all(|(place, why)| *why as usize == place));
        let words: std::collections::HashSet<_> = UdpDrop::ALL.iter().map(|why| why.label()).collect();
        assert_eq!(words.len(), UdpDrop::ALL.len());
    }
}
