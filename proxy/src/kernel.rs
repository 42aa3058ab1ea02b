//! Calls that neither the standard library nor nix or socket2 wrap as needed: batches of datagrams with what the kernel
//! says beside them. The only module with unsafe code.
#![allow(unsafe_code)]
#![allow(clippy::cast_possible_truncation)] // sizes of C structures, all below 64 KiB

pub(crate) mod clock;
mod cutting;
pub(crate) mod descriptors;
pub(crate) mod ending;
mod memory;
mod queue;
pub(crate) mod scheduling;
mod subflows;
pub(crate) mod terminal;
mod unsent;

use std::io::{self, IoSlice};
use std::mem::{self, size_of, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

pub(crate) use cutting::cut;
pub(crate) use memory::give_back;
pub(crate) use queue::await_readable;
pub(crate) use subflows::subflows;
pub(crate) use unsent::unsent;

/// Messages that one call may bring.
pub(crate) const BATCH: usize = 32;

/// The largest message: the kernel joins datagrams of a flow (UDP_GRO, udp(7)) up to the largest IP packet.
const MESSAGE_BYTES: usize = 65_536;

/// Room for what comes beside a message: packet information, original destination, segment size; each in its header.
const CONTROL_BYTES: usize = 256;

/// `SOL_UDP` options of linux/udp.h and linux/in6.h that libc lacks on some targets.
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;
const IPV6_ORIGDSTADDR: libc::c_int = 74;

/// Control data, aligned as the kernel's `cmsghdr` asks.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// Buffers for one batch of messages; a worker has one and uses it for all of its sockets in turn.
pub(crate) struct Batch {
    bytes: Box<[u8]>,
    controls: Box<[Control]>,
    names: Box<[MaybeUninit<libc::sockaddr_storage>]>,
    messages: Vec<Message>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("messages", &self.messages.len()).finish_non_exhaustive()
    }
}

/// One message of a batch: a datagram, or several of equal size that the kernel joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Where it came from; none on a connected socket that does not say.
    pub(crate) peer: Option<SocketAddr>,
    /// The address of this host that it was sent to; for broadcasts the one to answer from.
    pub(crate) destination: Option<IpAddr>,
    /// Address and port that it was sent to before TPROXY brought it here.
    pub(crate) original_dst: Option<SocketAddr>,
    /// Size of each joined datagram but the last; the whole length when there is one.
    pub(crate) segment: usize,
    /// Bytes of the message in the batch's buffer.
    pub(crate) length: usize,
}

impl Message {
    /// What belongs to one flow has the same.
    pub(crate) fn ends(&self) -> (Option<SocketAddr>, Option<IpAddr>, Option<SocketAddr>) {
        (self.peer, self.destination, self.original_dst)
    }
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BATCH * MESSAGE_BYTES].into_boxed_slice(),
            controls: vec![Control([0; CONTROL_BYTES]); BATCH].into_boxed_slice(),
            names: vec![MaybeUninit::zeroed(); BATCH].into_boxed_slice(),
            messages: Vec::with_capacity(BATCH),
        }
    }

    /// The messages of the last [`Self::receive`], each with its bytes.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (Message, &[u8])> {
        let buffers = self.bytes.chunks_exact(MESSAGE_BYTES);
        self.messages
            .iter()
            .zip(buffers)
            .map(|(message, buffer)| (*message, buffer.get(..message.length).unwrap_or(&[])))
    }

    /// Forgets them: who asks a socket by way of others must not take those of another one for its own.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
    }

    /// Takes what the socket holds, without waiting: recvmmsg(2).
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it holds nothing; on a connected socket also what ICMP said of an earlier datagram.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.messages.clear();
        // SAFETY: all-zero is a valid value of these C structures of integers and nullable pointers.
        let mut parts: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        let buffers = self.bytes.chunks_exact_mut(MESSAGE_BYTES);
        let beside = self.controls.iter_mut().zip(self.names.iter_mut());
        for ((header, part), (buffer, (control, name))) in
            headers.iter_mut().zip(parts.iter_mut()).zip(buffers.zip(beside))
        {
            part.iov_base = buffer.as_mut_ptr().cast();
            part.iov_len = buffer.len();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
        // SAFETY: each header points to buffers of its own, of the lengths that it says, which outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for header in headers.iter().take(count) {
            // SAFETY: the kernel filled this header, its name and its control data, which are still borrowed here.
            self.messages.push(unsafe { message_of(header) });
        }
        Ok(count)
    }
}

/// Reads what the kernel put beside one message.
///
/// # Safety
///
/// `header` must have been filled by recvmmsg(2), and what it points to must be alive.
unsafe fn message_of(header: &libc::mmsghdr) -> Message {
    let length = header.msg_len as usize;
    let hdr = &header.msg_hdr;
    let mut message = Message {
        peer: address_at(hdr.msg_name.cast(), hdr.msg_namelen as usize),
        segment: length,
        length,
        ..Message::default()
    };
    let mut control = libc::CMSG_FIRSTHDR(hdr);
    while !control.is_null() {
        let data = libc::CMSG_DATA(control);
        match ((*control).cmsg_level, (*control).cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                // Not `ipi_addr`: that may be a broadcast address, from which nobody can answer (ip(7)).
                message.destination = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                message.destination = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            }
            (libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR) => {
                message.original_dst = address_at(data.cast(), size_of::<libc::sockaddr_in>());
            }
            (libc::IPPROTO_IPV6, IPV6_ORIGDSTADDR) => {
                message.original_dst = address_at(data.cast(), size_of::<libc::sockaddr_in6>());
            }
            (libc::IPPROTO_UDP, UDP_GRO) => {
                let size: libc::c_int = ptr::read_unaligned(data.cast());
                message.segment = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(length);
            }
            _ => {}
        }
        control = libc::CMSG_NXTHDR(hdr, control);
    }
    message
}

