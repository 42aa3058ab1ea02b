//! A UDP socket at which clients arrive: datagrams in, replies out by the address that was hit.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::kernel::{receive_details, Batch};
use crate::listening::Endpoint;

/// A socket of one worker at one endpoint.
#[derive(Debug)]
pub(crate) struct Door {
    socket: UdpSocket,
    pub(crate) endpoint: Endpoint,
}

impl Door {
    /// Takes a bound socket.
    ///
    /// # Errors
    ///
    /// The kernel does not say of datagrams what it must, or there is no room in the event queue.
    pub(crate) fn open(socket: OwnedFd, endpoint: Endpoint) -> io::Result<Self> {
        receive_details(socket.as_fd(), endpoint.address.is_ipv6(), endpoint.is_tproxy)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, endpoint })
    }

    /// Waits for datagrams.
    pub(crate) async fn arrivals(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Takes what is here.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        self.socket.try_io(Interest::READABLE, || batch.receive(self.socket.as_fd()))
    }

    /// The address from which a reply must leave; none where the socket has but one.
    pub(crate) fn reply_from(&self, hit: IpAddr) -> Option<IpAddr> {
        self.endpoint.address.ip().is_unspecified().then_some(hit)
    }

    /// Where a datagram was sent to.
    pub(crate) fn destination(&self, address: Option<IpAddr>) -> SocketAddr {
        let own = self.endpoint.address;
        let ip = address.filter(|_| own.ip().is_unspecified()).unwrap_or(own.ip());
        SocketAddr::new(ip, own.port())
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
