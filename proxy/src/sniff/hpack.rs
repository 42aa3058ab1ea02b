//! As much of HPACK (RFC 7541) as the `:authority` of a connection's first header block needs: the static table by number,
//! literals, and the Huffman codes of what host names are made of. Nothing is kept in a dynamic table.

use super::scan::{Scan, Stop};

/// Numbers of the static table (appendix A).
const AUTHORITY: usize = 1;
const LONGEST_STRING: usize = 4096;
/// Symbols by the length of their code, from 5 bits on, each in the order of their codes (appendix B): the code is canonical,
/// so the tables follow from the lengths. Longer codes stand for what no host name has.
const SYMBOLS: [&[u8]; 4] =
    [b"012aceiost", b" %-./3456789=A_bdfghlmnpru", b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz", b"&*,;XZ"];
const SHORTEST_CODE: usize = 5;

/// The value of the first `:authority` field.
pub(crate) fn authority(block: &[u8]) -> Option<Vec<u8>> {
    let mut scan = Scan::new(block);
    loop {
        let field = field(&mut scan).ok()?;
        if field.is_authority {
            return decoded(field.value?);
        }
    }
}

struct Field<'a> {
    is_authority: bool,
    /// `None` for the values of the tables.
    value: Option<Text<'a>>,
}

/// A string of the block.
struct Text<'a> {
    bytes: &'a [u8],
    huffman: bool,
}

/// One representation (section 6). A change of the dynamic table's size is a field that nobody asks for.
fn field<'a>(scan: &mut Scan<'a>) -> Result<Field<'a>, Stop> {
    let first = scan.peek()?;
    match first {
        0x80.. => Ok(Field { is_authority: integer(scan, 7)? == AUTHORITY, value: None }),
        0x40.. => literal(scan, 6),
        0x20.. => integer(scan, 5).map(|_| Field { is_authority: false, value: None }),
        _ => literal(scan, 4),
    }
}

fn literal<'a>(scan: &mut Scan<'a>, prefix: u32) -> Result<Field<'a>, Stop> {
    let is_authority = match integer(scan, prefix)? {
        0 => decoded(text(scan)?).is_some_and(|name| name == b":authority"),
        index => index == AUTHORITY,
    };
    Ok(Field { is_authority, value: Some(text(scan)?) })
}

fn text<'a>(scan: &mut Scan<'a>) -> Result<Text<'a>, Stop> {
    let huffman = scan.peek()? & 0x80 != 0;
    let length = integer(scan, 7)?;
    Ok(Text { huffman, bytes: scan.take(length)? })
}

/// Section 5.1; beyond the longest string it is none.
fn integer(scan: &mut Scan<'_>, prefix: u32) -> Result<usize, Stop> {
    let mask = (1_u8 << prefix) - 1;
    let begin = scan.u8()? & mask;
    let mut number = usize::from(begin);
    if begin < mask {
        return Ok(number);
    }
    for shift in [0, 7] {
        let byte = scan.u8()?;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if number <= LONGEST_STRING { Ok(number) } else { Err(Stop::No) };
        }
    }
    Err(Stop::No)
}

fn decoded(text: Text<'_>) -> Option<Vec<u8>> {
    if text.huffman {
        huffman(text.bytes)
    } else {
        Some(text.bytes.to_vec())
    }
}

/// Codes of one length are successive numbers; the first of a length is twice what follows the last of the length before.
fn huffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| usize::from(byte >> bit & 1)));
    let mut text = Vec::new();
    let (mut code, mut length, mut first) = (0_usize, 0_usize, 0);
    for bit in bits {
        code = code << 1 | bit;
        length += 1;
        let Some(index) = length.checked_sub(SHORTEST_CODE) else { continue };
        let symbols = SYMBOLS.get(index)?;
        match code.checked_sub(first).and_then(|at| symbols.get(at)) {
            Some(symbol) => {
                text.push(*symbol);
                (code, length, first) = (0, 0, 0);
            }
            None => first = (first + symbols.len()) << 1,
        }
    }
    let padded = length < 8 && code + 1 == 1 << length; // ones, and fewer than a byte (section 5.2)
    padded.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    /// The blocks of RFC 7541, appendices C.3.1 and C.4.1.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for block in ["8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"]
        {
            assert_eq!(authority(&bytes(block)).as_deref(), Some(&b"www.example.com"[..]), "{block}");
        }
    }

    #[test]
    fn each_representation_can_hold_it() {
        for begin in [&[0x41][..], &[0x01], &[0x11], b"\x40\x0a:authority", b"\x3f\x01\x00\x01a\x01b\x01"] {
            let block = [begin, b"\x01x"].concat();
            assert_eq!(authority(&block).as_deref(), Some(&b"x"[..]), "{begin:?}");
        }
    }

    #[test]
    fn a_block_without_it_has_none() {
        for block in [
            &b""[..],
            b"\x82",
            b"\x81",
            b"\x41",
            b"\x41\x02x",
            b"\x41\x7f\xff\xff\x01",
            b"\x41\x81\x00",
            b"\x41\x81\xfe",
        ] {
            assert_eq!(authority(block), None, "{block:?}");
        }
    }

    #[test]
    fn every_symbol_comes_back_by_its_code() {
        let mut first = 0_u64;
        for (symbols, length) in SYMBOLS.iter().zip(SHORTEST_CODE..) {
            for (code, symbol) in (first..).zip(symbols.iter()) {
                let padded = (code << (16 - length)) | ((1 << (16 - length)) - 1);
                let coded = u16::try_from(padded).unwrap().to_be_bytes();
                assert_eq!(huffman(&coded[..1]).or_else(|| huffman(&coded)), Some(vec![*symbol]), "{symbol}");
            }
            first = (first + u64::try_from(symbols.len()).unwrap()) << 1;
        }
        assert_eq!(huffman(&[0b1111_1111]), None); // padding is shorter than a byte
    }
}
