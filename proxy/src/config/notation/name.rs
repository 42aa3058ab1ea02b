//! Names: of things in the file, of hosts, of application protocols.

use super::Notation;

/// What a name in the file may be, as the second half of a fault.
pub(crate) const NAME_RULE: &str = "a name has 1 to 64 of the letters a to z, A to Z, digits, - and _";

/// Whether a listener, a backend or a rule may be called so: it becomes a label of metrics and a word of log lines.
pub(crate) fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// What names made from captures must end in: begins with a dot, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suffix(pub(crate) String);

impl Notation for Suffix {
    const FORMAT: &'static str = "suffix";
    const ALLOWED: &'static str = "the end of a host name with its dot is allowed, as in \".tailnet\"";
    const EXAMPLES: &'static [&'static str] = &[".tailnet", ".home.arpa"];

    fn read(text: &str) -> Result<Self, String> {
        let Some(name) = text.strip_prefix('.') else {
            return Err(format!("{text:?} does not begin with a dot"));
        };
        match host_fault(name) {
            Some(fault) => Err(format!("{text:?} {fault}")),
            None => Ok(Self(text.to_ascii_lowercase())),
        }
    }
}

/// Why no host can be called so; RFC 1123 section 2.1 with the underscore that real names have.
pub(super) fn host_fault(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some("is longer than 253 bytes".to_owned());
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Some("has an empty label".to_owned());
        }
        if label.len() > 63 {
            return Some("has a label of more than 63 bytes".to_owned());
        }
        let is_wrong = |letter: char| !(letter.is_ascii_alphanumeric() || "-_".contains(letter));
        if let Some(letter) = label.chars().find(|letter| is_wrong(*letter)) {
            return Some(format!("has {letter:?}, which no host name has"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Some("has a label with - at an end".to_owned());
        }
    }
    None
}

/// The name of an application protocol (RFC 7301).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alpn(pub(crate) Vec<u8>);

impl Notation for Alpn {
    const FORMAT: &'static str = "alpn";
    const ALLOWED: &'static str = "the name of an application protocol of 1 to 255 bytes is allowed, as in \"h2\"";
    const EXAMPLES: &'static [&'static str] = &["h2", "http/1.1", "h3"];

    fn read(text: &str) -> Result<Self, String> {
        match text.len() {
            1..=255 => Ok(Self(text.as_bytes().to_vec())),
            length => Err(format!("a name of {length} bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_begin_with_a_dot_and_are_lower_case() {
        assert_eq!(Suffix::read(".Tailnet"), Ok(Suffix(".tailnet".to_owned())));
        for text in ["tailnet", ".", "..tailnet", ".tail net", ".tailnet.", "*.tailnet", ".-a"] {
            assert!(Suffix::read(text).is_err(), "{text}");
        }
        assert!(Suffix::read(&format!(".{}", "a".repeat(64))).is_err());
        assert!(Suffix::read(&".a".repeat(127)).is_ok());
        assert!(Suffix::read(&".a".repeat(128)).is_err());
    }

    #[test]
    fn application_protocols_have_1_to_255_bytes() {
        assert_eq!(Alpn::read("h2"), Ok(Alpn(b"h2".to_vec())));
        assert!(Alpn::read(&"x".repeat(255)).is_ok());
        assert!(Alpn::read(&"x".repeat(256)).is_err());
    }
}
