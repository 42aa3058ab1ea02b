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
