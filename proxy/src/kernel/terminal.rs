//! The size of a terminal.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Rows and columns, where it says how many it has (ioctl_tty(2)).
pub(crate) fn size(terminal: BorrowedFd<'_>) -> Option<(usize, usize)> {
    // SAFETY: four numbers, of which 0 is one.
    let mut size: libc::winsize = unsafe { zeroed() };
    // SAFETY: the kernel writes one `winsize`, and there is room for it as long as the call lasts.
    let answer = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    (answer == 0 && size.ws_row > 0 && size.ws_col > 0).then(|| (size.ws_row.into(), size.ws_col.into()))
}
