//! Names as clients write them, with or without a port, to names as rules see them: in lower case, without a final dot.

const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// `host` or `host:port` (RFC 3986, section 3.2). `None` for what names no host: nothing at all, user information, a list,
/// an address.
pub(crate) fn of_authority(text: &[u8]) -> Option<String> {
    let mut parts = text.splitn(2, |byte| *byte == b':');
    let host = parts.next()?;
    parts.next().map_or(true, is_port).then(|| of_host(host)).flatten()
}

/// A name without a port. An address is none, nor is anything else that a resolver would take for one: what ends in a
/// number (inet_aton(3)).
pub(crate) fn of_host(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |it: &str| (1..=LONGEST_LABEL).contains(&it.len()) && it.bytes().all(known);
    (name.len() <= LONGEST_NAME && name.split('.').all(label) && !ends_in_number(&name)).then_some(name)
}

fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => last.bytes().all(|digit| digit.is_ascii_digit()),
    }
}

/// An empty port is a port too (RFC 3986, section 3.2.3).
fn is_port(text: &[u8]) -> bool {
    text.len() <= 5 && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_case_port_and_final_dot() {
        for (text, name) in [
            ("Example.ORG", Some("example.org")),
            ("example.org.", Some("example.org")),
            ("example.org.:443", Some("example.org")),
            ("example.org:", Some("example.org")),
            ("my_box:8080", Some("my_box")),
        ] {
            assert_eq!(of_authority(text.as_bytes()).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn what_names_nobody_has_no_name() {
        let texts = [
            "",
            ".",
            "a..b",
            "user@host",
            "a, b",
            "a b",
            "host:port",
            "host:1:2",
            "[::1]:80",
            "::1",
            "a/b",
            "192.0.2.1",
            "192.0.2.1:80",
            "127.1",
            "0x7f.0x1",
            "2130706433",
        ];
        for text in texts {
            assert_eq!(of_authority(text.as_bytes()), None, "{text}");
        }
        assert_eq!(of_authority(b"\xff.example"), None);
        assert_eq!(of_authority("a".repeat(64).as_bytes()), None);
    }
}
