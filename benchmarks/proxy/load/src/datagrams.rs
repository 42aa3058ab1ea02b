//! Many datagrams by one call: several messages (sendmmsg), or one that the kernel cuts and joins (UDP_SEGMENT, UDP_GRO).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    recvmmsg, sendmmsg, sendmsg, setsockopt, sockopt, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders,
    SockaddrIn,
};
use socket2::SockRef;

/// A datagram of QUIC's usual size.
pub const SIZE: usize = 1200;
/// Sent by one call.
pub const TOGETHER: usize = 32;
/// Messages taken by one call, and the size of each: joined ones are long.
const MESSAGES: usize = 32;
const ROOM: usize = 65_535;
const BUFFER: usize = 8 << 20;

/// Sends and receives datagrams of one size on a socket.
pub struct Datagrams {
    pub socket: UdpSocket,
    is_joined: bool,
    bytes: Vec<u8>,
    rooms: Vec<Vec<u8>>,
}

/// What one message brought: how many datagrams, from whom.
pub struct Arrival {
    pub from: Option<SockaddrIn>,
    pub count: usize,
}

impl Datagrams {
    pub fn new(socket: UdpSocket, is_joined: bool) -> io::Result<Self> {
        let wanted = SockRef::from(&socket);
        wanted.set_recv_buffer_size(BUFFER)?;
        wanted.set_send_buffer_size(BUFFER)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::UdpGroSegment, &is_joined)?;
        Ok(Self {
            socket,
            is_joined,
            bytes: vec![0x75; SIZE * TOGETHER],
            rooms: vec![vec![0; ROOM]; MESSAGES],
        })
    }

    /// Sends so many, at most `TOGETHER`; how many the kernel took.
    pub fn send(&mut self, count: usize, to: Option<&SockaddrIn>) -> io::Result<usize> {
        let count = count.min(TOGETHER);
        if self.is_joined {
            let piece = [IoSlice::new(&self.bytes[..SIZE * count])];
            let segment = SIZE as u16;
            let control = [ControlMessage::UdpGsoSegments(&segment)];
            let fd = self.socket.as_raw_fd();
            return Ok(sendmsg(fd, &piece, &control[..usize::from(count > 1)], MsgFlags::MSG_DONTWAIT, to)? / SIZE);
        }
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(count, None);
        let pieces: Vec<_> = (0..count).map(|_| [IoSlice::new(&self.bytes[..SIZE])]).collect();
        let addresses = vec![to.copied(); count];
        let fd = self.socket.as_raw_fd();
        Ok(sendmmsg(fd, &mut headers, &pieces, addresses, [], MsgFlags::MSG_DONTWAIT)?.count())
    }

    /// Takes what is here.
    pub fn receive(&mut self) -> io::Result<Vec<Arrival>> {
        let mut pieces: Vec<_> = self.rooms.iter_mut().map(|room| [IoSliceMut::new(room)]).collect();
        // Anew each time: the kernel shortens the room for control messages of those that had none.
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(MESSAGES, Some(nix::cmsg_space!(i32)));
        let fd = self.socket.as_raw_fd();
        let messages = recvmmsg(fd, &mut headers, &mut pieces, MsgFlags::MSG_DONTWAIT, None)?;
        let arrivals = messages.map(|message| {
            let segment = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| match one {
                    ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                    _ => None,
                })
            });
            let size = segment.unwrap_or(message.bytes).max(1);
            Arrival { from: message.address, count: message.bytes.div_ceil(size).max(1) }
        });
        let arrivals = arrivals.collect();
        Ok(arrivals)
    }
}
