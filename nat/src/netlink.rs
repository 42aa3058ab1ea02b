//! The messages of the kernel's packet queues (`linux/netfilter/nfnetlink_queue.h`): bytes to packets, verdicts to bytes.
//! Pure.

use crate::packet::{long, word};

const HEADER: usize = 16;
/// The netlink header and the netfilter one after it.
const HEADERS: usize = HEADER + 4;
const ATTRIBUTE: usize = 4;

const ERROR: u16 = 2;
const PACKET: u16 = 0x0300;
const VERDICT: u16 = 0x0301;
const CONFIG: u16 = 0x0302;
const REQUEST: u16 = 1;
const ACK: u16 = 4;

const PACKET_HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
const MARK: u16 = 3;
const INDEV: u16 = 5;
const PAYLOAD: u16 = 10;

const CONFIG_COMMAND: u16 = 1;
const CONFIG_PARAMETERS: u16 = 2;
const CONFIG_LENGTH: u16 = 3;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// As many bytes of a packet as fit an attribute.
const WHOLE: u32 = 0xffff;

const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// A packet that waits in a queue for its verdict.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Queued<'a> {
    pub(crate) queue: u16,
    pub(crate) id: u32,
    /// Index of the interface it arrived by; 0 if it is the router's own.
    pub(crate) arrived_by: u32,
    pub(crate) payload: &'a mut [u8],
}

/// A message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Packet(Queued<'a>),
    /// The answer to the request of that number: 0, or an error number.
    Answer {
        sequence: u32,
        error: i32,
    },
    Other,
}

/// Takes the first message off the bytes of a datagram; None when there is none left, or no whole one.
pub(crate) fn next<'a>(rest: &mut &'a mut [u8]) -> Option<Message<'a>> {
    let length = usize::try_from(native_long(rest, 0)?).ok()?;
    if length < HEADER || length > rest.len() {
        return None;
    }
    let taken = std::mem::take(rest);
    let (message, after) = taken.split_at_mut(length);
    let (_, after) = after.split_at_mut(padding(length).min(after.len()));
    *rest = after;
    Some(read(message).unwrap_or(Message::Other))
}

fn read(message: &mut [u8]) -> Option<Message<'_>> {
    match native_word(message, 4)? {
        PACKET => read_packet(message),
        ERROR => {
            let error = native_long(message, HEADER)?.wrapping_neg();
            Some(Message::Answer { sequence: native_long(message, 8)?, error: i32::try_from(error).ok()? })
        }
        _ => None,
    }
}

fn read_packet(message: &mut [u8]) -> Option<Message<'_>> {
    let queue = word(message, HEADER + 2)?;
    let mut id = None;
    let mut arrived_by = 0;
    let mut payload = 0..0;
    let mut at = HEADERS;
    while at + ATTRIBUTE <= message.len() {
        let length = usize::from(native_word(message, at)?);
        if length < ATTRIBUTE || at + length > message.len() {
            return None;
        }
        match native_word(message, at + 2)? {
            PACKET_HEADER => id = long(message, at + ATTRIBUTE),
            INDEV => arrived_by = long(message, at + ATTRIBUTE)?,
            PAYLOAD => payload = at + ATTRIBUTE..at + length,
            _ => {}
        }
        at += length + padding(length);
    }
    Some(Message::Packet(Queued { queue, id: id?, arrived_by, payload: message.get_mut(payload)? }))
}

/// Requests that bind a queue and ask for whole packets, numbered from `sequence`; each is answered.
pub(crate) fn bind(queue: u16, longest: u32, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The protocol family in the command (AF_INET) is of old kernels.
    request(&mut bytes, CONFIG, queue, ACK, sequence, |bytes| attribute(bytes, CONFIG_COMMAND, &[BIND, 0, 0, 2]));
    request(&mut bytes, CONFIG, queue, ACK, sequence + 1, |bytes| {
        let [a, b, c, d] = WHOLE.to_be_bytes();
        attribute(bytes, CONFIG_PARAMETERS, &[a, b, c, d, COPY_PACKET]);
        attribute(bytes, CONFIG_LENGTH, &longest.to_be_bytes());
    });
    bytes
}

