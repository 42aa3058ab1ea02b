//! Whether a stream begins with a TLS client, and what its hello says, over any number of records and segments.

use super::client_hello::{read_message, ClientHello};
use super::tls_records::{Piece, Records};
use super::{ssl2_hello, Found, Sniffed};
use crate::wire::Parse;

/// The longest body of a hello that is waited for; servers refuse it sooner (Go at 64 KiB, OpenSSL at 128 KiB). How much of
/// it may come is the caller's to bound.
const LONGEST_HELLO: usize = 1 << 16;

/// Answers for all bytes of the stream so far. When they come bit by bit, [`HelloReader`] does not begin anew each time.
#[must_use]
pub fn parse(stream: &[u8]) -> Sniffed {
    HelloReader::default().push(stream)
}

/// Reads the beginning of one stream as it comes; its cost is linear in the bytes, however they are cut.
///
/// A hello in the form of SSL 2 (RFC 5246 appendix E.2) is TLS without a name: a rule for the protocol alone leads the old
/// client to a backend, whose alert it understands.
#[derive(Debug, Clone, Default)]
pub struct HelloReader {
    state: State,
    hello: Option<ClientHello>,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Begin,
    Records {
        records: Records,
        /// The handshake stream, without record headers.
        message: Vec<u8>,
    },
    Ssl2(Vec<u8>),
    Ended(Sniffed),
}

impl HelloReader {
    /// Takes the bytes that follow those pushed before. An answer other than [`Sniffed::NeedMore`] is final.
    pub fn push(&mut self, new: &[u8]) -> Sniffed {
        if let (State::Begin, Some(first)) = (&self.state, new.first()) {
            self.state = match ssl2_hello::may_begin_with(*first) {
                true => State::Ssl2(Vec::new()),
                false => State::Records { records: Records::default(), message: Vec::new() },
            };
        }
        let answer = match &mut self.state {
            State::Begin => Sniffed::NeedMore,
            State::Records { records, message } => match read_records(records, message, new) {
                Parse::Done { value, .. } => {
                    let found = value.found();
                    self.hello = Some(value);
                    Sniffed::Yes(found)
                }
                Parse::NeedMore => Sniffed::NeedMore,
                Parse::Refuse(()) => Sniffed::No,
            },
            State::Ssl2(held) => {
                held.extend(new.iter().take(ssl2_hello::TELLING.saturating_sub(held.len())));
                match ssl2_hello::read(held) {
                    Parse::Done { .. } => Sniffed::Yes(Found::default()),
                    Parse::NeedMore => Sniffed::NeedMore,
                    Parse::Refuse(()) => Sniffed::No,
                }
            }
            State::Ended(answer) => return answer.clone(),
        };
        if answer != Sniffed::NeedMore {
            self.state = State::Ended(answer.clone());
        }
        answer
    }

    /// All that the hello says, once [`Self::push`] has answered yes; `None` for one in the form of SSL 2.
    #[must_use]
    pub fn hello(&self) -> Option<&ClientHello> {
        self.hello.as_ref()
    }

    /// Bytes of the stream that it keeps; at most as many as were pushed.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.state {
            State::Begin | State::Ended(_) => 0,
            State::Records { message, .. } => message.len(),
            State::Ssl2(held) => held.len(),
        }
    }
}

fn read_records(records: &mut Records, message: &mut Vec<u8>, mut new: &[u8]) -> Parse<ClientHello, ()> {
    loop {
        match records.next(&mut new) {
            Piece::Handshake(part) => message.extend_from_slice(part),
            Piece::End => return Parse::NeedMore,
            Piece::Refused => return Parse::Refuse(()),
        }
        match read_message(message, LONGEST_HELLO) {
            Parse::NeedMore => {}
            answer @ (Parse::Done { .. } | Parse::Refuse(())) => return answer,
        }
    }
}
