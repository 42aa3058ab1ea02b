//! The way of a flow to its backend: a connected socket, and the header that goes with its datagrams.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use socket2::SockRef;

use crate::config::model::SendProxyUdp;
use crate::generation::Candidate;
use crate::hop::{is_old, Ring};
use crate::kernel::{receive_joined, Batch, Route};
use crate::operation::outcomes::{HeaderOut, SourceUsed};
use crate::transparent::port_sharing::{lend, Lent};
use crate::transparent::socket::{Rung, UdpToBackend};
use crate::transparent::udp_endpoints::{Claim, UdpEndpoints};
use crate::upstream::condition::{Active, Condition};
use crate::wire::signature::{self, HopKey, Stamp};
use crate::wire::{proxy_v2, spp};

use super::absence::{hear_of_absence, take_errors, Absence};
use super::fragments::{may_be_cut, Fragments};
use super::sending::{send_all, Joined, Sent, Way};
use super::tending::{Tended, Watched};

/// Bytes of answers that may wait for a worker that is busy; the kernel's own bound is `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// A connected socket towards a backend.
#[derive(Debug)]
pub(crate) struct Upstream {
    socket: Watched,
    header: Header,
    pub(crate) source: SourceUsed,
    /// Of QUIC, which is cut for a header only.
    fragments: Option<Fragments>,
    /// Keeps the client's endpoint, or a port that others share, towards this backend for this flow alone.
    claim: Option<Box<Claim>>,
    /// How the candidate fares; none: nothing can be said of it by one flow.
    pub(crate) condition: Option<Arc<Condition>>,
    /// Counts as a flow of the candidate.
    _in_use: Option<Active>,
}

/// The PROXY header of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    bytes: Box<[u8]>,
    /// Only the first datagram has it.
    is_once: bool,
    has_gone: bool,
    pub(crate) form: HeaderOut,
}

impl Header {
    /// The header that a backend asks for. What the client's hello says is not in it, for the next one reads that itself, nor a
    /// checksum, which datagrams have: each byte is one less for the payload.
    pub(crate) fn of(
        wanted: Option<SendProxyUdp>,
        client: SocketAddr,
        original_dst: SocketAddr,
        unique_id: Option<&[u8]>,
        signer: Option<&(HopKey, Stamp)>,
    ) -> Self {
        let bare = proxy_v2::Fields::bare(proxy_v2::Announced::Datagram, client, original_dst);
        let signed = signer.map(|(key, stamp)| (key, *stamp));
        let v2 = || proxy_v2::Fields { unique_id, signed, ..bare }.build();
        let (bytes, is_once, form) = match wanted {
            None => (Vec::new(), false, HeaderOut::None),
            Some(SendProxyUdp::Every) => (v2(), false, HeaderOut::V2),
            Some(SendProxyUdp::First) => (v2(), true, HeaderOut::V2),
            Some(SendProxyUdp::Spp) => (spp::build(client, original_dst).to_vec(), false, HeaderOut::Spp),
        };
        Self { bytes: bytes.into(), is_once, has_gone: false, form }
    }

    /// Has a signature that becomes old made anew, as long as the header is sent.
    fn sign_anew(&mut self, ring: &Ring) {
        let is_sent = !(self.is_once && self.has_gone);
        if is_sent && signature::read(&self.bytes).is_ok_and(|signature| is_old(signature.stamp.time)) {
            if let Some((key, stamp)) = ring.signer() {
                key.sign(&mut self.bytes, stamp);
            }
        }
    }
}

impl Upstream {
    /// Takes a connected socket. Datagrams that must not be cut and are larger than the path are dropped here, as the client's
    /// own path would drop them (QUIC finds the size of its path by that, RFC 9000 section 14).
    ///
    /// # Errors
    ///
    /// What the kernel says of an option of the socket.
    pub(crate) fn open(
        found: UdpToBackend,
        header: Header,
        may_fragment: bool,
        candidate: Option<&Candidate>,
    ) -> io::Result<Self> {
        let UdpToBackend { socket, rung, claim } = found;
        // A kernel without it tells of less.
        let _ = hear_of_absence(socket.as_fd());
        // A kernel without it brings datagrams one by one.
        let _ = receive_joined(socket.as_fd());
        // With less, bursts of answers are lost sooner.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        let fragments = fragments(socket.as_fd(), may_fragment);
        let source = match rung {
            Rung::Client => SourceUsed::ClientEndpoint,
            Rung::ClientAddress => SourceUsed::ClientAddress,
            Rung::Own(_) => SourceUsed::Own,
        };
        let socket = OwnedFd::from(socket).into();
        let in_use = candidate.map(|candidate| candidate.condition.begin());
        let condition = candidate.map(|candidate| Arc::clone(&candidate.condition));
        let claim = claim.map(Box::new);
        Ok(Self { socket, header, source, fragments, claim, condition, _in_use: in_use })
    }

    /// Takes over the socket of a flow that began in another process. Of its candidate nothing is known.
    pub(crate) fn resume(
        socket: OwnedFd,
        header: Header,
        may_fragment: bool,
        source: SourceUsed,
        claim: Option<Claim>,
    ) -> Self {
        // One that began in an older version was not asked for it.
        let _ = hear_of_absence(socket.as_fd());
        let fragments = fragments(socket.as_fd(), may_fragment);
        let (socket, claim) = (socket.into(), claim.map(Box::new));
        Self { socket, header, source, fragments, claim, condition: None, _in_use: None }
    }

