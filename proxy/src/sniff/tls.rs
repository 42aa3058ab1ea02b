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

#[cfg(test)]
mod tests {
    use super::super::sample_hello::{server_name, SampleHello};
    use super::super::{Found, Sniffed};
    use super::{parse, HelloReader};

    fn sample() -> SampleHello {
        SampleHello::with(&[server_name(b"home.example")])
    }

    fn yes(name: Option<&str>) -> Sniffed {
        Sniffed::Yes(Found { name: name.map(str::to_owned), ..Found::default() })
    }

    /// A hello in the form of SSL 2 with one cipher specification.
    fn old_hello() -> Vec<u8> {
        [&[0x80, 28, 1, 3, 1, 0, 3, 0, 0, 0, 16, 0, 0, 0x2f][..], &[8; 16]].concat()
    }

    #[test]
    fn it_is_read_over_records_of_every_size_at_every_cut() {
        let length = sample().message().len();
        for size in 1..=length {
            let stream = [sample().records(size), vec![23, 3, 3, 0, 0]].concat();
            let whole = stream.len() - 5;
            for cut in (0..stream.len()).filter(|cut| size < 4 || cut % 7 == 0 || cut + 1 == whole) {
                let expected = if cut < whole { Sniffed::NeedMore } else { yes(Some("home.example")) };
                assert_eq!(parse(&stream[..cut]), expected, "{size} {cut}");
            }
        }
    }

    #[test]
    fn record_versions_do_not_matter() {
        for minor in 0..=4 {
            let mut stream = sample().records(50);
            stream[2] = minor;
            stream[55 + 2] = 4 - minor;
            assert_eq!(parse(&stream), yes(Some("home.example")));
        }
    }

    #[test]
    fn what_may_not_stand_between_fragments_is_refused() {
        let stream = sample().records(50);
        for between in [&[22, 3, 1, 0, 0][..], &[20, 3, 1, 0, 1, 1], &[21, 3, 1, 0, 2, 1, 0], &[22, 2, 1, 0, 1]] {
            let broken = [&stream[..55], between, &stream[55..]].concat();
            assert_eq!(parse(&broken), Sniffed::No);
            assert_eq!(parse(&[between, &stream].concat()), Sniffed::No);
        }
    }

    #[test]
    fn the_first_byte_of_another_protocol_tells() {
        for first in (0..=255_u8).filter(|&first| first != 22 && first < 0x80) {
            assert_eq!(parse(&[first]), Sniffed::No);
        }
        assert_eq!(parse(&[]), Sniffed::NeedMore);
    }

    #[test]
    fn a_hello_of_64_kib_is_read_byte_by_byte_from_records_of_one_byte() {
        let filled = |length: usize| SampleHello::with(&[(21, vec![0; length]), server_name(b"home.example")]);
        let spare = (1 << 16) - filled(0).body().len();
        // The fields of a hello end near 64 KiB by themselves: its extensions have two bytes of length.
        let stream = filled(spare - 100).records(1);
        let mut reader = HelloReader::default();
        let (last, before) = stream.split_last().unwrap();
        assert!(before.iter().all(|&byte| reader.push(&[byte]) == Sniffed::NeedMore));
        assert_eq!(reader.held(), before.len() / 6);
        assert_eq!(reader.push(&[*last]), yes(Some("home.example")));
        assert_eq!(reader.held(), 0);
        assert_eq!(parse(&[22, 3, 1, 0, 4, 1, 1, 0, 0]), Sniffed::NeedMore);
        assert_eq!(parse(&[22, 3, 1, 0, 4, 1, 1, 0, 1]), Sniffed::No);
    }

    #[test]
    fn an_answer_stays_and_the_whole_hello_is_there() {
        let mut reader = HelloReader::default();
        assert_eq!(reader.hello(), None);
        let answer = reader.push(&sample().records(9));
        assert_eq!(reader.push(b"\x15\x03\x01"), answer);
        assert_eq!(reader.hello().and_then(|hello| hello.server_name.as_deref()), Some("home.example"));
        let mut refused = HelloReader::default();
        assert_eq!((refused.push(b"S"), refused.push(&sample().records(9))), (Sniffed::No, Sniffed::No));
    }

    #[test]
    fn a_hello_in_the_form_of_ssl_2_is_tls_without_a_name() {
        let hello = old_hello();
        for cut in 0..=hello.len() {
            assert_eq!(parse(&hello[..cut]), if cut < 11 { Sniffed::NeedMore } else { yes(None) });
            let mut reader = HelloReader::default();
            let bit_by_bit = hello[..cut].iter().map(|&byte| reader.push(&[byte])).last();
            assert_eq!(bit_by_bit.unwrap_or(Sniffed::NeedMore), parse(&hello[..cut]));
        }
        for (place, wrong) in [(1, 29), (2, 2), (3, 0), (4, 4), (6, 4), (6, 0), (8, 15), (10, 15)] {
            let mut other = hello.clone();
            other[place] = wrong;
            assert_eq!(parse(&other), Sniffed::No, "{place}");
        }
        let four_bytes_of_ciphers = [&[0x80, 29, 1, 3, 1, 0, 4, 0, 0, 0, 16][..], &[0; 20]].concat();
        assert_eq!(parse(&four_bytes_of_ciphers), Sniffed::No);
    }
}
