//! The first bytes of a client while it is unknown where it goes: kept for the backend, each protocol asked once it must be.

use std::collections::BTreeMap;

use super::decide::Spoken;
use crate::config::model::Protocol;
use crate::sniff::{dispatch, Found, Sniffed};

/// Datagrams that a flow may bring before it is led somewhere. A hello with post-quantum keys takes two QUIC Initials; a
/// client that splits and shuffles more than four times that is not worth the memory.
pub const MOST_DATAGRAMS: usize = 8;

/// The first bytes of a connection.
#[derive(Debug, Clone, Default)]
pub struct TcpPreface {
    bytes: Vec<u8>,
    silent: bool,
    answers: Answers,
}

impl TcpPreface {
    /// With what has been read beyond a PROXY header; often nothing.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// What has been read next.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// `Timeouts::silence` has passed. Where bytes have come before, this means nothing.
    pub fn silence_passed(&mut self) {
        self.silent = true;
    }

    /// All bytes so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes, for the backend.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The protocol that rules have found to be spoken, with what it tells; among several, one of the greatest weight:
    /// see the order of [`Protocol`].
    #[must_use]
    pub fn found(&self) -> Option<(Protocol, &Found)> {
        self.answers.found()
    }

    fn quiet(&self) -> bool {
        self.silent && self.bytes.is_empty()
    }

    fn silence(&self) -> Sniffed {
        match (self.bytes.is_empty(), self.silent) {
            (false, _) => Sniffed::No,
            (true, false) => Sniffed::NeedMore,
            (true, true) => Sniffed::Yes(Found::default()),
        }
    }
}

impl Spoken for TcpPreface {
    fn is(&mut self, protocol: Protocol) -> Sniffed {
        if protocol == Protocol::Silence {
            return self.silence();
        }
        if self.quiet() {
            return Sniffed::No; // who says nothing speaks none of them: else the rules before the silent one would wait on
        }
        self.answers.ask(protocol, || dispatch::of_stream(protocol, &self.bytes))
    }

    fn is_certainly(&mut self, protocol: Protocol) -> Sniffed {
        let answer = self.is(protocol);
        let certain = answer == Sniffed::NeedMore && dispatch::stream_is_certain(protocol, &self.bytes);
        if certain {
            Sniffed::Yes(Found::default())
        } else {
            answer
        }
    }
}

/// The first datagrams of a flow.
#[derive(Debug, Clone, Default)]
pub struct DatagramPreface {
    datagrams: Vec<Vec<u8>>,
    answers: Answers,
}

impl DatagramPreface {
    /// With the datagram that began the flow.
    #[must_use]
    pub fn new(first: Vec<u8>) -> Self {
        Self { datagrams: vec![first], answers: Answers::default() }
    }

    /// A further datagram, while the decision needs more. `false`: too many are held, and it is not kept; it is time for
    /// the final decision.
    pub fn push(&mut self, datagram: Vec<u8>) -> bool {
        let room = self.datagrams.len() < MOST_DATAGRAMS;
        if room {
            self.datagrams.push(datagram);
        }
        room
    }

    /// All datagrams so far.
    #[must_use]
    pub fn datagrams(&self) -> &[Vec<u8>] {
        &self.datagrams
    }

    /// All datagrams, for the backend.
    #[must_use]
    pub fn into_datagrams(self) -> Vec<Vec<u8>> {
        self.datagrams
    }

    /// As [`TcpPreface::found`].
    #[must_use]
    pub fn found(&self) -> Option<(Protocol, &Found)> {
        self.answers.found()
    }
}

impl Spoken for DatagramPreface {
    fn is(&mut self, protocol: Protocol) -> Sniffed {
        self.answers.ask(protocol, || dispatch::of_datagrams(protocol, &self.datagrams))
    }
}

/// Final answers by protocol: a hello is read once, however many rules ask for it.
#[derive(Debug, Clone, Default)]
struct Answers(BTreeMap<Protocol, Sniffed>);

impl Answers {
    fn ask(&mut self, protocol: Protocol, sniff: impl FnOnce() -> Sniffed) -> Sniffed {
        if let Some(known) = self.0.get(&protocol) {
            return known.clone();
        }
        let answer = sniff();
        if answer != Sniffed::NeedMore {
            self.0.insert(protocol, answer.clone());
        }
        answer
    }

    fn found(&self) -> Option<(Protocol, &Found)> {
        self.0.iter().find_map(|(protocol, answer)| match answer {
            Sniffed::Yes(found) => Some((*protocol, found)),
            Sniffed::No | Sniffed::NeedMore => None,
        })
    }
}

#[cfg(test)]
#[path = "preface_tests.rs"]
mod tests;
