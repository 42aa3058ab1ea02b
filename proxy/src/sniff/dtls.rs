//! Whether a flow of datagrams begins with a DTLS client, and what its hello says (RFC 6347, RFC 9147).

use super::client_hello::{ClientHello, Dialect, CLIENT_HELLO};
use super::cursor::Cursor;
use super::reassembly::Reassembly;
use super::Sniffed;

/// The content type of handshake records.
const HANDSHAKE: u8 = 22;
/// The longest hello that is waited for.
const LONGEST_HELLO: usize = 16 * 1024;
/// After these the flow is given up.
const MOST_DATAGRAMS: usize = 64;

/// Reads the hello of one flow, datagram by datagram, in whole or in fragments. Version 1.3 begins as 1.2 does.
///
/// The first datagram decides whether it is DTLS; later ones that do not fit are passed over, as an endpoint does (RFC 6347
/// section 4.1.2.7).
#[derive(Debug, Clone, Default)]
pub struct HelloReader {
    message: Option<Message>,
    datagrams: usize,
    verdict: Option<Sniffed>,
    hello: Option<ClientHello>,
}

/// A hello under way. The second, with the server's cookie, has another number than the first (RFC 6347 section 4.2.2).
#[derive(Debug, Clone)]
struct Message {
    number: u16,
    length: usize,
    body: Reassembly,
}

/// A part of a hello, as one record carries it.
struct Fragment<'a> {
    number: u16,
    length: usize,
    offset: usize,
    part: &'a [u8],
}

impl HelloReader {
    /// Takes the next datagram of the flow. An answer other than [`Sniffed::NeedMore`] is final.
    pub fn push(&mut self, datagram: &[u8]) -> Sniffed {
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        self.datagrams += 1;
        let otherwise = if self.message.is_some() { Sniffed::NeedMore } else { Sniffed::No };
        let mut answer = self.read(datagram).unwrap_or(otherwise);
        if answer == Sniffed::NeedMore && self.datagrams >= MOST_DATAGRAMS {
            answer = Sniffed::No;
        }
        if answer != Sniffed::NeedMore {
            self.verdict = Some(answer.clone());
            self.message = None;
        }
        answer
    }

    /// All that the hello says, once [`Self::push`] has answered yes.
    #[must_use]
    pub fn hello(&self) -> Option<&ClientHello> {
        self.hello.as_ref()
    }

    /// Bytes of the flow that it keeps; at most 16 KiB.
    #[must_use]
    pub fn held(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.body.size())
    }

    /// `None`: a record of the datagram is not one of a hello.
    fn read(&mut self, datagram: &[u8]) -> Option<Sniffed> {
        let mut records = Cursor::new(datagram);
        loop {
            let mut fragments = Cursor::new(record(&mut records)?);
            while !fragments.is_empty() {
                let answer = self.take(&fragment(&mut fragments)?);
                if answer != Sniffed::NeedMore {
                    return Some(answer);
                }
            }
            if records.is_empty() {
                return Some(Sniffed::NeedMore);
            }
        }
    }

    fn take(&mut self, fragment: &Fragment<'_>) -> Sniffed {
        let (number, length) = (fragment.number, fragment.length);
        let mut message = self
            .message
            .take()
            .filter(|held| (held.number, held.length) == (number, length))
            .unwrap_or_else(|| Message { number, length, body: Reassembly::default() });
        if message.body.insert(fragment.offset, fragment.part, length).is_err() {
            return Sniffed::No;
        }
        let body = message.body.front();
        if body.len() < length {
            self.message = Some(message);
            return Sniffed::NeedMore;
        }
        match ClientHello::from_body(body, Dialect::Dtls) {
            Some(hello) => {
                let found = hello.found();
                self.hello = Some(hello);
                Sniffed::Yes(found)
            }
            None => Sniffed::No,
        }
    }
}

/// The fragment in the next record (RFC 6347 section 4.1). Versions count downwards: `fe ff` is 1.0, `fe fd` 1.2; nothing is
/// encrypted in epoch 0. A record of a handshake is never empty.
fn record<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let (kind, major, minor, epoch) = (cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u16()?);
    let _sequence_number = cursor.take(6)?;
    let body = cursor.vector16()?;
    let is_sound = kind == HANDSHAKE && major == 0xfe && minor >= 0xfc && epoch == 0 && !body.is_empty();
    is_sound.then_some(body)
}

/// The next part of a hello (RFC 6347 section 4.2.2). A client has said at most one hello before.
fn fragment<'a>(cursor: &mut Cursor<'a>) -> Option<Fragment<'a>> {
    let (kind, length, number, offset) = (cursor.u8()?, cursor.u24()?, cursor.u16()?, cursor.u24()?);
    let part_length = cursor.u24()?;
    let part = cursor.take(part_length)?;
    let is_sound = kind == CLIENT_HELLO && length <= LONGEST_HELLO && number <= 1 && offset + part.len() <= length;
    is_sound.then_some(Fragment { number, length, offset, part })
}

