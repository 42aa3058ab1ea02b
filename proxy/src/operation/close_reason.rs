//! Why a connection or a flow ended: exactly one reason each, logged once, counted once.

use std::io::ErrorKind;

use super::outcomes::SignatureFault;

/// Why a TCP connection or a UDP flow ended. The first cause wins: what follows from it is not a further reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Both directions ended in order, the client's first.
    ClientClosed,
    /// Both directions ended in order, the backend's first.
    BackendClosed,
    /// The client reset the connection.
    ClientReset,
    /// The backend reset the connection.
    BackendReset,
    /// No byte in either direction for [`crate::config::model::Timeouts::idle`] (`udp_idle` for a flow).
    IdleTimeout,
    /// A flow that only one side used, for [`crate::config::model::Timeouts::udp_one_way`].
    OneWayTimeout,
    /// One direction had ended, and the other was silent for [`crate::config::model::Timeouts::half_closed`].
    HalfClosedTimeout,
    /// Sent data was not acknowledged for so long that the kernel gave up (`TCP_USER_TIMEOUT`, keepalive), whether or not
    /// ICMP said why.
    PeerVanished,
    /// The PROXY header was not whole in time.
    HeaderTimeout,
    /// A peer that must send a PROXY header sent something else.
    HeaderMissing,
    /// A PROXY header that is none; with the parser's word for it.
    HeaderBroken(&'static str),
    /// A PROXY header that is not signed as this listener asks of its peer.
    HeaderSignature(SignatureFault),
    /// It was not known in time what the client speaks, and no rule takes what is unknown.
    PrefaceTimeout,
    /// It was not known within the byte budget what the client speaks, and no rule takes what is unknown.
    PrefaceTooLong,
    /// The client ended or reset before it was known what it speaks.
    ClientLeftEarly,
    /// A peer that spoke for nobody said nothing: a check. Counted only, as each is like the one before.
    HealthCheck,
    /// No rule matched.
    NoRule,
    /// The rule that matched refuses.
    RefusedByRule,
    /// The source is on the deny list.
    Denied,
    /// A bound on what clients may take was reached.
    OverLimit(Limit),
    /// A flow gave way to a newer one in a full table; a connection that had not said enough, to a newer one.
    Evicted,
    /// The name that the client chose may not be a target; with the policy's word for it.
    NameRefused(&'static str),
    /// The target's name has no address.
    NameNotResolved,
    /// All addresses of the target are forbidden ones.
    TargetForbidden,
    /// The target is this proxy itself.
    SelfLoop,
    /// Every candidate refused the connection.
    BackendRefused,
    /// No candidate could be reached.
    BackendUnreachable,
    /// No candidate answered in time.
    BackendTimeout,
    /// The backend must see the client's address, and that is not possible here.
    TransparencyImpossible,
    /// Ended by the proxy: it was told to stop and the time for draining was over, or its listener is no more.
    Drained,
    /// It goes on in another process of this proxy, which took over; that one tells the whole of it.
    HandedOver,
    /// A call to the kernel failed in a way that none of the others tells.
    IoError(ErrorKind),
}

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// TCP connections in all.
    Connections,
    /// TCP connections of the listener.
    ListenerConnections,
    /// TCP connections of the source.
    SourceConnections,
    /// TCP connections of the source that have not said enough.
    SourceUndecided,
    /// UDP flows in all, or of the listener.
    Flows,
    /// First bytes kept for all connections together.
    PrefaceMemory,
    /// Descriptors of the process.
    Descriptors,
}

/// Every label, in the order of [`CloseReason::index`]. Labels are an interface: dashboards and log readers hold them.
pub const ALL_LABELS: [&str; 38] = [
    "client_closed",
    "backend_closed",
    "client_reset",
    "backend_reset",
    "idle_timeout",
    "one_way_timeout",
    "half_closed_timeout",
    "peer_vanished",
    "header_timeout",
    "header_missing",
    "header_broken",
    "preface_timeout",
    "preface_too_long",
    "client_left_early",
    "health_check",
    "no_rule",
    "refused_by_rule",
    "denied",
    "over_limit_connections",
    "over_limit_listener",
    "over_limit_source",
    "over_limit_undecided",
    "over_limit_flows",
    "over_limit_preface_memory",
    "over_limit_descriptors",
    "evicted",
    "name_refused",
    "name_not_resolved",
    "target_forbidden",
    "self_loop",
    "backend_refused",
    "backend_unreachable",
    "backend_timeout",
    "transparency_impossible",
    "drained",
    "handed_over",
    "io_error",
    "header_signature",
];

/// Kinds of I/O errors that have a word of their own in the log.
const ERROR_KINDS: [(ErrorKind, &str); 13] = [
    (ErrorKind::AddrInUse, "address_in_use"),
    (ErrorKind::AddrNotAvailable, "address_not_available"),
    (ErrorKind::BrokenPipe, "broken_pipe"),
    (ErrorKind::ConnectionAborted, "connection_aborted"),
    (ErrorKind::ConnectionRefused, "connection_refused"),
    (ErrorKind::ConnectionReset, "connection_reset"),
    (ErrorKind::InvalidInput, "invalid_input"),
    (ErrorKind::NotConnected, "not_connected"),
    (ErrorKind::OutOfMemory, "out_of_memory"),
    (ErrorKind::PermissionDenied, "permission_denied"),
    (ErrorKind::TimedOut, "timed_out"),
    (ErrorKind::UnexpectedEof, "unexpected_eof"),
    (ErrorKind::Unsupported, "unsupported"),
];

