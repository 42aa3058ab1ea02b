//! That nobody takes datagrams at an address, as ICMP says of those that were sent, or this host of those that are to be.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{recvmsg, setsockopt, ControlMessageOwned, MsgFlags};
use socket2::SockRef;

/// What is taken off an error queue in one turn.
const ERRORS_A_TURN: usize = 64;

/// Why nobody takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// There is no socket.
    Refused,
    /// There is no way to the host, or a firewall forbids it.
    Unreachable,
    /// This host itself lets nothing pass: its firewall, or its table of connections, which is full (nf_conntrack). ICMP says
    /// nothing of the kind.
    Barred,
}

impl Absence {
    /// Whether it is the candidate that failed, rather than this host.
    pub(crate) fn is_of_candidate(self) -> bool {
        match self {
            Self::Refused | Self::Unreachable => true,
            Self::Barred => false,
        }
    }

    /// What an error of a connected socket says: all that ICMP's "destination unreachable" becomes (`icmp_err_convert` in the
    /// kernel's net/ipv4/icmp.c, `tab_unreach` in its net/ipv6/icmp.c) but that a datagram is too long, and what routes and
    /// firewalls of this host answer in its place.
    pub(crate) fn told_by(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::ECONNREFUSED => Some(Self::Refused),
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EACCES => Some(Self::Unreachable),
            libc::EPERM => Some(Self::Barred),
            _ => None,
        }
    }
}

/// Has the kernel tell of hosts and networks that cannot be reached too: it tells a socket that does not ask of ports and
/// prohibitions only (`harderr` in `__udp4_lib_err`). What it tells waits in the error queue (`IP_RECVERR`, ip(7)).
///
/// # Errors
///
/// What the kernel says.
pub(super) fn hear_of_absence(socket: BorrowedFd<'_>) -> io::Result<()> {
    let is_ipv6 = SockRef::from(&socket).local_addr()?.as_socket().is_some_and(|own| own.is_ipv6());
    Ok(if is_ipv6 { setsockopt(&socket, Ipv6RecvErr, &true) } else { setsockopt(&socket, Ipv4RecvErr, &true) }?)
}

/// Takes what waits in the error queue of a socket, which is readable until that is empty: what it says last.
pub(super) fn take_errors(socket: BorrowedFd<'_>) -> Option<Absence> {
    let mut beside = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let mut last = None;
    for _ in 0..ERRORS_A_TURN {
        let Ok(taken) = recvmsg::<()>(socket.as_raw_fd(), &mut [], Some(&mut beside), flags) else { break };
        for message in taken.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) = message {
                let error = i32::try_from(error.ee_errno).map(io::Error::from_raw_os_error);
                last = error.ok().and_then(|error| Absence::told_by(&error)).or(last);
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_host_keeps_back_speaks_against_no_candidate_over_udp_either() {
        let of = |code| Absence::told_by(&io::Error::from_raw_os_error(code)).map(Absence::is_of_candidate);
        assert_eq!([libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::EACCES].map(of), [Some(true); 3]);
        assert_eq!(of(libc::EPERM), Some(false), "another one is tried, and this one is not ejected");
        assert_eq!(of(libc::EMSGSIZE), None);
    }
}
