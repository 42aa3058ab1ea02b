//! A name as a client sent it, in the one form that rules see; or none, if it can be no name of a host.

/// The longest name of a host, without a final dot (RFC 1035 section 3.1, less its length and root bytes).
const LONGEST_NAME: usize = 253;
/// The longest part between dots (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Lower case, without one final dot. `None` for what is no name of a host: it must reach neither a rule's expression nor a
/// resolver. Underscores are let through, for they occur in names that work; bytes over 127 are not, for a name goes over
/// the wire in its ASCII form (RFC 6066 section 3).
///
/// Addresses are no names (RFC 6066 section 3). Nor is anything whose last label is a number, decimal or `0x`: resolvers of
/// the C library read `127.1` and `0x7f.1` as addresses (inet_aton(3)), and a client must not choose one.
pub(crate) fn host_name(sent: &[u8]) -> Option<String> {
    let name = sent.strip_suffix(b".").unwrap_or(sent);
    if name.len() > LONGEST_NAME {
        return None;
    }
    let mut last: &[u8] = &[];
    for label in name.split(|&byte| byte == b'.') {
        let is_sound = (1..=LONGEST_LABEL).contains(&label.len())
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !is_sound {
            return None;
        }
        last = label;
    }
    if is_number(last) {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    String::from_utf8(lower).ok()
}

fn is_number(label: &[u8]) -> bool {
    let hex = label.strip_prefix(b"0x").or_else(|| label.strip_prefix(b"0X"));
    label.iter().all(u8::is_ascii_digit) || hex.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn a_name_is_lower_case_without_its_final_dot() {
        let samples = [
            ("home.example", "home.example"),
            ("HOME.Example.", "home.example"),
            ("_srv.a-b.example", "_srv.a-b.example"),
            ("nas", "nas"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("7.ip6.arpa", "7.ip6.arpa"),
            ("0xg", "0xg"),
        ];
        for (sent, name) in samples {
            assert_eq!(host_name(sent.as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_no_name_of_a_host_is_none() {
        let samples: [&[u8]; 18] = [
            b"",
            b".",
            b"a..b",
            b"a.example..",
            b".a",
            b"a b",
            b"a\0.example",
            b"b\xc3\xbccher.example",
            b"\xff",
            b"192.0.2.1",
            b"192.0.2.1.",
            b"2001:db8::1",
            b"[2001:db8::1]",
            b"127.1",
            b"2130706433",
            b"0x7f.0x1",
            b"0x",
            b"a.example:443",
        ];
        for sent in samples {
            assert_eq!(host_name(sent), None, "{}", sent.escape_ascii());
        }
    }

    #[test]
    fn lengths_are_bounded_without_the_final_dot() {
        let label = "a".repeat(63);
        let longest = [label.as_str(), &label, &label, &label[..61]].join(".");
        assert_eq!(longest.len(), 253);
        assert_eq!(host_name(longest.as_bytes()), Some(longest.clone()));
        assert_eq!(host_name(format!("{longest}.").as_bytes()), Some(longest.clone()));
        assert_eq!(host_name(format!("{longest}a").as_bytes()), None);
        assert_eq!(host_name(format!("{label}a.example").as_bytes()), None);
    }
}