impl CloseReason {
    /// Its place in [`ALL_LABELS`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::ClientClosed => 0,
            Self::BackendClosed => 1,
            Self::ClientReset => 2,
            Self::BackendReset => 3,
            Self::IdleTimeout => 4,
            Self::OneWayTimeout => 5,
            Self::HalfClosedTimeout => 6,
            Self::PeerVanished => 7,
            Self::HeaderTimeout => 8,
            Self::HeaderMissing => 9,
            Self::HeaderBroken(_) => 10,
            Self::PrefaceTimeout => 11,
            Self::PrefaceTooLong => 12,
            Self::ClientLeftEarly => 13,
            Self::HealthCheck => 14,
            Self::NoRule => 15,
            Self::RefusedByRule => 16,
            Self::Denied => 17,
            Self::OverLimit(Limit::Connections) => 18,
            Self::OverLimit(Limit::ListenerConnections) => 19,
            Self::OverLimit(Limit::SourceConnections) => 20,
            Self::OverLimit(Limit::SourceUndecided) => 21,
            Self::OverLimit(Limit::Flows) => 22,
            Self::OverLimit(Limit::PrefaceMemory) => 23,
            Self::OverLimit(Limit::Descriptors) => 24,
            Self::Evicted => 25,
            Self::NameRefused(_) => 26,
            Self::NameNotResolved => 27,
            Self::TargetForbidden => 28,
            Self::SelfLoop => 29,
            Self::BackendRefused => 30,
            Self::BackendUnreachable => 31,
            Self::BackendTimeout => 32,
            Self::TransparencyImpossible => 33,
            Self::Drained => 34,
            Self::HandedOver => 35,
            Self::IoError(_) => 36,
            Self::HeaderSignature(_) => 37,
        }
    }

    /// Its stable name.
    #[must_use]
    pub fn label(self) -> &'static str {
        ALL_LABELS.get(self.index()).copied().unwrap_or("io_error")
    }

    /// What there is to say beyond the label: the parser's or the policy's word, what is wrong with a signature, or the kind of the I/O error.
    #[must_use]
    pub fn detail(self) -> Option<&'static str> {
        if let Self::HeaderBroken(word) | Self::NameRefused(word) = self {
            return Some(word);
        }
        if let Self::HeaderSignature(fault) = self {
            return Some(fault.label());
        }
        let Self::IoError(kind) = self else { return None };
        let known = ERROR_KINDS.iter().find(|(known, _)| *known == kind);
        Some(known.map_or("unnamed", |(_, word)| word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: [Limit; 7] = [
        Limit::Connections,
        Limit::ListenerConnections,
        Limit::SourceConnections,
        Limit::SourceUndecided,
        Limit::Flows,
        Limit::PrefaceMemory,
        Limit::Descriptors,
    ];

    fn all() -> Vec<CloseReason> {
        use CloseReason::*;
        let mut all = vec![
            ClientClosed,
            BackendClosed,
            ClientReset,
            BackendReset,
            IdleTimeout,
            OneWayTimeout,
            HalfClosedTimeout,
            PeerVanished,
            HeaderTimeout,
            HeaderMissing,
            HeaderBroken("bad_version"),
            HeaderSignature(SignatureFault::Stale),
            PrefaceTimeout,
            PrefaceTooLong,
            ClientLeftEarly,
            HealthCheck,
            NoRule,
            RefusedByRule,
            Denied,
            Evicted,
            NameRefused("suffix"),
            NameNotResolved,
            TargetForbidden,
            SelfLoop,
            BackendRefused,
            BackendUnreachable,
            BackendTimeout,
            TransparencyImpossible,
            Drained,
            HandedOver,
            IoError(ErrorKind::BrokenPipe),
        ];
        all.extend(LIMITS.map(OverLimit));
        all
    }

    #[test]
    fn each_reason_has_a_label_of_its_own_and_each_label_a_reason() {
        let mut indexes: Vec<usize> = all().iter().map(|reason| reason.index()).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, (0..ALL_LABELS.len()).collect::<Vec<_>>());
        let mut labels = ALL_LABELS.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ALL_LABELS.len());
    }

    #[test]
    fn a_label_is_the_name_of_its_variant_in_snake_case() {
        for reason in all() {
            let name: String = format!("{reason:?}").chars().take_while(|c| c.is_alphanumeric()).collect();
            let snake: String = name
                .chars()
                .flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase()))
                .collect();
            assert!(reason.label().starts_with(snake.trim_start_matches('_')), "{reason:?} is {}", reason.label());
            assert!(reason.label().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn details_say_what_the_label_does_not() {
        assert_eq!(CloseReason::HeaderBroken("bad_version").detail(), Some("bad_version"));
        assert_eq!(CloseReason::HeaderSignature(SignatureFault::Stale).detail(), Some("stale"));
        assert_eq!(CloseReason::NameRefused("suffix").detail(), Some("suffix"));
        assert_eq!(CloseReason::IoError(ErrorKind::BrokenPipe).detail(), Some("broken_pipe"));
        assert_eq!(CloseReason::IoError(ErrorKind::WriteZero).detail(), Some("unnamed"));
        assert_eq!(CloseReason::Denied.detail(), None);
    }
}
