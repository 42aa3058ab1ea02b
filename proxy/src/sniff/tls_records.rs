//! Takes the record layer off the beginning of a stream of TLS (RFC 8446 section 5.1), whatever the cuts of the stream.

/// The content type of handshake records.
const HANDSHAKE: u8 = 22;
/// The longest fragment of a record that is not encrypted.
const LONGEST_FRAGMENT: usize = 1 << 14;
/// Bytes of type, version and length.
const HEADER: usize = 5;

/// Where in its records the stream stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    header: [u8; HEADER],
    header_held: usize,
    /// Bytes of the current fragment that are still to come.
    fragment_left: usize,
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A part of a fragment, never empty.
    Handshake(&'a [u8]),
    /// The input is used up.
    End,
    /// This is not a record of a handshake.
    Refused,
}

impl Records {
    /// Takes the next piece off `input`.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Piece<'a> {
        while self.fragment_left == 0 {
            let Some((&byte, rest)) = input.split_first() else {
                return Piece::End;
            };
            *input = rest;
            if !self.take_header_byte(byte) {
                return Piece::Refused;
            }
        }
        let (part, rest) = input.split_at(self.fragment_left.min(input.len()));
        if part.is_empty() {
            return Piece::End;
        }
        *input = rest;
        self.fragment_left -= part.len();
        Piece::Handshake(part)
    }

    /// Each byte is judged when it comes, so the answer does not depend on the cuts.
    fn take_header_byte(&mut self, byte: u8) -> bool {
        let is_possible = match self.header_held {
            // Another type before the hello is complete is "interleaved" and forbidden; so is ChangeCipherSpec before it.
            0 => byte == HANDSHAKE,
            1 => byte == 3,
            // A server ignores the minor version; 0 to 4 are those that clients send.
            2 => byte <= 4,
            _ => true,
        };
        if let Some(place) = self.header.get_mut(self.header_held) {
            *place = byte;
        }
        self.header_held += 1;
        if self.header_held < HEADER {
            return is_possible;
        }
        let [.., high, low] = self.header;
        self.header_held = 0;
        self.fragment_left = usize::from(u16::from_be_bytes([high, low]));
        // "Implementations MUST NOT send zero-length fragments of Handshake types".
        (1..=LONGEST_FRAGMENT).contains(&self.fragment_left)
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, Records};

    fn pieces(input: &[u8], chunk: usize) -> (Vec<u8>, bool) {
        let mut records = Records::default();
        let mut handshake = Vec::new();
        for mut part in input.chunks(chunk) {
            loop {
                match records.next(&mut part) {
                    Piece::Handshake(bytes) => handshake.extend_from_slice(bytes),
                    Piece::End => break,
                    Piece::Refused => return (handshake, false),
                }
            }
        }
        (handshake, true)
    }

    #[test]
    fn fragments_are_joined_whatever_the_cuts() {
        let input = [22, 3, 1, 0, 2, b'a', b'b', 22, 3, 4, 0, 1, b'c', 22, 3, 0, 0, 9, b'd'];
        for chunk in 1..=input.len() {
            assert_eq!(pieces(&input, chunk), (b"abcd".to_vec(), true));
        }
    }

    #[test]
    fn what_is_no_handshake_record_is_refused_at_the_byte_that_tells() {
        let cases: [(&[u8], usize); 8] = [
            (b"SSH-2.0", 1),
            (&[20, 3, 3, 0, 1, 1], 1), // ChangeCipherSpec first
            (&[23, 3, 3, 0, 1, 1], 1),
            (&[22, 2, 0, 0, 1], 2),
            (&[22, 3, 5, 0, 1], 3),
            (&[22, 3, 1, 0, 0], 5),                       // empty
            (&[22, 3, 1, 0x40, 1], 5),                    // over 2^14
            (&[22, 3, 1, 0, 1, b'a', 21, 3, 1, 0, 2], 7), // an alert between fragments
        ];
        for (input, telling) in cases {
            assert!(pieces(&input[..telling - 1], 1).1, "{input:?}");
            assert!(!pieces(&input[..telling], 1).1, "{input:?}");
        }
        assert!(pieces(&[22, 3, 1, 0x40, 0], 1).1);
    }
}
