//! The frames of an Initial packet (RFC 9000 section 12.4): CRYPTO is kept, what else may be there is passed over.

use super::cursor::Cursor;
use super::reassembly::Reassembly;

/// The frames of a packet could not be read, or say what no client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsound;

const PADDING: u64 = 0x00;
const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const ACK_WITH_ECN: u64 = 0x03;
const CRYPTO: u64 = 0x06;
const CONNECTION_CLOSE: u64 = 0x1c;

/// Puts the CRYPTO data of all `frames` in its place in `stream`, of which at most `limit` bytes are taken.
pub(crate) fn read(frames: &[u8], stream: &mut Reassembly, limit: usize) -> Result<(), Unsound> {
    let mut cursor = Cursor::new(frames);
    while !cursor.is_empty() {
        match cursor.varint().ok_or(Unsound)? {
            PADDING | PING => {}
            ACK => acknowledgement(&mut cursor, 0).ok_or(Unsound)?,
            ACK_WITH_ECN => acknowledgement(&mut cursor, 3).ok_or(Unsound)?,
            CRYPTO => {
                let (offset, part) = crypto(&mut cursor).ok_or(Unsound)?;
                stream.insert(offset, part, limit).map_err(|_unfit| Unsound)?;
            }
            // The client gives up: nothing after it counts.
            CONNECTION_CLOSE => return Ok(()),
            _ => return Err(Unsound),
        }
    }
    Ok(())
}

fn crypto<'a>(cursor: &mut Cursor<'a>) -> Option<(usize, &'a [u8])> {
    let offset = usize::try_from(cursor.varint()?).ok()?;
    let length = usize::try_from(cursor.varint()?).ok()?;
    Some((offset, cursor.take(length)?))
}

/// Largest, delay, how many ranges, the first range; then each range with the gap before it; then counts of ECN.
fn acknowledgement(cursor: &mut Cursor<'_>, counts: usize) -> Option<()> {
    let (_largest, _delay, ranges, _first) = (cursor.varint()?, cursor.varint()?, cursor.varint()?, cursor.varint()?);
    // Each range takes bytes, so a large number ends with the packet.
    for _ in 0..ranges {
        let (_gap, _length) = (cursor.varint()?, cursor.varint()?);
    }
    for _ in 0..counts {
        cursor.varint()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{read, Reassembly, Unsound};

    fn front(frames: &[u8]) -> Result<Vec<u8>, Unsound> {
        let mut stream = Reassembly::default();
        read(frames, &mut stream, 100).map(|()| stream.front().to_vec())
    }

    #[test]
    fn crypto_is_kept_in_order_and_the_rest_passed_over() {
        let frames = [
            &[0, 0, 1][..],                           // PADDING, PING
            &[6, 2, 3, b'c', b'd', b'e'],             // CRYPTO
            &[2, 9, 0, 1, 0, 0, 1],                   // ACK with a second range
            &[3, 0x40, 9, 0, 0, 0, 1, 2, 3],          // ACK with ECN
            &[6, 0x40, 0, 0x40, 2, b'a', b'b', 0, 0], // CRYPTO, longer numbers; PADDING
            &[0x1c, 0, 0, 0, 99],                     // CONNECTION_CLOSE, and nothing of interest
        ]
        .concat();
        assert_eq!(front(&frames), Ok(b"abcde".to_vec()));
    }

    #[test]
    fn frames_that_may_not_be_there_or_are_cut_off_are_unsound() {
        let cases: [&[u8]; 8] = [
            &[8, 0],                                                       // STREAM
            &[0x1d, 0],                                                    // CONNECTION_CLOSE of the application
            &[6, 0, 3, b'a', b'b'],                                        // cut off
            &[6, 0],                                                       //
            &[2, 9, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], // ranges without end
            &[6, 0x40, 99, 2, 1, 1],                                       // past the limit
            &[6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
            &[6, 0, 1, b'a', 6, 0, 1, b'b'], // two versions
        ];
        for frames in cases {
            assert_eq!(front(frames), Err(Unsound), "{frames:?}");
        }
    }
}
