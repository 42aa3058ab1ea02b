//! XMPP (RFC 6120, section 4.2): the opening stream tag, and to whom it is.

use super::authority::of_host;
use super::scan::{named, require, settled, trimmed, Scan, Stop};
use super::{Found, Sniffed};

const LONGEST_TAG: usize = 2048;
const LONGEST_DECLARATION: usize = 128;
const MOST_SPACE: usize = 16;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    settled(opening(bytes))
}

fn opening(bytes: &[u8]) -> Result<Found, Stop> {
    let mut scan = Scan::new(bytes);
    scan.literal(b"<")?;
    if scan.peek()? == b'?' {
        scan.literal(b"?xml")?;
        scan.next_is(is_space)?;
        scan.until(b'>', LONGEST_DECLARATION, |byte| byte >= b' ' && byte != b'<' || is_space(byte))?;
        space(&mut scan)?;
        scan.literal(b"<")?;
    }
    scan.literal(b"stream:stream")?;
    scan.next_is(is_space)?;
    let tag = scan.until(b'>', LONGEST_TAG, |byte| byte >= b' ' && byte != b'<' || is_space(byte))?;
    Ok(named(attribute(tag, b"to").and_then(of_host)))
}

fn space(scan: &mut Scan<'_>) -> Result<(), Stop> {
    for _ in 0..MOST_SPACE {
        if !is_space(scan.peek()?) {
            return Ok(());
        }
        scan.u8()?;
    }
    require(false)
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

/// The value of an attribute; `None` too for a tag that is not `name='value' ...`, or that has the attribute twice.
fn attribute<'a>(tag: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut rest = trimmed(tag);
    let mut found = None;
    while !rest.is_empty() {
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let name = trimmed(rest.get(..equals)?);
        let value = trimmed(rest.get(equals + 1..)?);
        let quote = *value.first().filter(|byte| matches!(byte, b'\'' | b'"'))?;
        let inside = value.get(1..)?;
        let end = inside.iter().position(|byte| *byte == quote)?;
        if name == wanted && found.replace(inside.get(..end)?).is_some() {
            return None;
        }
        rest = trimmed(inside.get(end + 1..)?);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn the_stream_is_for_whom_it_says() {
        for (text, name) in [
            (
                "<?xml version='1.0'?><stream:stream to='Example.org' xmlns='jabber:client' version='1.0'>",
                Some("example.org"),
            ),
            ("<stream:stream\n xmlns = \"jabber:server\"\n\tto = \"example.org\" >", Some("example.org")),
            ("<stream:stream xmlns:to='a.example' version='1.0'>", None),
            ("<stream:stream to='a' to='b'>", None),
            ("<stream:stream to=a.example>", None),
        ] {
            assert_eq!(cut_everywhere(sniff, text.as_bytes()), yes(name), "{text}");
        }
    }

    #[test]
    fn other_xml_is_none() {
        for text in [
            "<html",
            "<?xml-",
            "<?xml version='1.0'?><policy",
            "<?xml <",
            "<stream:streams",
            "<stream:stream <",
            "<34>",
        ] {
            assert_eq!(sniff(text.as_bytes()), Sniffed::No, "{text}");
        }
        let endless = format!("<stream:stream {}", " ".repeat(LONGEST_TAG + 1));
        assert_eq!(sniff(endless.as_bytes()), Sniffed::No);
        assert_eq!(sniff(format!("<?xml ?>{}", " ".repeat(MOST_SPACE + 1)).as_bytes()), Sniffed::No);
    }
}
