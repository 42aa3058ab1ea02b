//! The socket by which a flow's answers leave: they must come from where the client sent to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use socket2::{Domain, Protocol, Socket, Type};

use super::door::Door;
use super::fragments::Fragments;

/// Where answers leave.
#[derive(Debug)]
pub(crate) enum Reply {
    /// By the socket that the client hit, from this address of it.
    ByDoor(Rc<Door>, Option<IpAddr>),
    /// By a transparent socket at the original destination, which is no address of this host (TPROXY).
    AsDestination(Rc<ReplySocket>),
}

impl Reply {
    /// The socket, and the address that must be named; for datagrams that may be cut on their way, or must not be.
    pub(crate) fn way(&self, may_fragment: bool) -> (BorrowedFd<'_>, Option<IpAddr>) {
        match self {
            Self::ByDoor(door, from) => (door.sending(may_fragment), *from),
            Self::AsDestination(socket) => {
                socket.fragments.allow(socket.fd.as_fd(), may_fragment);
                (socket.fd.as_fd(), None)
            }
        }
    }
}

/// A transparent socket at an address that clients addressed. It is not connected: a connected one would be found before the
/// TPROXY rule's socket, and take the client's further datagrams.
#[derive(Debug)]
pub(crate) struct ReplySocket {
    fd: OwnedFd,
    fragments: Fragments,
}

impl ReplySocket {
    /// # Errors
    ///
    /// `IP_TRANSPARENT` is not permitted, or there is no socket to be had.
    pub(crate) fn at(original_dst: SocketAddr) -> io::Result<Self> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(original_dst), kind, Some(Protocol::UDP))?;
        match original_dst {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_ip_transparent_v6(true)?;
            }
        }
        socket.set_reuse_address(true)?;
        socket.bind(&original_dst.into())?;
        Ok(Self { fd: socket.into(), fragments: Fragments::new(original_dst.is_ipv6()) })
    }
}
