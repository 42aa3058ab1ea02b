//! Where a flow may go: the addresses of one candidate after the other, then those of the fallback.

use std::net::SocketAddr;

use crate::config::model::{BackendId, Transport};
use crate::generation::Epoch;
use crate::operation::CloseReason;
use crate::route::target::fill;
use crate::route::Captures;
use crate::tcp::dial::{allowed, by_family, preferred, LONGEST_CHAIN};

/// A walk through all addresses to which a flow may go.
#[derive(Debug)]
pub(crate) struct Search {
    client: SocketAddr,
    original_dst: SocketAddr,
    captures: Captures,
    /// Whose candidates are tried; none: all have been.
    backend: Option<BackendId>,
    /// Fallbacks that were gone to.
    links: usize,
    /// Its candidates that are left; none: they have not been looked at.
    order: Option<std::vec::IntoIter<usize>>,
    candidate: usize,
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
            backend: Some(backend),
            links: 0,
            order: None,
            candidate: 0,
            addresses: Vec::new().into_iter(),
            reason: CloseReason::BackendUnreachable,
        }
    }

    /// The next address; none: [`Self::reason`] says why the last one did not serve.
    pub(crate) async fn next(&mut self, epoch: &Epoch) -> Option<Choice> {
        loop {
            let id = self.backend?;
            if let Some(to) = self.addresses.next() {
                return Some(Choice { backend: id, candidate: self.candidate, to });
            }
            let backend = epoch.config().backends.get(id.0)?;
            let order = self.order.get_or_insert_with(|| {
                let turn = epoch.generation.turn(id);
                preferred(backend, epoch.generation.candidates(id), turn, self.client.ip()).into_iter()
            });
            let Some(candidate) = order.next() else {
                epoch.counters.backend_failed(id);
                self.links += 1;
                (self.backend, self.order) = (backend.fallback.filter(|_| self.links < LONGEST_CHAIN), None);
                continue;
            };
            let Some(target) = backend.targets.get(candidate) else { continue };
            let destination = match fill(target, &backend.allow_suffixes, &self.captures, self.original_dst.port()) {
                Ok(destination) => destination,
                Err(error) => {
                    self.reason = CloseReason::NameRefused(error.label());
                    continue;
                }
            };
            self.candidate = candidate;
            match allowed(epoch, destination, Transport::Udp).await {
                Ok(addresses) => {
                    self.addresses = by_family(backend.source, addresses, self.client.ip()).into_iter();
                }
                Err(why) => self.reason = why,
            }
        }
    }

    /// Whether nothing is left to try.
    pub(crate) fn is_over(&self, epoch: &Epoch) -> bool {
        let Some(backend) = self.backend.and_then(|id| epoch.config().backends.get(id.0)) else { return true };
        let is_candidate_left = self.order.as_ref().map_or(true, |order| order.len() > 0);
        self.addresses.len() == 0 && !is_candidate_left && backend.fallback.is_none()
    }
}
