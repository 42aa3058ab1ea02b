//! Which candidate is tried next: those of a backend, then those of its fallbacks, and last whoever is thought to be down.

use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::vec;

use tokio::time::Instant;

use crate::config::model::{Backend, BackendId, Host, Source, Target, Transport};
use crate::generation::{Candidate, Epoch};
use crate::operation::counters::WorkerCounters;
use crate::route::order;

/// The candidates of a backend and its fallbacks, each once. The configuration has no circles.
#[derive(Debug)]
pub(crate) struct Chain {
    client: IpAddr,
    transport: Transport,
    /// Whose candidates come next.
    backend: Option<BackendId>,
    order: vec::IntoIter<(BackendId, usize)>,
    /// Those that checks or ejection speak against. They are tried when all others have failed: then the checks may be what
    /// is wrong, and nobody is worse off.
    kept_back: Vec<(BackendId, usize)>,
    /// They are what is tried now.
    is_last_resort: bool,
    /// Backends that have not served so far.
    begun: Vec<BackendId>,
    /// That of the candidate which is tried now.
    current: Option<BackendId>,
    /// Where those are counted that did not serve; none before the first is begun.
    counters: Option<Arc<WorkerCounters>>,
}

impl Chain {
    /// Begins at a backend.
    pub(crate) fn new(backend: BackendId, client: IpAddr, transport: Transport) -> Self {
        let (order, kept_back, begun) = (Vec::new().into_iter(), Vec::new(), Vec::new());
        let (is_last_resort, backend) = (false, Some(backend));
        Self { client, transport, backend, order, kept_back, is_last_resort, begun, current: None, counters: None }
    }

    /// The next candidate: its backend, and which target of it.
    pub(crate) fn next(&mut self, epoch: &Epoch) -> Option<(BackendId, usize)> {
        self.current = None;
        while self.order.len() == 0 {
            match self.backend.take() {
                Some(id) => self.begin(epoch, id)?,
                None if self.kept_back.is_empty() => return None,
                None => {
                    self.is_last_resort = true;
                    self.order = mem::take(&mut self.kept_back).into_iter();
                }
            }
        }
        let next = self.order.next();
        self.current = next.map(|(backend, _)| backend);
        next
    }

    fn begin(&mut self, epoch: &Epoch, id: BackendId) -> Option<()> {
        let backend = epoch.config().backends.get(id.0)?;
        let (candidates, turn) = (epoch.generation.candidates(id), epoch.generation.turn(id));
        let mut order = preferred(backend, candidates, turn, (self.client, self.transport));
        self.begun.push(id);
        self.counters.get_or_insert_with(|| Arc::clone(&epoch.counters));
        self.backend = backend.fallback;
        if self.backend.is_some() || !self.kept_back.is_empty() {
            let now = Instant::now().into_std();
            let transport = self.transport;
            let is_usable =
                |index: &usize| candidates.get(*index).is_some_and(|one| one.condition.is_usable(transport, now));
            let (usable, others): (Vec<_>, Vec<_>) = order.into_iter().partition(is_usable);
            self.kept_back.extend(others.into_iter().map(|index| (id, index)));
            order = usable;
        }
        self.order = order.into_iter().map(|index| (id, index)).collect::<Vec<_>>().into_iter();
        Some(())
    }

    /// The addresses of a candidate in the order of trying, those that rest behind the others. None: all of them rest, and the
    /// candidate is kept back.
    pub(crate) fn unless_resting(
        &mut self,
        candidate: (BackendId, usize),
        of: Option<&Candidate>,
        addresses: Vec<SocketAddr>,
    ) -> Vec<SocketAddr> {
        let Some(of) = of else { return addresses };
        let (mut order, resting) = of.condition.part(self.transport, addresses, Instant::now().into_std());
        if order.is_empty() && !self.is_last_resort && !self.is_over() {
            self.kept_back.push(candidate);
            return Vec::new();
        }
        order.extend(resting);
        order
    }

    /// Whether nothing is left to try.
    pub(crate) fn is_over(&self) -> bool {
        self.order.len() == 0 && self.backend.is_none() && self.kept_back.is_empty()
    }

    /// Counts the backends that have not served, now that one has, or none.
    pub(crate) fn served(&mut self, epoch: &Epoch, by: Option<BackendId>) {
        let (serving, failed): (Vec<_>, Vec<_>) = self.begun.drain(..).partition(|id| by == Some(*id));
        failed.into_iter().for_each(|id| epoch.counters.backend_failed(id));
        self.begun = serving;
    }
}

/// A client that does not wait to the end was not served by those that were passed over.
impl Drop for Chain {
    fn drop(&mut self) {
        let Some(counters) = &self.counters else { return };
        let passed_over = self.begun.iter().filter(|id| self.current != Some(**id));
        passed_over.for_each(|id| counters.backend_failed(*id));
    }
}

fn preferred(backend: &Backend, candidates: &[Candidate], turn: u64, by: (IpAddr, Transport)) -> Vec<usize> {
    if candidates.len() == 1 {
        return vec![0];
    }
    let mut order = by_balance(backend, candidates, turn, by);
    let (client, transport) = by;
    // A backend can see the client's address only over the client's own address family.
    let is_other = |index: &usize| backend.targets.get(*index).is_some_and(|target| is_of_other_family(target, client));
    match backend.source {
        Source::Own => {}
        Source::Client { or_own: false } => order.sort_by_key(is_other),
        Source::Client { or_own: true } => {
            let now = Instant::now().into_std();
            let is_usable =
                |index: &usize| candidates.get(*index).is_some_and(|one| one.condition.is_usable(transport, now));
            // To be served comes before to be seen.
            order.sort_by_key(|index| (!is_usable(index), is_other(index)));
        }
    }
    order
}

fn is_of_other_family(target: &Target, client: IpAddr) -> bool {
    match target.host {
        Host::Address(address) => address.is_ipv4() != client.is_ipv4(),
        Host::Name(_) => false,
    }
}

fn by_balance(
    backend: &Backend,
    candidates: &[Candidate],
    turn: u64,
    (client, transport): (IpAddr, Transport),
) -> Vec<usize> {
    let now = Instant::now().into_std();
    let known: Vec<_> = candidates
        .iter()
        .map(|candidate| order::Candidate {
            healthy: candidate.condition.is_usable(transport, now),
            connections: candidate.condition.connections(),
            key: candidate.key,
        })
        .collect();
    order::order(backend.balance, &known, turn, client)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
pub(crate) mod tests;
