//! The hello in the form of SSL 2 that clients of old begin TLS with (RFC 5246 appendix E.2). It has no room for a name.

use super::cursor::Cursor;
use crate::wire::Parse;

/// As many bytes tell whether it is one: length, type, version, and the lengths of three fields.
pub(crate) const TELLING: usize = 11;

/// The first byte has its top bit set: a record header of two bytes.
pub(crate) fn may_begin_with(first: u8) -> bool {
    first & 0x80 != 0
}

/// Reads the first [`TELLING`] bytes.
pub(crate) fn read(bytes: &[u8]) -> Parse<(), ()> {
    let is_one_so_far = bytes.iter().zip(0_usize..).all(|(&byte, place)| match place {
        0 => may_begin_with(byte),
        2 => byte == 1,
        3 => byte == 3,
        4 => byte <= 3,
        _ => true,
    });
    if !is_one_so_far {
        return Parse::Refuse(());
    }
    match fields_fill_it(bytes) {
        None => Parse::NeedMore,
        Some(true) => Parse::Done { value: (), consumed: TELLING },
        Some(false) => Parse::Refuse(()),
    }
}

/// Cipher specifications of three bytes each, a session id of none or 16, a challenge of 16 to 32, and nothing else.
fn fields_fill_it(bytes: &[u8]) -> Option<bool> {
    let mut cursor = Cursor::new(bytes);
    let length = usize::from(cursor.u16()? & 0x7fff);
    cursor.take(3)?;
    let (ciphers, session_id, challenge) =
        (usize::from(cursor.u16()?), usize::from(cursor.u16()?), usize::from(cursor.u16()?));
    Some(
        ciphers > 0
            && ciphers % 3 == 0
            && (session_id == 0 || session_id == 16)
            && (16..=32).contains(&challenge)
            && length == 9 + ciphers + session_id + challenge,
    )
}