    /// A socket towards another backend by the port of this one, which is the proxy's own.
    pub(super) fn lend_port(&mut self, to: SocketAddr, endpoints: &UdpEndpoints) -> Lent {
        lend(self.socket.as_fd(), &mut self.claim, to, endpoints)
    }

    /// Has the flow at a place hear what the backend says.
    ///
    /// # Errors
    ///
    /// There is no room in the event queue.
    pub(super) fn watch(&mut self, tended: &Tended, place: u32) -> io::Result<()> {
        tended.watch(&mut self.socket, place)
    }

    /// Takes what the backend has sent; how many messages.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: nothing; what ICMP told of an earlier datagram.
    pub(super) fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        batch.receive(self.socket.as_fd())
    }

    /// Takes what was said of datagrams that were sent.
    pub(super) fn take_errors(&self) -> Option<Absence> {
        take_errors(self.socket.as_fd())
    }

    /// The socket and the header, for another process, or for this one again: what is claimed here is free for that.
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub(crate) fn hand_over(&mut self) -> io::Result<(OwnedFd, Header)> {
        let socket = self.socket.as_fd().try_clone_to_owned()?;
        self.claim = None;
        Ok((socket, self.header.clone()))
    }

    /// Sends datagrams of the client; `ring` has the keys that sign their header.
    pub(crate) fn send<'a>(&mut self, joined: impl Iterator<Item = Joined<'a>>, ring: Option<&Ring>) -> Sent {
        if let Some(ring) = ring {
            self.header.sign_anew(ring);
        }
        let mut sent = Sent::default();
        let mut joined = joined;
        // The header belongs to the first datagram that the kernel takes.
        while self.header.is_once && !self.header.has_gone {
            let Some(first) = joined.next() else { return sent };
            let mut datagrams = first.datagrams().map(Joined::one);
            while !self.header.has_gone {
                let Some(datagram) = datagrams.next() else { break };
                sent.add(self.send_by(&self.header.bytes, std::iter::once(datagram)));
                self.header.has_gone = sent.datagrams > 0;
            }
            sent.add(self.send_by(&[], datagrams));
        }
        let prefix = if self.header.is_once { &[] } else { &*self.header.bytes };
        sent.add(self.send_by(prefix, joined));
        sent
    }

    /// Sends datagrams, each behind a prefix.
    fn send_by<'a>(&self, prefix: &[u8], joined: impl Iterator<Item = Joined<'a>>) -> Sent {
        let way = self.way(prefix);
        let Some(fragments) = &self.fragments else { return send_all(&way, joined) };
        if prefix.is_empty() {
            fragments.allow(way.socket, false);
            return send_all(&way, joined);
        }
        let (mut joined, mut sent) = (joined.peekable(), Sent::default());
        while let Some(first) = joined.peek() {
            let may = may_be_cut(*first);
            fragments.allow(way.socket, may);
            sent.add(send_all(&way, std::iter::from_fn(|| joined.next_if(|next| may_be_cut(*next) == may))));
        }
        sent
    }

    fn way<'a>(&'a self, prefix: &'a [u8]) -> Way<'a> {
        Way { socket: self.socket.as_fd(), route: Route::default(), prefix }
    }

    pub(crate) fn form(&self) -> HeaderOut {
        self.header.form
    }
}

/// For datagrams that must not be cut.
fn fragments(socket: BorrowedFd<'_>, may_fragment: bool) -> Option<Fragments> {
    let is_ipv6 = || SockRef::from(&socket).local_addr().is_ok_and(|own| own.is_ipv6());
    (!may_fragment).then(|| Fragments::new(is_ipv6()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::tests::{key, ring};

    fn header(wanted: SendProxyUdp, time: u64) -> Header {
        let (client, original_dst) = ("203.0.113.7:1".parse().expect("one"), "192.0.2.1:2".parse().expect("one"));
        Header::of(Some(wanted), client, original_dst, None, Some(&(key(1), Stamp { time, nonce: [1; 16] })))
    }

    #[test]
    fn a_signature_is_made_anew_when_it_is_old_and_the_header_is_still_sent() {
        let ring = ring(&[2]);
        let (_, Stamp { time, .. }) = ring.signer().expect("a key");
        for (wanted, has_gone, age, is_anew) in [
            (SendProxyUdp::Every, true, 0, false),
            (SendProxyUdp::Every, true, 6_000, true),
            (SendProxyUdp::Every, false, 6_000, true),
            (SendProxyUdp::First, false, 6_000, true),
            (SendProxyUdp::First, true, 6_000, false),
        ] {
            let mut header = Header { has_gone, ..header(wanted, time - age) };
            let before = header.bytes.clone();
            header.sign_anew(&ring);
            assert_eq!(header.bytes != before, is_anew, "{wanted:?} {has_gone} {age}");
            let signature = signature::read(&header.bytes).expect("signed");
            assert!(key(if is_anew { 2 } else { 1 }).has_signed(&header.bytes, &signature));
            assert_eq!(header.bytes.len(), before.len());
        }
        let mut spp = header(SendProxyUdp::Spp, 0);
        spp.sign_anew(&ring);
        assert_eq!(spp, header(SendProxyUdp::Spp, 0), "it has no signature");
    }
}
