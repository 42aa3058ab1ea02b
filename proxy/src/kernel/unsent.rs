//! What a peer has not acknowledged yet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of a TCP connection that its peer has not acknowledged, sent or not (SIOCOUTQ, tcp(7)).
///
/// # Errors
///
/// It is no TCP connection.
pub(crate) fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: what is borrowed is open; the call writes one int, and `count` is one for as long as it lasts.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut count) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}
