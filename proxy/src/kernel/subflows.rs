//! What the kernel tells of a connection by Multipath TCP.

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Of linux/mptcp.h, which libc lacks on some targets.
const SOL_MPTCP: libc::c_int = 284;
const MPTCP_INFO: libc::c_int = 1;

/// As much of `struct mptcp_info` as is read; a kernel that has less says so, one that has more keeps it.
const INFO_BYTES: usize = 96;
/// `mptcpi_subflows`: those beside the first one.
const FURTHER: usize = 0;
/// `mptcpi_subflows_total`, of newer kernels: those that are open.
const OPEN: usize = 80;

/// Subflows (ways) of a connection; none where it is one of plain TCP, be it by a socket of Multipath TCP. From Linux 5.16.
pub(crate) fn subflows(socket: BorrowedFd<'_>) -> Option<u8> {
    info(socket).ok().map(|info| count(&info))
}

fn info(socket: BorrowedFd<'_>) -> io::Result<[u8; INFO_BYTES]> {
    let mut info = [0_u8; INFO_BYTES];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: what is borrowed is open; the kernel writes at most `length` bytes into the buffer, and the length that it used
    // into `length`; both outlive the call.
    let answer =
        unsafe { libc::getsockopt(socket.as_raw_fd(), SOL_MPTCP, MPTCP_INFO, info.as_mut_ptr().cast(), &mut length) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

/// While a connection ends its ways are closed one after the other, and each of the two figures at its own time.
fn count(info: &[u8; INFO_BYTES]) -> u8 {
    let at = |place: usize| info.get(place).copied().unwrap_or(0);
    at(OPEN).max(at(FURTHER).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_connection_of_plain_tcp_has_none() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("a listener");
        assert_eq!(subflows(stream.as_fd()), None);
    }

    #[test]
    fn the_larger_of_the_two_figures_counts() {
        for (further, open, all) in [(0, 0, 1), (1, 2, 2), (1, 1, 2), (0, 2, 2), (u8::MAX, 3, u8::MAX)] {
            let mut info = [0; INFO_BYTES];
            (info[FURTHER], info[OPEN]) = (further, open);
            assert_eq!(count(&info), all, "{further} {open}");
        }
    }
}