/// A packet goes on, changed if a payload is given, marked if a mark is.
pub(crate) fn accept(bytes: &mut Vec<u8>, queue: u16, id: u32, payload: Option<&[u8]>, mark: Option<u32>) {
    request(bytes, VERDICT, queue, 0, 0, |bytes| {
        attribute(bytes, VERDICT_HEADER, &[ACCEPT.to_be_bytes(), id.to_be_bytes()].concat());
        if let Some(mark) = mark {
            attribute(bytes, MARK, &mark.to_be_bytes());
        }
        if let Some(payload) = payload {
            attribute(bytes, PAYLOAD, payload);
        }
    });
}

/// A packet goes no further.
pub(crate) fn drop(bytes: &mut Vec<u8>, queue: u16, id: u32) {
    request(bytes, VERDICT, queue, 0, 0, |bytes| {
        attribute(bytes, VERDICT_HEADER, &[DROP.to_be_bytes(), id.to_be_bytes()].concat());
    });
}

fn request(bytes: &mut Vec<u8>, kind: u16, queue: u16, flags: u16, sequence: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([0, 0]);
    bytes.extend(queue.to_be_bytes());
    body(bytes);
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = bytes.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // A value comes from an attribute itself or is a few bytes, so it fits one.
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len() + padding(usize::from(length)), 0);
}

/// Bytes to the next multiple of four.
fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

fn native_word(bytes: &[u8], at: usize) -> Option<u16> {
    word(bytes, at).map(|value| u16::from_ne_bytes(value.to_be_bytes()))
}

fn native_long(bytes: &[u8], at: usize) -> Option<u32> {
    long(bytes, at).map(|value| u32::from_ne_bytes(value.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queued(queue: u16, id: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        request(&mut bytes, PACKET, queue, 0, 0, |bytes| {
            attribute(bytes, PACKET_HEADER, &[&id.to_be_bytes()[..], &[8, 0, 4]].concat());
            attribute(bytes, INDEV, &[0, 0, 0, 6]);
            attribute(bytes, PAYLOAD, payload);
        });
        bytes
    }

    #[test]
    fn packets_of_one_datagram_come_one_after_the_other() {
        let mut bytes = [queued(1, 7, b"odd"), queued(0, 8, b"more")].concat();
        let mut rest = &mut bytes[..];
        for (queue, id, text) in [(1, 7, &b"odd"[..]), (0, 8, b"more")] {
            let Some(Message::Packet(packet)) = next(&mut rest) else { panic!() };
            assert_eq!((packet.queue, packet.id, packet.arrived_by), (queue, id, 6));
            assert_eq!(packet.payload, text);
        }
        assert_eq!(next(&mut rest), None);
    }

    #[test]
    fn an_answer_tells_its_request_and_error() {
        let mut bytes = Vec::new();
        request(&mut bytes, ERROR, 0, 0, 5, |_| {});
        bytes[HEADER..].copy_from_slice(&(-16i32).to_ne_bytes());
        assert_eq!(next(&mut &mut bytes[..]), Some(Message::Answer { sequence: 5, error: 16 }));
    }

    #[test]
    fn a_verdict_has_all_it_was_given() {
        let mut bytes = Vec::new();
        accept(&mut bytes, 3, 9, Some(b"packet"), Some(0x4e41));
        let expected = [
            &48u32.to_ne_bytes()[..],
            &VERDICT.to_ne_bytes(),
            &REQUEST.to_ne_bytes(),
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3],
            &12u16.to_ne_bytes(),
            &VERDICT_HEADER.to_ne_bytes(),
            &[0, 0, 0, 1, 0, 0, 0, 9],
            &8u16.to_ne_bytes(),
            &MARK.to_ne_bytes(),
            &[0, 0, 0x4e, 0x41],
            &10u16.to_ne_bytes(),
            &PAYLOAD.to_ne_bytes(),
            b"packet\0\0",
        ];
        let mut expected = expected.concat();
        let length = u32::try_from(expected.len()).unwrap();
        expected[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_end(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in prop_oneof![Just(PACKET), Just(ERROR)]) {
            if bytes.len() >= HEADERS {
                let length = u32::try_from(bytes.len()).unwrap();
                bytes[..4].copy_from_slice(&length.to_ne_bytes());
                bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            }
            let mut rest = &mut bytes[..];
            while next(&mut rest).is_some() {}
        }
    }
}
