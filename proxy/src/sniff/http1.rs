//! HTTP/1.x (RFC 9112): the request line and the header fields, for the host that the request is for.

use super::authority::of_authority;
use super::scan::{named, require, settled, trimmed, Scan, Stop};
use super::{Found, Sniffed};

/// Bytes of a request that are looked at; nginx takes lines of 8 KiB. A longer head is HTTP/1 of which the host counts that
/// stands within.
const MOST: usize = 8192;
/// The registry's longest method has 17 (`UPDATEREDIRECTREF`).
const LONGEST_METHOD: usize = 24;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    settled(request(bytes))
}

/// Whether the request line is there and leaves no doubt; the host may come later.
pub(crate) fn is_certain(bytes: &[u8]) -> bool {
    request_line(&mut Scan::new(bytes)).is_ok()
}

fn request(bytes: &[u8]) -> Result<Found, Stop> {
    let mut scan = Scan::new(bytes);
    let target = request_line(&mut scan)?;
    let window = bytes.get(..MOST).unwrap_or(bytes);
    let read = bytes.len() - scan.rest().len();
    let host = match host_field(window.get(read..).unwrap_or_default()) {
        Host::Field(host) => host,
        Host::Open(host) if window.len() == MOST => host,
        Host::Open(_) => return Err(Stop::NeedMore),
    };
    let authority = match (target, host) {
        (_, HostField::Unclear) => None,
        (Target::Authority(authority), _) => Some(authority), // RFC 9112, 3.2.2: before the field, whatever it says
        (Target::Path, HostField::One(host)) => Some(host),
        (Target::Path, HostField::None) => None,
    };
    Ok(named(authority.and_then(of_authority)))
}

/// What the request line says of the host.
enum Target<'a> {
    /// Absolute-form, or the authority-form of `CONNECT`.
    Authority(&'a [u8]),
    /// Origin-form or `*`.
    Path,
}

/// `METHOD SP target SP HTTP/1.x CRLF`; a bare LF ends a line too (RFC 9112, 2.2).
fn request_line<'a>(scan: &mut Scan<'a>) -> Result<Target<'a>, Stop> {
    let method = scan.until(b' ', LONGEST_METHOD, |byte| byte.is_ascii_uppercase() || byte == b'-')?;
    require(!method.is_empty())?;
    scan.next_is(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'*' | b'['))?;
    let target = scan.until(b' ', MOST, |byte| byte > b' ' && byte != 0x7f)?;
    scan.literal(b"HTTP/1.")?;
    scan.byte_of(|byte| byte.is_ascii_digit())?;
    if scan.peek()? == b'\r' {
        scan.u8()?;
    }
    scan.literal(b"\n")?;
    Ok(if method == b"CONNECT" { Target::Authority(target) } else { of_absolute_form(target) })
}

fn of_absolute_form(target: &[u8]) -> Target<'_> {
    let Some(at) = target.windows(3).position(|three| three == b"://") else { return Target::Path };
    if target.first() == Some(&b'/') {
        return Target::Path; // the scheme of somebody else, in a path or query
    }
    let after = target.get(at + 3..).unwrap_or_default();
    let end = after.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    Target::Authority(after.get(..end.unwrap_or(after.len())).unwrap_or_default())
}

/// What the header fields say of the host.
enum HostField<'a> {
    None,
    One(&'a [u8]),
    /// Two of them, or something that is no field: readers may differ, so no name is the right one (RFC 9112, 3.2).
    Unclear,
}

enum Host<'a> {
    /// The fields have ended.
    Field(HostField<'a>),
    /// They have not; this is what those say that are whole.
    Open(HostField<'a>),
}

fn host_field(mut rest: &[u8]) -> Host<'_> {
    let mut host = HostField::None;
    loop {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Host::Open(host) };
        let line = rest.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() {
            return Host::Field(host);
        }
        host = match (field(line), host) {
            (None, _) | (Some(_), HostField::Unclear) => HostField::Unclear,
            (Some((name, value)), HostField::None) if name.eq_ignore_ascii_case(b"host") => HostField::One(value),
            (Some((name, _)), HostField::One(_)) if name.eq_ignore_ascii_case(b"host") => HostField::Unclear,
            (Some(_), other) => other,
        };
    }
}

/// Name and value. `None` for what is no field, such as white space before the colon or a folded line (RFC 9112, 5.1, 5.2), and
/// for a carriage return or a zero within a value, where the line ends for some readers (RFC 9112, 2.2; RFC 9110, 5.5).
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_field = !name.is_empty() && name.iter().all(token) && !value.iter().any(|byte| matches!(byte, b'\r' | 0));
    is_field.then(|| (name, trimmed(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn name_of(request: &str) -> Option<String> {
        let Sniffed::Yes(found) = cut_everywhere(sniff, request.as_bytes()) else { panic!("{request}") };
        found.name
    }

    #[test]
    fn the_host_field_names_the_host() {
        for (request, name) in [
            ("GET / HTTP/1.1\r\nHost: Example.ORG.:8080\r\n\r\n", Some("example.org")),
            ("GET / HTTP/1.1\nhOST:example.org\n\n", Some("example.org")),
            ("M-SEARCH * HTTP/1.0\r\nA: b\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", None),
        ] {
            assert_eq!(name_of(request).as_deref(), name, "{request}");
        }
    }

    #[test]
    fn the_target_outweighs_the_field() {
        for (request, name) in [
            ("GET http://a.example:81/b?c HTTP/1.1\r\nHost: b.example\r\n\r\n", Some("a.example")),
            ("GET HTTPS://A.example?x HTTP/1.1\r\n\r\n", Some("a.example")),
            ("CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n", Some("a.example")),
            ("GET /?to=http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", Some("b.example")),
            ("GET http://user@a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", None),
        ] {
            assert_eq!(name_of(request).as_deref(), name, "{request}");
        }
    }

    #[test]
    fn what_readers_may_read_differently_has_no_name() {
        for request in [
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nA: b\r\nhost: b.example\r\n\r\n",
            "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\n .b\r\n\r\n",
            "GET / HTTP/1.1\r\nno field\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rHost: b.example\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0c\r\nHost: a.example\r\n\r\n",
        ] {
            assert_eq!(name_of(request), None, "{request}");
        }
    }

    #[test]
    fn a_long_head_is_decided_by_its_beginning() {
        let long = format!("GET / HTTP/1.1\r\nHost: a.example\r\nA: {}", "b".repeat(MOST));
        assert_eq!(sniff(&long.as_bytes()[..MOST - 1]), Sniffed::NeedMore);
        assert_eq!(sniff(&long.as_bytes()[..MOST]), yes(Some("a.example")));
        assert_eq!(sniff(format!("{long}\r\nHost: b\r\n\r\n").as_bytes()), yes(Some("a.example")));
        let target = format!("GET /{}", "a".repeat(MOST + 1));
        assert_eq!(sniff(target.as_bytes()), Sniffed::No);
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        for bytes in
            ["g", "GET\r", "GET  ", "GET / HTTP/2", "GET / HTTP/1.x", "PRI * HTTP/2.0", "SSH-2", " ", "GETT \x01", "A1"]
        {
            assert_eq!(sniff(bytes.as_bytes()), Sniffed::No, "{bytes}");
        }
        assert_eq!(sniff(&[b'A'; LONGEST_METHOD + 1]), Sniffed::No);
    }

    #[test]
    fn it_is_certain_after_the_request_line() {
        let request = b"POST /a HTTP/1.1\r\n";
        assert!(is_certain(request) && sniff(request) == Sniffed::NeedMore);
        assert!(!is_certain(&request[..request.len() - 1]));
    }
}