/// The endpoint in a socket address.
///
/// # Safety
///
/// `length` bytes at `name` must be readable.
unsafe fn address_at(name: *const u8, length: usize) -> Option<SocketAddr> {
    if length < size_of::<libc::sa_family_t>() || name.is_null() {
        return None;
    }
    let family: libc::sa_family_t = ptr::read_unaligned(name.cast());
    match libc::c_int::from(family) {
        libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
            let raw: libc::sockaddr_in = ptr::read_unaligned(name.cast());
            let address = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
            let raw: libc::sockaddr_in6 = ptr::read_unaligned(name.cast());
            let address = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(address, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Where a message goes, and as what.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Route {
    /// The receiver; none on a connected socket.
    pub(crate) to: Option<SocketAddr>,
    /// The address of this host that it leaves from; none: as the socket is bound, or as the kernel chooses.
    pub(crate) from: Option<IpAddr>,
    /// The kernel cuts the message into datagrams of this size (UDP_SEGMENT, udp(7)); none: it is one.
    pub(crate) segment: Option<u16>,
}

/// Sends one message, without waiting: sendmsg(2).
///
/// # Errors
///
/// What the kernel says; `WouldBlock` when the socket's buffer is full.
pub(crate) fn send(socket: BorrowedFd<'_>, pieces: &[IoSlice<'_>], route: Route) -> io::Result<usize> {
    // SAFETY: all-zero is a valid value of these C structures.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    let name = route.to.map(socket2::SockAddr::from);
    if let Some(name) = &name {
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = name.len();
    }
    header.msg_iov = pieces.as_ptr().cast_mut().cast();
    header.msg_iovlen = pieces.len() as _;
    let mut control = Control([0; CONTROL_BYTES]);
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES as _;
    let mut used = 0;
    // SAFETY: the control buffer is aligned and has room for the two largest of these; `used` is what they take so far, and
    // each CMSG_SPACE is at most 40 bytes here.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&header);
        if let Some(segment) = route.segment {
            used += put(&mut next, &header, libc::IPPROTO_UDP, UDP_SEGMENT, segment);
        }
        match route.from {
            Some(IpAddr::V4(from)) => {
                let mut info: libc::in_pktinfo = mem::zeroed();
                info.ipi_spec_dst.s_addr = u32::from(from).to_be();
                used += put(&mut next, &header, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(IpAddr::V6(from)) => {
                let mut info: libc::in6_pktinfo = mem::zeroed();
                info.ipi6_addr.s6_addr = from.octets();
                used += put(&mut next, &header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
    }
    header.msg_controllen = used as _;
    if used == 0 {
        header.msg_control = ptr::null_mut();
    }
    // SAFETY: the header points to the pieces, the name and the control data, which all outlive the call; IoSlice has the
    // layout of iovec (its documentation), and sendmsg does not write through these pointers.
    let count = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes one control message and steps on; the room that it takes.
///
/// # Safety
///
/// `next` must point to a control message of `header` with room for a `T`.
unsafe fn put<T>(
    next: &mut *mut libc::cmsghdr,
    header: &libc::msghdr,
    level: libc::c_int,
    kind: libc::c_int,
    value: T,
) -> usize {
    let size = size_of::<T>() as libc::c_uint;
    let control = *next;
    (*control).cmsg_level = level;
    (*control).cmsg_type = kind;
    (*control).cmsg_len = libc::CMSG_LEN(size) as _;
    ptr::write_unaligned(libc::CMSG_DATA(control).cast(), value);
    *next = libc::CMSG_NXTHDR(header, control);
    libc::CMSG_SPACE(size) as usize
}

/// Asks the kernel to say, beside each message, where it was sent to, and to join datagrams of a flow.
///
/// # Errors
///
/// What the kernel says: an option that it does not have.
pub(crate) fn receive_details(socket: BorrowedFd<'_>, is_ipv6: bool, is_tproxy: bool) -> io::Result<()> {
    let (level, details, original) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, IPV6_ORIGDSTADDR)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_RECVORIGDSTADDR)
    };
    switch_on(socket, level, details)?;
    if is_tproxy {
        switch_on(socket, level, original)?;
    }
    switch_on(socket, libc::IPPROTO_UDP, UDP_GRO)
}

/// Asks the kernel to join datagrams of a connected socket.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn receive_joined(socket: BorrowedFd<'_>) -> io::Result<()> {
    switch_on(socket, libc::IPPROTO_UDP, UDP_GRO)
}

/// Whether the kernel cuts datagrams that are larger than their path, or refuses those that are larger than the device takes
/// (`IP_PMTUDISC_PROBE`, ip(7)): what ICMP said of the path beyond counts for nothing then, as anybody may have made it up.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn allow_fragments(socket: BorrowedFd<'_>, is_ipv6: bool, allowed: bool) -> io::Result<()> {
    let (level, option, may, must_not) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT, libc::IPV6_PMTUDISC_PROBE)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT, libc::IP_PMTUDISC_PROBE)
    };
    set(socket, level, option, if allowed { may } else { must_not })
}

/// Has nobody's first segment find a socket that listens: it is bound to a device that is not there, of which the kernel asks no
/// proof (`SO_BINDTOIFINDEX`, `sock_bindtoindex` in its net/core/sock.c).
///
/// # Errors
///
/// What the kernel says: before 5.7 it takes CAP_NET_RAW.
pub(crate) fn bind_to_no_device(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, libc::c_int::MAX)
}

fn switch_on(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    set(socket, level, option, 1)
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is an int that outlives the call, and its size is said.
    let answer = unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&value as *const libc::c_int).cast(), size)
    };
    if answer == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
