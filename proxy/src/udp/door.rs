//! A UDP socket at which clients arrive: datagrams in, replies out by the address that was hit.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::yield_now;

use crate::kernel::{receive_details, Batch, Message, BATCH};
use crate::listening::Endpoint;

use super::fragments::Fragments;

/// Bytes that may wait to be sent. All flows of a socket share it; the kernel's own bound is `net.core.wmem_max`.
const SEND_BUFFER: usize = 4 * 1024 * 1024;

/// Batches of datagrams that are taken without a pause.
const BATCHES_A_TURN: u32 = 8;

/// A socket of one worker at one endpoint.
#[derive(Debug)]
pub(crate) struct Door {
    socket: UdpSocket,
    pub(crate) endpoint: Endpoint,
    /// Where it is bound; with the port that the kernel chose, if the endpoint names none.
    own: SocketAddr,
    fragments: Fragments,
    waits: Cell<u32>,
}

impl Door {
    /// Takes a bound socket.
    ///
    /// # Errors
    ///
    /// The kernel does not say of datagrams what it must, or there is no room in the event queue.
    pub(crate) fn open(socket: OwnedFd, endpoint: Endpoint) -> io::Result<Self> {
        let is_ipv6 = endpoint.address.is_ipv6();
        receive_details(socket.as_fd(), is_ipv6, endpoint.is_tproxy)?;
        // With less, bursts of answers are lost sooner.
        let _ = SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER);
        let socket = UdpSocket::from_std(socket.into())?;
        let own = socket.local_addr()?;
        Ok(Self { socket, endpoint, own, fragments: Fragments::new(is_ipv6), waits: Cell::new(0) })
    }

    /// Waits for datagrams. However many there are, all others on this thread have their turn now and then: the readiness of
    /// a socket takes nothing of a task's budget.
    pub(crate) async fn arrivals(&self) -> io::Result<()> {
        self.waits.set(self.waits.get().wrapping_add(1));
        if self.waits.get() % BATCHES_A_TURN == 0 {
            yield_now().await;
        }
        self.socket.readable().await
    }

    /// Takes what is here; `WouldBlock` also when that was all.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        self.socket.try_io(Interest::READABLE, || {
            // What comes after the last one is told anew. An error cannot stand behind it, as on a connected socket.
            if batch.receive(self.socket.as_fd())? < BATCH {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        })
    }

    /// The address and port to which a message was sent.
    pub(crate) fn hit(&self, message: &Message) -> SocketAddr {
        let address = message.destination.filter(|_| self.own.ip().is_unspecified());
        message.original_dst.unwrap_or_else(|| SocketAddr::new(address.unwrap_or(self.own.ip()), self.own.port()))
    }

    /// Whether answers from there can leave by this socket, though it need not be an address of this host: where a
    /// transparent socket sends from is free, but for the port.
    pub(crate) fn is_at_port_of(&self, hit: SocketAddr) -> bool {
        self.own.port() == hit.port()
    }

    /// The address from which a reply must leave; none where the kernel must choose.
    pub(crate) fn reply_from(&self, hit: IpAddr) -> Option<IpAddr> {
        (self.own.ip() != hit && !hit.is_multicast() && !hit.is_unspecified()).then_some(hit)
    }

    /// The socket, for datagrams that may be cut on their way, or must not be.
    pub(crate) fn sending(&self, may_fragment: bool) -> BorrowedFd<'_> {
        self.fragments.allow(self.socket.as_fd(), may_fragment);
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{spawn_local, LocalSet};

    use super::*;
    use crate::config::model::{Arrival, Transport};

    #[tokio::test]
    async fn a_flood_leaves_others_their_turn() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_nonblocking(true).expect("non-blocking");
        let address = socket.local_addr().expect("bound");
        socket.send_to(b"there is always more", address).expect("sent");
        let endpoint = Endpoint::new(Transport::Udp, address, Arrival::Direct);
        let had_its_turn = Rc::new(Cell::new(false));
        let told = Rc::clone(&had_its_turn);
        LocalSet::new()
            .run_until(async move {
                let door = Door::open(socket.into(), endpoint).expect("registered");
                door.arrivals().await.expect("a datagram");
                spawn_local(async move { told.set(true) });
                for _ in 0..BATCHES_A_TURN {
                    door.arrivals().await.expect("still there");
                }
            })
            .await;
        assert!(had_its_turn.get());
    }
}
