//! Paths of files: absolute, because a service's working directory is nobody's choice.

use std::path::PathBuf;

use super::Notation;

/// The longest path of a Unix socket: `sun_path` less its final zero (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// Where a Unix socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocketPlace(pub(crate) PathBuf);

impl Notation for SocketPlace {
    const FORMAT: &'static str = "socket-path";
    const ALLOWED: &'static str = "an absolute path of up to 107 bytes is allowed, as in \"/run/edgeproxy/admin.sock\"";
    const EXAMPLES: &'static [&'static str] = &["/run/edgeproxy/admin.sock"];

    fn read(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST_SOCKET {
            return Err(format!("a path of {} bytes", text.len()));
        }
        absolute(text).map(Self)
    }
}

/// Where lines are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogPlace(pub(crate) PathBuf);

impl Notation for LogPlace {
    const FORMAT: &'static str = "log-path";
    const ALLOWED: &'static str =
        "\"-\" for stdout or an absolute path is allowed, as in \"/var/log/edgeproxy/access.log\"";
    const EXAMPLES: &'static [&'static str] = &["-", "/var/log/edgeproxy/access.log"];

    fn read(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self(text.into()));
        }
        absolute(text).map(Self)
    }
}

/// Where keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPlace(pub(crate) PathBuf);

impl Notation for KeyPlace {
    const FORMAT: &'static str = "key-path";
    const ALLOWED: &'static str =
        "the absolute path of a file is allowed, as in \"/etc/edgeproxy/hop.key\"; the key stands in it";
    const EXAMPLES: &'static [&'static str] = &["/etc/edgeproxy/hop.key"];

    fn read(text: &str) -> Result<Self, String> {
        // What is no path may be the key itself, and is said nowhere.
        absolute(text).map(Self).map_err(|_told| "a text that is not the absolute path of a file".to_owned())
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        return Err(format!("{text:?} holds a zero byte"));
    }
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(format!("{text:?} is not the absolute path of a file"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute() {
        assert_eq!(SocketPlace::read("/run/a.sock"), Ok(SocketPlace("/run/a.sock".into())));
        assert_eq!(LogPlace::read("-"), Ok(LogPlace("-".into())));
        for text in ["a.sock", "./a", "/", "/run/", "/run/a\0b"] {
            assert!(SocketPlace::read(text).is_err() && LogPlace::read(text).is_err(), "{text}");
        }
        let key = "00".repeat(32);
        assert!(!KeyPlace::read(&key).unwrap_err().contains(&key), "who writes the key itself reads it nowhere");
        assert_eq!(KeyPlace::read("/run/a.key"), Ok(KeyPlace("/run/a.key".into())));
        assert!(SocketPlace::read("-").is_err());
        assert!(SocketPlace::read(&format!("/{}", "a".repeat(106))).is_ok());
        assert!(SocketPlace::read(&format!("/{}", "a".repeat(107))).is_err());
    }
}
