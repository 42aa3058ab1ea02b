//! A UDP socket at which clients arrive: datagrams in, replies out by the address that was hit.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::yield_now;

use crate::kernel::{receive_details, Batch};
use crate::listening::Endpoint;

/// Batches of datagrams that are taken without a pause.
const BATCHES_A_TURN: u32 = 8;

/// A socket of one worker at one endpoint.
#[derive(Debug)]
pub(crate) struct Door {
    socket: UdpSocket,
    pub(crate) endpoint: Endpoint,
    waits: Cell<u32>,
}

impl Door {
    /// Takes a bound socket.
    ///
    /// # Errors
    ///
    /// The kernel does not say of datagrams what it must, or there is no room in the event queue.
    pub(crate) fn open(socket: OwnedFd, endpoint: Endpoint) -> io::Result<Self> {
        receive_details(socket.as_fd(), endpoint.address.is_ipv6(), endpoint.is_tproxy)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, endpoint, waits: Cell::new(0) })
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