#[cfg(test)]
mod tests {
    use super::super::sample_hello::{server_name, vector16, SampleHello};
    use super::super::{Found, Sniffed};
    use super::{HelloReader, LONGEST_HELLO, MOST_DATAGRAMS};

    fn body() -> Vec<u8> {
        let hello = SampleHello::with(&[server_name(b"home.example")]);
        SampleHello { version: 0xfefd, cookie: Some(vec![]), ..hello }.body()
    }

    fn home() -> Sniffed {
        Sniffed::Yes(Found { name: Some("home.example".into()), ..Found::default() })
    }

    fn u24(value: usize) -> [u8; 3] {
        let [_, bytes @ ..] = u32::try_from(value).unwrap().to_be_bytes();
        bytes
    }

    fn fragment(number: u8, from: usize, to: usize) -> Vec<u8> {
        let body = body();
        [&[1][..], &u24(body.len()), &[0, number], &u24(from), &u24(to - from), &body[from..to]].concat()
    }

    fn record(minor: u8, fragment: &[u8]) -> Vec<u8> {
        [&[22, 0xfe, minor, 0, 0, 0, 0, 0, 0, 0, 1][..], &vector16(fragment)].concat()
    }

    fn answers(datagrams: &[Vec<u8>]) -> Vec<Sniffed> {
        let mut reader = HelloReader::default();
        datagrams.iter().map(|datagram| reader.push(datagram)).collect()
    }

    #[test]
    fn a_whole_hello_gives_the_name_in_every_version_and_with_a_cookie_before() {
        for minor in [0xff, 0xfd, 0xfc] {
            for number in [0, 1] {
                assert_eq!(answers(&[record(minor, &fragment(number, 0, body().len()))]), [home()]);
            }
        }
    }

    #[test]
    fn fragments_are_joined_in_every_order_in_one_datagram_or_more() {
        let end = body().len();
        let parts = [
            record(0xfd, &fragment(0, 0, 30)),
            record(0xfd, &fragment(0, 20, 60)),
            record(0xfd, &fragment(0, 60, end)),
        ];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let datagrams = order.map(|place: usize| parts[place].clone());
            assert_eq!(answers(&datagrams), [Sniffed::NeedMore, Sniffed::NeedMore, home()]);
            assert_eq!(answers(&[datagrams.concat()]), [home()]);
        }
        let in_one_record = [fragment(0, 0, 30), fragment(0, 30, end)].concat();
        assert_eq!(answers(&[record(0xfd, &in_one_record)]), [home()]);
    }

    #[test]
    fn a_second_hello_is_not_mixed_with_the_first() {
        let end = body().len();
        let datagrams = [fragment(0, 0, 30), fragment(1, 30, end), fragment(1, 0, 30)].map(|part| record(0xfd, &part));
        assert_eq!(answers(&datagrams), [Sniffed::NeedMore, Sniffed::NeedMore, home()]);
    }

    #[test]
    fn a_datagram_that_is_cut_off_is_refused_at_the_beginning_and_passed_over_later() {
        let end = body().len();
        let whole = record(0xfd, &fragment(0, 0, end));
        for cut in 0..whole.len() {
            assert_eq!(answers(&[whole[..cut].to_vec()]), [Sniffed::No], "{cut}");
            let begun = record(0xfd, &fragment(0, 0, 9));
            assert_eq!(answers(&[begun, whole[..cut].to_vec(), whole.clone()])[1..], [Sniffed::NeedMore, home()]);
        }
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        let sound = record(0xfd, &fragment(0, 0, 40));
        assert_eq!(HelloReader::default().push(&sound), Sniffed::NeedMore);
        // Type, major and minor version, epoch, type of message, message number, a part past the end.
        for (place, wrong) in [(0, 23), (1, 3), (2, 0xfb), (4, 1), (13, 2), (18, 2), (21, 200)] {
            let mut other = sound.clone();
            other[place] = wrong;
            assert_eq!(answers(&[other]), [Sniffed::No], "{place}");
        }
        assert_eq!(answers(&[record(0xfd, &[])]), [Sniffed::No]);
        let long = |length| record(0xfd, &[&[1][..], &u24(length), &[0; 5], &[0, 0, 1, 0xfe]].concat());
        assert_eq!(answers(&[long(LONGEST_HELLO)]), [Sniffed::NeedMore]);
        assert_eq!(answers(&[long(LONGEST_HELLO + 1)]), [Sniffed::No]);
    }

    #[test]
    fn two_versions_of_a_part_are_refused_and_a_flow_without_end_is_given_up() {
        let mut other = record(0xfd, &fragment(0, 10, 20));
        other[13 + 12] ^= 1;
        assert_eq!(answers(&[record(0xfd, &fragment(0, 0, 30)), other]), [Sniffed::NeedMore, Sniffed::No]);
        let given = answers(&vec![record(0xfd, &fragment(0, 0, 30)); MOST_DATAGRAMS]);
        assert_eq!(given.iter().filter(|&answer| *answer == Sniffed::No).count(), 1);
        assert_eq!(given.last(), Some(&Sniffed::No));
    }
}
