//! The kernel's routing netlink (rtnetlink(7)): requests and their answers, and news of changes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    bind, getsockname, recv, send, setsockopt, socket, sockopt, AddressFamily, MsgFlags, NetlinkAddr, SockFlag,
    SockProtocol, SockType,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The kernel's own datagrams are at most this long (`NLMSG_GOODSIZE` of dumps, 32 KiB).
const DATAGRAM: usize = 64 << 10;
/// What news waits in: of many routes at once.
const NEWS_BUFFER: usize = 4 << 20;
/// Length of a message's header, and what messages are padded to.
const HEADER: usize = 16;
/// The kernel answers at once; a minute of silence is a fault, not patience.
const ANSWER_SECONDS: i64 = 60;

/// Groups of news, as bits of a bind (`linux/rtnetlink.h`, RTMGRP_*; those of rules are RTNLGRP 8 and 19).
pub(crate) mod group {
    pub(crate) const LINKS: u32 = 0x1;
    pub(crate) const ADDRESSES: u32 = 0x10 | 0x100;
    pub(crate) const ROUTES: u32 = 0x40 | 0x400;
    pub(crate) const RULES: u32 = 1 << 7 | 1 << 18;
}

/// A socket for requests.
#[derive(Debug)]
pub(crate) struct Requests {
    socket: OwnedFd,
    sequence: u32,
}

impl Requests {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = open(SockFlag::empty(), SockProtocol::NetlinkRoute, 0)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All that the kernel has of a kind. What changes meanwhile may be missing: subscribe first.
    pub(crate) fn dump(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut all = Vec::new();
        self.dump_each(request, |answer| all.push(answer))?;
        Ok(all)
    }

    /// The same, one after the other: a router has a million routes.
    pub(crate) fn dump_each(
        &mut self,
        request: RouteNetlinkMessage,
        take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.request(request, NLM_F_DUMP, take)
    }

    /// Has the kernel do something.
    pub(crate) fn change(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(request, NLM_F_ACK | flags, drop)
    }

    fn request(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;

        let mut datagram = vec![0; DATAGRAM];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for answer in messages(datagram.get(..length).unwrap_or_default()) {
                if answer.header.sequence_number != self.sequence {
                    continue; // of a request that ended early
                }
                match read(answer.payload) {
                    Answer::Part(part) => take(part),
                    Answer::End(None) => return Ok(()),
                    Answer::End(Some(error)) => return Err(error),
                    Answer::Nothing => {}
                }
            }
        }
    }
}

/// A socket that hears of changes; it never blocks.
#[derive(Debug)]
pub(crate) struct News {
    socket: OwnedFd,
    datagram: Vec<u8>,
}

/// What there is to hear.
#[derive(Debug)]
pub(crate) enum Heard {
    Changes(Vec<RouteNetlinkMessage>),
    /// More than the socket could hold: ask anew.
    Lost,
    /// Nothing for now.
    Nothing,
}

impl News {
    pub(crate) fn of_routing(groups: u32) -> io::Result<Self> {
        let socket = open(SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkRoute, groups)?;
        // Above the host's limit (net.core.rmem_max) it takes CAP_NET_ADMIN; what does not fit is read anew.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &NEWS_BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &NEWS_BUFFER));
        Ok(Self { socket, datagram: vec![0; DATAGRAM] })
    }

    /// Hears of these groups from here on, and of no others.
    pub(crate) fn hear_of(&self, groups: u32) -> io::Result<()> {
        let own: NetlinkAddr = getsockname(self.socket.as_raw_fd())?;
        Ok(bind(self.socket.as_raw_fd(), &NetlinkAddr::new(own.pid(), groups))?)
    }

    /// Of any change to nftables' tables (group NFNLGRP_NFTABLES, 7): only that there was one can be read from it.
    pub(crate) fn of_nftables() -> io::Result<Self> {
        let socket = open(SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkNetFilter, 1 << 6)?;
        Ok(Self { socket, datagram: vec![0; DATAGRAM] })
    }

    /// One datagram.
    pub(crate) fn hear(&mut self) -> io::Result<Heard> {
        loop {
            return match recv(self.socket.as_raw_fd(), &mut self.datagram, MsgFlags::empty()) {
                Ok(length) => {
                    let heard = messages(self.datagram.get(..length).unwrap_or_default());
                    Ok(Heard::Changes(heard.filter_map(|message| part(message.payload)).collect()))
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Ok(Heard::Nothing),
                Err(Errno::ENOBUFS) => Ok(Heard::Lost),
                Err(errno) => Err(errno.into()),
            };
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(flags: SockFlag, protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let made = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC | flags, protocol)?;
    bind(made.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(made)
}

/// What a message says to whoever asked.
enum Answer {
    Part(RouteNetlinkMessage),
    End(Option<io::Error>),
    Nothing,
}

fn read(payload: NetlinkPayload<RouteNetlinkMessage>) -> Answer {
    if let NetlinkPayload::InnerMessage(part) = payload {
        Answer::Part(part)
    } else if let NetlinkPayload::Error(error) = payload {
        // Without a code it says that all went well (netlink(7)); a code is an error number, negated.
        Answer::End(error.code.map(|code| io::Error::from_raw_os_error(code.get().saturating_neg())))
    } else if let NetlinkPayload::Done(_) = payload {
        Answer::End(None)
    } else {
        Answer::Nothing
    }
}

fn part(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<RouteNetlinkMessage> {
    if let Answer::Part(part) = read(payload) {
        Some(part)
    } else {
        None
    }
}

/// The messages of a datagram; those that cannot be read are left out.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> + '_ {
    std::iter::from_fn(move || loop {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        if length < HEADER {
            return None;
        }
        let message = bytes.get(..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if let Ok(message) = NetlinkMessage::deserialize(message) {
            return Some(message);
        }
    })
}
