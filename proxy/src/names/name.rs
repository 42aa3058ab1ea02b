//! A host's name as it may be asked for: checked, in lower case, without a final dot.

use std::fmt;
use std::rc::Rc;

/// Octets of a name in text, without the final dot (RFC 1035 section 2.3.4: 255 with lengths and root).
const LONGEST: usize = 253;
/// Octets of a label (there too).
const LONGEST_LABEL: usize = 63;

/// A name of letters, digits, hyphens and underscores.
///
/// What could be read as an IPv4 address (`10.1`, `0x7f000001`) is no name: a client who chooses a name must not choose
/// an address with it, and no top-level domain looks so (RFC 3696 section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostName(Rc<str>);

impl HostName {
    /// The name that `text` spells, if it does.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let in_bounds = text.len() <= LONGEST && text.split('.').all(is_label);
        (in_bounds && !ends_in_number(text)).then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// Its text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// `localhost` and what stands below it: loopback, and never asked of a server (RFC 6761 section 6.3).
    pub(crate) fn is_localhost(&self) -> bool {
        self.0.rsplit('.').next() == Some("localhost")
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(is_allowed)
}

/// Whether inet_aton(3) could take the last label for a number.
fn ends_in_number(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in_lower_case_without_their_final_dot() {
        let spelt =
            ["nas", "Nas.Tailnet", "nas.tailnet.", "_xmpp.a-b.c", "1.2.3.example", "0xfg", "xn--bcher-kva.example"];
        let names = spelt.map(|text| HostName::parse(text).map(|name| name.to_string()));
        let meant =
            ["nas", "nas.tailnet", "nas.tailnet", "_xmpp.a-b.c", "1.2.3.example", "0xfg", "xn--bcher-kva.example"];
        assert_eq!(names, meant.map(|text| Some(text.to_string())));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert!(HostName::parse(&longest).is_some());
        let long_label = "a".repeat(64);
        let too_long = format!("{label}.{label}.{label}.{}", "a".repeat(62));
        let refused = [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            "a/b",
            "bücher",
            "a\0b",
            "a\\.b",
            "[::1]",
            "::1",
            "127.0.0.1",
            "10.1",
            "2130706433",
            "0x7f000001",
            "0X7F.0x1",
            "0x",
            "a.1",
            "a:80",
            &long_label,
            &too_long,
        ];
        for text in refused {
            assert_eq!(HostName::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn localhost_is_known_at_the_end_only() {
        let is_localhost = |text| HostName::parse(text).is_some_and(|name| name.is_localhost());
        assert!(is_localhost("LOCALHOST") && is_localhost("a.localhost."));
        assert!(!is_localhost("localhost.example") && !is_localhost("notlocalhost"));
    }
}
