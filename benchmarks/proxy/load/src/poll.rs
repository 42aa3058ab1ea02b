//! Readiness of many sockets in one thread (epoll, edge-triggered: one registration a socket).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The sockets that are watched, each by a number.
pub struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        let events = vec![EpollEvent::empty(); 256];
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, events })
    }

    /// Watches for everything, as long as the socket is open.
    pub fn add(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        Ok(self.epoll.add(socket, EpollEvent::new(flags, number as u64))?)
    }

    /// As `add`, for what is only read.
    pub fn add_reading(&self, socket: impl AsFd, number: usize) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?)
    }

    /// The numbers of those that something happened to.
    pub fn wait(&mut self, most: Duration) -> io::Result<Vec<usize>> {
        let most = EpollTimeout::try_from(most).unwrap_or(EpollTimeout::MAX);
        let count = match self.epoll.wait(&mut self.events, most) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        Ok(self.events[..count].iter().map(|event| event.data() as usize).collect())
    }
}

/// `None` where a call would have had to wait.
pub fn now<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A socket on its way to an address.
pub fn begin_connect(to: std::net::SocketAddr) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(to);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), None)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    Ok(socket)
}
