//! Where a flow may go: the addresses of one candidate after the other.

use std::net::SocketAddr;

use crate::chain::Chain;
use crate::config::model::{BackendId, Transport};
use crate::generation::Epoch;
use crate::operation::CloseReason;
use crate::route::target::fill;
use crate::route::Captures;
use crate::tcp::dial::{allowed, by_family};

/// A walk through all addresses to which a flow may go.
#[derive(Debug)]
pub(crate) struct Search {
    client: SocketAddr,
    original_dst: SocketAddr,
    captures: Captures,
    chain: Chain,
    /// The backend and the target that are tried.
    candidate: (BackendId, usize),
    /// Addresses of this candidate that are left.
    addresses: std::vec::IntoIter<SocketAddr>,
    /// Why the last one did not serve.
    pub(crate) reason: CloseReason,
}

/// One of the addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) backend: BackendId,
    /// Which target of the backend.
    pub(crate) candidate: usize,
    pub(crate) to: SocketAddr,
}

impl Search {
    /// Begins at a backend.
    pub(crate) fn new(client: SocketAddr, original_dst: SocketAddr, captures: Captures, backend: BackendId) -> Self {
        Self {
            client,
            original_dst,
            captures,
            chain: Chain::new(backend, client.ip(), Transport::Udp),
            candidate: (backend, 0),
            addresses: Vec::new().into_iter(),
            reason: CloseReason::BackendUnreachable,
        }
    }

    /// The next address; none: [`Self::reason`] says why the last one did not serve.
    pub(crate) async fn next(&mut self, epoch: &Epoch) -> Option<Choice> {
        loop {
            if let Some(to) = self.addresses.next() {
                let (backend, candidate) = self.candidate;
                return Some(Choice { backend, candidate, to });
            }
            let (id, candidate) = self.chain.next(epoch)?;
            let Some(backend) = epoch.config().backends.get(id.0) else { continue };
            let Some(target) = backend.targets.get(candidate) else { continue };
            let destination = match fill(target, &backend.allow_names, &self.captures, self.original_dst.port()) {
                Ok(destination) => destination,
                Err(error) => {
                    self.reason = CloseReason::NameRefused(error.label());
                    continue;
                }
            };
            self.candidate = (id, candidate);
            match allowed(epoch, destination, Transport::Udp, self.client.ip()).await {
                Ok(addresses) => {
                    let addresses = by_family(backend.source, addresses, self.client.ip());
                    let of = epoch.generation.candidates(id).get(candidate);
                    self.addresses = self.chain.unless_resting((id, candidate), of, addresses).into_iter();
                }
                Err(why) => self.reason = why,
            }
        }
    }

    /// Counts the backends that have not served, now that one has, or none.
    pub(crate) fn served(&mut self, epoch: &Epoch, by: Option<BackendId>) {
        self.chain.served(epoch, by);
    }

    /// Whether nothing is left to try.
    pub(crate) fn is_over(&self) -> bool {
        self.addresses.len() == 0 && self.chain.is_over()
    }
}
