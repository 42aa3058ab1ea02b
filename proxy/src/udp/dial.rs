//! The addresses to which a flow may go: those of the first candidate that has any that are allowed.

use std::net::SocketAddr;

use crate::config::model::{BackendId, Transport};
use crate::generation::Epoch;
use crate::operation::CloseReason;
use crate::route::target::fill;
use crate::route::Captures;
use crate::tcp::dial::{allowed, by_family, preferred, LONGEST_CHAIN};

/// Who wants to get where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) epoch: &'a Epoch,
    pub(crate) client: SocketAddr,
    pub(crate) original_dst: SocketAddr,
    pub(crate) captures: &'a Captures,
}

/// The addresses of the first candidate that has any, of this backend or of its fallbacks. A datagram is answered by nobody in
/// particular, so there is no trying of the next one.
///
/// # Errors
///
/// Why the last candidate has none.
pub(crate) async fn candidates(way: Way<'_>, backend: BackendId) -> Result<(BackendId, Vec<SocketAddr>), CloseReason> {
    let epoch = way.epoch;
    let mut reason = CloseReason::BackendUnreachable;
    let mut next = Some(backend);
    for _ in 0..LONGEST_CHAIN {
        let Some(id) = next else { break };
        let Some(backend) = epoch.config().backends.get(id.0) else { break };
        let turn = epoch.generation.turn(id);
        for index in preferred(backend, epoch.generation.candidates(id), turn, way.client.ip()) {
            let Some(target) = backend.targets.get(index) else { continue };
            let filled = fill(target, &backend.allow_suffixes, way.captures, way.original_dst.port());
            let destination = match filled {
                Ok(destination) => destination,
                Err(error) => {
                    reason = CloseReason::NameRefused(error.label());
                    continue;
                }
            };
            match allowed(epoch, destination, Transport::Udp).await {
                Ok(addresses) => return Ok((id, by_family(backend.source, addresses, way.client.ip()))),
                Err(why) => reason = why,
            }
        }
        epoch.counters.backend_failed(id);
        next = backend.fallback;
    }
    Err(reason)
}
