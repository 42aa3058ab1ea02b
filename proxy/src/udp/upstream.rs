//! The way of a flow to its backend: a connected socket, and the header that goes with its datagrams.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::net::UdpSocket;

use serde::{Deserialize, Serialize};

use crate::config::model::SendProxyUdp;
use crate::kernel::{forbid_fragments, receive_joined, Batch, Route};
use crate::operation::outcomes::{HeaderOut, SourceUsed};
use crate::transparent::socket::{Rung, UdpToBackend};
use crate::transparent::udp_endpoints::Claim;
use crate::wire::{proxy_v2, spp};

use super::sending::{send_all, Sent, Way};

/// A connected socket towards a backend.
#[derive(Debug)]
pub(crate) struct Upstream {
    socket: UdpSocket,
    header: Header,
    pub(crate) source: SourceUsed,
    /// Keeps the client's endpoint towards this backend for this flow alone.
    _claim: Option<Claim>,
}

/// The PROXY header of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    bytes: Vec<u8>,
    /// Only the first datagram has it.
    is_once: bool,
    has_gone: bool,
    pub(crate) form: HeaderOut,
}

impl Header {
    /// The header that a backend asks for.
    pub(crate) fn of(wanted: Option<SendProxyUdp>, client: SocketAddr, original_dst: SocketAddr) -> Self {
        let v2 = || proxy_v2::Fields::bare(proxy_v2::Announced::Datagram, client, original_dst).build();
        let (bytes, is_once, form) = match wanted {
            None => (Vec::new(), false, HeaderOut::None),
            Some(SendProxyUdp::Every) => (v2(), false, HeaderOut::V2),
            Some(SendProxyUdp::First) => (v2(), true, HeaderOut::V2),
            Some(SendProxyUdp::Spp) => (spp::build(client, original_dst).to_vec(), false, HeaderOut::Spp),
        };
        Self { bytes, is_once, has_gone: false, form }
    }
}

impl Upstream {
    /// Takes a connected socket. `must_not_fragment`: datagrams larger than the path are dropped here, as the client's own
    /// path would drop them (QUIC finds the size of its path by that, RFC 9000 section 14).
    ///
    /// # Errors
    ///
    /// There is no room in the event queue.
    pub(crate) fn open(found: UdpToBackend, header: Header, must_not_fragment: bool) -> io::Result<Self> {
        let UdpToBackend { socket, rung, claim } = found;
        // A kernel without it brings datagrams one by one.
        let _ = receive_joined(socket.as_fd());
        if must_not_fragment {
            forbid_fragments(socket.as_fd(), socket.local_addr()?.is_ipv6())?;
        }
        let source = match rung {
            Rung::Client => SourceUsed::ClientEndpoint,
            Rung::ClientAddress => SourceUsed::ClientAddress,
            Rung::Own(_) => SourceUsed::Own,
        };
        Ok(Self { socket: UdpSocket::from_std(socket)?, header, source, _claim: claim })
    }

    /// Takes over the socket of a flow that began in another process.
    ///
    /// # Errors
    ///
    /// There is no room in the event queue.
    pub(crate) fn resume(
        socket: OwnedFd,
        header: Header,
        source: SourceUsed,
        claim: Option<Claim>,
    ) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, header, source, _claim: claim })
    }

    /// The socket and the header, for another process.
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub(crate) fn copy(&self) -> io::Result<(OwnedFd, Header)> {
        Ok((self.socket.as_fd().try_clone_to_owned()?, self.header.clone()))
    }

    /// Sends datagrams of the client.
    pub(crate) fn send<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) -> Sent {
        let mut datagrams = datagrams;
        let mut sent = Sent::default();
        if self.header.is_once && !self.header.has_gone {
            sent = send_all(&self.way(&self.header.bytes), datagrams.by_ref().take(1));
            self.header.has_gone = sent.datagrams > 0;
        }
        let prefix = if self.header.is_once { &[] } else { self.header.bytes.as_slice() };
        sent.add(send_all(&self.way(prefix), datagrams));
        sent
    }

    fn way<'a>(&'a self, prefix: &'a [u8]) -> Way<'a> {
        Way { socket: self.socket.as_fd(), route: Route::default(), prefix }
    }

    /// Takes what the backend has sent.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        self.socket.try_io(Interest::READABLE, || batch.receive(self.socket.as_fd()))
    }

    pub(crate) fn poll_readable(&self, context: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        self.socket.poll_recv_ready(context)
    }

    pub(crate) fn form(&self) -> HeaderOut {
        self.header.form
    }
}
