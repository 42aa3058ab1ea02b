//! The kernel's side: the netlink socket of the packet queues, a raw socket for resets, and giving up privileges. The only
//! module with `unsafe`: calls of the kernel without a safe face elsewhere, each with its reason.

use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::socket::{
    bind, send, sendto, setsockopt, socket, sockopt, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol,
    SockType, SockaddrIn,
};
use nix::unistd::{setgroups, setresgid, setresuid, Gid, Uid};

/// Datagrams taken at once, each of a packet with its headers.
const BATCH: usize = 32;
const DATAGRAM: usize = 66 * 1024;
/// What the kernel may keep for us while we are busy, in bytes. Less than asked for where it does not allow that.
const RECEIVE_BUFFER: usize = 16 << 20;
/// `nobody`, who owns nothing.
const NOBODY: u32 = 65534;

/// Capabilities by their numbers (capabilities(7)).
const CAP_NET_ADMIN: u32 = 12;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// The netlink socket that packets come from and verdicts go to.
#[derive(Debug)]
pub(crate) struct Queues(OwnedFd);

impl Queues {
    pub(crate) fn open() -> io::Result<Self> {
        let made =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
        bind(made.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        if setsockopt(&made, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&made, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        unsafe_calls::refuse_no_buffer_errors(&made)?;
        Ok(Self(made))
    }

    /// Sends requests or verdicts; the kernel has dealt with all of them when this returns.
    pub(crate) fn send(&self, messages: &[u8]) -> io::Result<()> {
        loop {
            match send(self.0.as_raw_fd(), messages, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                // A lost verdict would keep its packet in the queue for ever; memory comes back.
                Err(Errno::EINTR | Errno::ENOBUFS | Errno::EAGAIN | Errno::ENOMEM) => std::thread::yield_now(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// What waits, up to a batch; nothing if nothing does.
    pub(crate) fn receive<'a>(&self, inbox: &'a mut Inbox) -> io::Result<impl Iterator<Item = &'a mut [u8]>> {
        let count = match unsafe_calls::receive_many(&self.0, inbox) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let lengths = inbox.lengths.iter().take(count);
        Ok(inbox.bytes.chunks_mut(DATAGRAM).zip(lengths).filter_map(|(chunk, length)| chunk.get_mut(..*length)))
    }
}

impl AsFd for Queues {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Room for a batch of datagrams.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    lengths: [usize; BATCH],
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; BATCH * DATAGRAM], lengths: [0; BATCH] }
    }
}

/// A socket that sends whole IPv4 packets.
#[derive(Debug)]
pub(crate) struct RawSocket(OwnedFd);

impl RawSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(Self(socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw)?))
    }

    /// Best effort, as is the delivery of any packet.
    pub(crate) fn send(&self, packet: &[u8], to: SocketAddrV4) {
        let _ =
            sendto(self.0.as_raw_fd(), packet, &SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0)), MsgFlags::empty());
    }
}

/// Keeps the one capability that verdicts need (CAP_NET_ADMIN, of the network namespace's owner), and becomes `nobody`
/// where that user exists: in a user namespace with a single id there is no other to become.
pub(crate) fn give_up_privileges() -> io::Result<()> {
    for capability in 0..=last_capability() {
        // Without CAP_SETPCAP it cannot be done, and need not: what is not permitted cannot come back by `exec` either.
        let _ = unsafe_calls::drop_from_bounding_set(capability);
    }
    prctl::set_keepcaps(true)?;
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let _ = setgroups(&[]);
    if setresgid(group, group, group).is_ok() {
        let _ = setresuid(user, user, user);
    }
    unsafe_calls::keep_only(1 << CAP_NET_ADMIN)?;
    prctl::set_keepcaps(false)?;
    prctl::set_no_new_privs()?;
    Ok(())
}

fn last_capability() -> u32 {
    let read = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    read.and_then(|text| text.trim().parse().ok()).unwrap_or(63)
}

#[allow(unsafe_code)]
mod unsafe_calls {
    //! Safe faces of the calls. Each passes pointers to memory of this process that outlives the call.

    use std::mem;
    use std::ptr;

    use super::{libc, AsRawFd, Errno, Inbox, OwnedFd, BATCH, CAPABILITY_VERSION_3, DATAGRAM};

    /// Bytes of a c_int, on every Linux.
    const C_INT_LEN: libc::socklen_t = 4;

    /// Full receive buffers cost packets, not the socket (NETLINK_NO_ENOBUFS, netlink(7)).
    pub(super) fn refuse_no_buffer_errors(socket: &OwnedFd) -> Result<(), Errno> {
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open; the kernel reads one c_int, which lives on this stack frame.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_NO_ENOBUFS,
                ptr::addr_of!(on).cast(),
                C_INT_LEN,
            )
        };
        Errno::result(result).map(drop)
    }

    /// Fills the inbox without waiting; how many datagrams there were.
    pub(super) fn receive_many(socket: &OwnedFd, inbox: &mut Inbox) -> Result<usize, Errno> {
        // SAFETY: both are plain old data, for which all zeroes is empty.
        let (mut pieces, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { mem::zeroed() };
        for ((chunk, piece), header) in inbox.bytes.chunks_mut(DATAGRAM).zip(&mut pieces).zip(&mut headers) {
            piece.iov_base = chunk.as_mut_ptr().cast();
            piece.iov_len = chunk.len();
            header.msg_hdr.msg_iov = piece;
            header.msg_hdr.msg_iovlen = 1;
        }
        let batch = libc::c_uint::try_from(BATCH).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open; the kernel writes to `headers` and, through `pieces`, to `inbox`, at most the
        // lengths given above. All three outlive the call.
        let result = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), batch, libc::MSG_DONTWAIT as _, ptr::null_mut())
        };
        let count = usize::try_from(Errno::result(result)?).unwrap_or(0);
        for (length, header) in inbox.lengths.iter_mut().zip(&headers).take(count) {
            *length = usize::try_from(header.msg_len).unwrap_or(0);
        }
        Ok(count)
    }

    pub(super) fn drop_from_bounding_set(capability: u32) -> Result<(), Errno> {
        // SAFETY: PR_CAPBSET_DROP takes its argument by value.
        Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }).map(drop)
    }

    /// Makes these the permitted and effective capabilities, none of them inheritable. All are below 32.
    pub(super) fn keep_only(capabilities: u32) -> Result<(), Errno> {
        // `struct __user_cap_header_struct` and two of `struct __user_cap_data_struct` (capget(2)), the latter for
        // capabilities 0 to 31 and 32 to 63: effective, permitted, inheritable.
        let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
        let data: [u32; 6] = [capabilities, capabilities, 0, 0, 0, 0];
        // SAFETY: the kernel reads both arrays, of the sizes that version 3 has; pid 0 is this thread, the only one.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
        Errno::result(result).map(drop)
    }
}
