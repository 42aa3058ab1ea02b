//! Multipath TCP (RFC 8684): a connection over several ways at once, which lives on while one of them does. Its sockets serve
//! peers of plain TCP alike, and where the kernel makes none, those of TCP take their place.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::model::Config;
use crate::config::shape::below;

/// Why the kernel makes no sockets of Multipath TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// `net.mptcp.enabled` is 0 in this network namespace.
    Disabled,
    /// It has none (CONFIG_MPTCP; from Linux 5.6).
    NotBuilt,
}

impl Lack {
    /// What to say.
    #[must_use]
    pub fn found(self) -> &'static str {
        match self {
            Self::Disabled => "net.mptcp.enabled is 0",
            Self::NotBuilt => "it was built without CONFIG_MPTCP, or is older than Linux 5.6",
        }
    }

    /// What to type; empty where no line mends it.
    #[must_use]
    pub fn mend(self) -> &'static str {
        match self {
            Self::Disabled => "sysctl -w net.mptcp.enabled=1",
            Self::NotBuilt => "",
        }
    }

    fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => Some(Self::Disabled),
            // The last: what a kernel says that knows no protocol of such a number.
            Some(libc::EPROTONOSUPPORT | libc::EINVAL) => Some(Self::NotBuilt),
            _ => None,
        }
    }
}

/// A stream socket for an endpoint of this family, which never blocks; of plain TCP where the kernel makes no other.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn stream(family_of: SocketAddr, is_multipath: bool) -> io::Result<Socket> {
    let make =
        |protocol| Socket::new(Domain::for_address(family_of), Type::STREAM.nonblocking().cloexec(), Some(protocol));
    if is_multipath {
        match make(Protocol::MPTCP) {
            Err(error) if Lack::of(&error).is_some() => {}
            made => return made,
        }
    }
    make(Protocol::TCP)
}

/// What the kernel lacks, found by trying.
pub(crate) fn lack() -> Option<Lack> {
    let any = Domain::for_address((Ipv4Addr::UNSPECIFIED, 0).into());
    Socket::new(any, Type::STREAM, Some(Protocol::MPTCP)).err().as_ref().and_then(Lack::of)
}

/// The first key of a configuration that asks for it.
pub(crate) fn wanted_by(config: &Config) -> Option<String> {
    let listener = config.listeners.iter().find(|listener| listener.mptcp);
    let of_listener = listener.map(|listener| below("listener", &listener.name));
    let of_backend = || config.backends.iter().find(|one| one.mptcp).map(|one| below("backend", &one.name));
    of_listener.or_else(of_backend).map(|table| format!("{table}.mptcp"))
}

/// What is to be said where a configuration asks for what this kernel lacks.
pub(crate) fn warning(config: &Config) -> Option<String> {
    let (key, lack) = (wanted_by(config)?, lack()?);
    let mend = match lack {
        Lack::Disabled => format!("`{}`, and a restart", lack.mend()),
        Lack::NotBuilt => "another kernel".to_owned(),
    };
    let found = lack.found();
    Some(format!("{key}: this kernel makes no sockets of MPTCP ({found}): all goes by plain TCP; it takes {mend}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_tells_what_it_lacks_and_nothing_else_is_a_lack() {
        let of = |code| Lack::of(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::ENOPROTOOPT), Some(Lack::Disabled));
        assert_eq!([of(libc::EPROTONOSUPPORT), of(libc::EINVAL)], [Some(Lack::NotBuilt); 2]);
        assert_eq!([of(libc::EMFILE), of(libc::EPERM), of(libc::EAFNOSUPPORT)], [None; 3]);
    }

    #[test]
    fn a_socket_is_had_in_any_case_and_of_plain_tcp_where_nobody_asks() {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let of = |is_multipath| stream(any, is_multipath).expect("a socket").protocol().expect("one");
        assert_eq!(of(false), Some(Protocol::TCP));
        assert_eq!(of(true), Some(if lack().is_none() { Protocol::MPTCP } else { Protocol::TCP }));
    }
}
