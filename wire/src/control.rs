//! The socket of the master: messages with descriptors in, answers out.

use std::io::{IoSlice, IoSliceMut};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag};
use nix::sys::socket::{getsockname, getsockopt, recvmsg, sendmsg, setsockopt, sockopt, MsgFlags, SockType, UnixAddr};

use nix::libc;

use crate::kernel;

/// The longest message, in bytes.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// The most descriptors that a message can hold (`SCM_MAX_FD` of the kernel): with room for all, none is lost from sight.
const MOST_DESCRIPTORS: usize = 253;
/// `struct cmsghdr`: its length with the descriptors, the level, the type.
const CONTROL_HEADER_LEN: usize = size_of::<libc::cmsghdr>();
/// What is asked of the kernel for the longest answer, in bytes; it grants what `net.core.wmem_max` allows.
const SEND_BUFFER: usize = 4 << 20;

/// The connected SOCK_SEQPACKET socket.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// An answer for which the socket had no room.
    waiting: Option<Vec<u8>>,
}

/// What one look at the socket gave.
#[derive(Debug)]
pub(crate) enum Heard {
    Message { bytes: Vec<u8>, descriptors: Vec<OwnedFd> },
    Unreadable(&'static str),
    Nothing,
    End,
}

impl Control {
    /// Takes over an inherited descriptor, or says why it cannot be one.
    pub(crate) fn inherit(descriptor: RawFd) -> Result<Self, String> {
        fcntl(descriptor, FcntlArg::F_GETFD).map_err(|_| format!("descriptor {descriptor} is not open"))?;
        let socket = kernel::take_over(descriptor);
        let is_unix = getsockname::<UnixAddr>(descriptor).is_ok();
        if !is_unix || getsockopt(&socket, sockopt::SockType) != Ok(SockType::SeqPacket) {
            return Err(format!("descriptor {descriptor} is no Unix socket of the kind SOCK_SEQPACKET"));
        }
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .map_err(|errno| format!("descriptor {descriptor}: {}", errno.desc()))?;
        // Less room means shorter answers, which are then refused by name.
        let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER);
        Ok(Self { socket, buffer: vec![0; LONGEST_MESSAGE], waiting: None })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next message. `is_hung_up`: no more than those that wait will come.
    pub(crate) fn hear(&mut self, is_hung_up: bool) -> Heard {
        let mut space = vec![0; CONTROL_HEADER_LEN + MOST_DESCRIPTORS * size_of::<RawFd>()];
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Heard::Nothing,
            Err(_) => return Heard::End,
        };
        let (length, flags) = (message.bytes, message.flags);
        let descriptors = taken_descriptors(&space);
        if flags.intersects(MsgFlags::MSG_TRUNC) {
            return Heard::Unreadable("the message is longer than 65536 bytes");
        }
        if flags.intersects(MsgFlags::MSG_CTRUNC) {
            return Heard::Unreadable(
                "not every descriptor could be taken: this process has no more room for open files",
            );
        }
        // A message without a byte reads like the end.
        if length == 0 && is_hung_up {
            return Heard::End;
        }
        Heard::Message { bytes: self.buffer.get(..length).unwrap_or_default().to_vec(), descriptors }
    }

    /// Sends an answer, or keeps it until the socket has room. False if it is too long to be ever sent.
    pub(crate) fn answer(&mut self, text: String) -> bool {
        let bytes = text.into_bytes();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(&bytes)];
        match sendmsg::<()>(self.socket.as_raw_fd(), &parts, &[], flags, None) {
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => self.waiting = Some(bytes),
            Err(Errno::EMSGSIZE) => return false,
            // A master that is gone is found out by the next look.
            Ok(_) | Err(_) => {}
        }
        true
    }

    /// Whether an answer waits; until it is sent no further message is heard.
    pub(crate) fn has_answer(&self) -> bool {
        self.waiting.is_some()
    }

    /// Tries again to send the answer that waits.
    pub(crate) fn answer_again(&mut self) {
        if let Some(Ok(text)) = self.waiting.take().map(String::from_utf8) {
            self.answer(text);
        }
    }
}

/// The descriptors of the one control message that AF_UNIX gives. nix reads none of a message that was cut short
/// (MSG_CTRUNC), but those before the cut are open and ours.
fn taken_descriptors(space: &[u8]) -> Vec<OwnedFd> {
    let field = |at: usize| space.get(at..at + 4)?.try_into().ok().map(libc::c_int::from_ne_bytes);
    let length = space.get(..size_of::<usize>()).and_then(|bytes| bytes.try_into().ok()).map(usize::from_ne_bytes);
    let level_and_type = (field(CONTROL_HEADER_LEN - 8), field(CONTROL_HEADER_LEN - 4));
    if level_and_type != (Some(libc::SOL_SOCKET), Some(libc::SCM_RIGHTS)) {
        return Vec::new();
    }
    let numbers = length.and_then(|length| space.get(CONTROL_HEADER_LEN..length)).unwrap_or_default();
    numbers
        .chunks_exact(4)
        .filter_map(|bytes| bytes.try_into().ok())
        .map(RawFd::from_ne_bytes)
        .map(kernel::take_over)
        .collect()
}
