//! Descriptors that another process sends: nix takes them from the kernel as numbers, and here they get an owner.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};

/// Descriptors that one message may bring. The kernel's bound is 253 (`SCM_MAX_FD`, unix(7)).
pub(crate) const MOST_DESCRIPTORS: usize = 64;

/// Takes bytes of a Unix stream, and the descriptors that came with them. No bytes: the other end is closed.
///
/// # Errors
///
/// What the kernel says; `InvalidData` when there were more descriptors than one message may bring, or than this process may
/// have: the kernel has dropped the rest.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut parts = [IoSliceMut::new(into)];
    let mut beside = nix::cmsg_space!([std::os::fd::RawFd; MOST_DESCRIPTORS]);
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut beside), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel has just made these for this process, and nothing else knows their numbers.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    if received.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not all descriptors could be received"));
    }
    Ok((received.bytes, descriptors))
}
