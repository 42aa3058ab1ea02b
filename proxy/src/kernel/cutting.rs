//! The end of a connection that the other end hears as a reset, while the socket is still there.

use std::io;
use std::mem::{size_of_val, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Dissolves the association (connect(2), `AF_UNSPEC`).
///
/// # Errors
///
/// What the kernel says: there is no connection, or it cuts none of this kind.
pub(crate) fn cut(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: numbers, of which 0 is one, and 0 is AF_UNSPEC.
    let nobody: libc::sockaddr = unsafe { zeroed() };
    let length = size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: what is borrowed is open; the kernel reads `length` bytes of an address that outlives the call.
    let answer = unsafe { libc::connect(socket.as_raw_fd(), &nobody, length) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
