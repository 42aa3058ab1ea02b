//! From a decision to a connected candidate: names to addresses, forbidden ones left out, one candidate after the other.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{timeout, Instant};

use crate::chain::Chain;
use crate::config::model::{Arrival, Backend, BackendId, Source, Transport};
use crate::generation::Epoch;
use crate::kernel;
use crate::operation::outcomes::{Peer, SourceUsed};
use crate::operation::{CloseReason, Limit};
use crate::route::forbidden::{forbidden, Forbidden, Origin};
use crate::route::target::{fill, Destination};
use crate::route::Captures;
use crate::transparent::local_addresses::LocalAddresses;
use crate::transparent::socket::{connect_tcp, DialError, Manner, Rung};
use crate::upstream::condition::Active;
use crate::upstream::extent::Failed;
use crate::upstream::eyeballs;
use crate::upstream::health::is_this_hosts;

/// Who wants to get where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) original_dst: SocketAddr,
    pub(crate) arrival: Arrival,
    pub(crate) captures: &'a Captures,
    /// Bytes are at hand that the backend gets at once.
    pub(crate) speaks_at_once: bool,
}

/// A connected candidate.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: TcpStream,
    pub(crate) backend: BackendId,
    pub(crate) target: SocketAddr,
    pub(crate) source: SourceUsed,
    /// Ways of a connection that was to be by Multipath TCP; 0: it is by plain TCP.
    pub(crate) subflows: Option<u8>,
    /// Counts as a connection of the candidate until it is dropped.
    pub(crate) in_use: Active,
    /// From the first attempt to the last.
    pub(crate) took: Duration,
}

/// Tries the candidates of a backend and its fallbacks, one after the other.
///
/// # Errors
///
/// Why the last one could not be reached.
pub(crate) async fn dial(
    epoch: &Epoch,
    locals: &LocalAddresses,
    backend: BackendId,
    caller: Caller<'_>,
) -> Result<Dialled, CloseReason> {
    let begun = Instant::now();
    let mut reason = CloseReason::BackendUnreachable;
    let mut chain = Chain::new(backend, caller.client.ip(), Transport::Tcp);
    while let Some((id, index)) = chain.next(epoch) {
        match dial_candidate(epoch, locals, (id, index), caller, &mut chain).await {
            Ok(None) => {}
            Ok(Some((stream, target, rung, in_use))) => {
                chain.served(epoch, Some(id));
                epoch.counters.backend_connected(id, begun.elapsed());
                // A kernel that refuses it is no reason to refuse a client.
                let _ = stream.set_nodelay(true);
                let source = source_used(rung);
                let subflows = epoch.config().backends.get(id.0).filter(|backend| backend.mptcp);
                let subflows = subflows.map(|_| subflows_of(&stream));
                if let Some(subflows) = subflows {
                    epoch.counters.multipath(Peer::Backend, subflows > 0);
                }
                return Ok(Dialled { stream, backend: id, target, source, subflows, in_use, took: begun.elapsed() });
            }
            Err(why) => reason = why,
        }
    }
    chain.served(epoch, None);
    Err(reason)
}

type Reached = (TcpStream, SocketAddr, Rung, Active);

/// None: it rests, and comes again when all others have failed.
async fn dial_candidate(
    epoch: &Epoch,
    locals: &LocalAddresses,
    (id, index): (BackendId, usize),
    caller: Caller<'_>,
    chain: &mut Chain,
) -> Result<Option<Reached>, CloseReason> {
    let gone = CloseReason::BackendUnreachable;
    let backend = epoch.config().backends.get(id.0).ok_or(gone)?;
    let target = backend.targets.get(index).ok_or(gone)?;
    let candidate = epoch.generation.candidates(id).get(index).ok_or(gone)?;
    let destination = fill(target, &backend.allow_names, caller.captures, caller.original_dst.port())
        .map_err(|error| CloseReason::NameRefused(error.label()))?;
    let addresses = allowed(epoch, destination, Transport::Tcp, caller.client.ip()).await?;
    let addresses = by_family(backend.source, addresses, caller.client.ip());
    let addresses = chain.unless_resting((id, index), Some(candidate), addresses);
    let Some(first) = addresses.first() else { return Ok(None) };
    let Tried { outcome, failures } = reach(locals, backend, &addresses, caller).await;
    let condition = &candidate.condition;
    let note = |to: SocketAddr, among: &[SocketAddr], failure: Failure| {
        if failure.is_of_candidate {
            let seen = among.iter().find_map(|to| seen_client(locals, backend.source, caller, *to));
            let seen = seen.map(|client| client.ip());
            let is_refusal = failure.reason == CloseReason::BackendRefused;
            let failed = Failed { by: Transport::Tcp, seen, client: caller.client.ip(), to, is_refusal };
            condition.failed_at(failed, Instant::now().into_std());
        }
    };
    if condition.is_of_many_hosts() {
        failures.into_iter().for_each(|(to, failure)| note(to, &[to], failure));
    } else if let Err(failure) = outcome {
        note(*first, &addresses, failure);
    }
    let (stream, address, rung) = outcome.map_err(|failure| failure.reason)?;
    condition.connected_at(Transport::Tcp, address, Instant::now().into_std());
    Ok(Some((stream, address, rung, condition.begin())))
}

/// The addresses of a destination that may be dialled.
pub(crate) async fn allowed(
    epoch: &Epoch,
    destination: Destination,
    transport: Transport,
    client: IpAddr,
) -> Result<Vec<SocketAddr>, CloseReason> {
    let (addresses, origin) = match destination {
        Destination::Address(address, origin) => (vec![address], origin),
        Destination::Name { name, port, is_searched } => {
            let names = &epoch.names;
            let found = if is_searched {
                Box::pin(names.addresses_by_search(Some(client), &name)).await
            } else {
                Box::pin(names.addresses_for(Some(client), &name)).await
            };
            let found = found.map_err(|_| CloseReason::NameNotResolved)?;
            (found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(), Origin::Name)
        }
    };
    let mut reason = CloseReason::NameNotResolved;
    let policy = &epoch.config().targets;
    let own = epoch.generation.own();
    let mut allowed = Vec::with_capacity(addresses.len());
    for address in addresses {
        match forbidden(policy, own, transport, address, origin) {
            None => {
                if own.would_answer(transport, address) {
                    epoch.generation.suspicion.dialled(address.ip());
                }
                allowed.push(address);
            }
            Some(Forbidden::OwnListener) => reason = CloseReason::SelfLoop,
            Some(
                Forbidden::Loopback
                | Forbidden::LinkLocal
                | Forbidden::Unspecified
                | Forbidden::Multicast
                | Forbidden::Broadcast
                | Forbidden::Metadata,
            ) => reason = CloseReason::TargetForbidden,
        }
    }
    if allowed.is_empty() {
        return Err(reason);
    }
    Ok(allowed)
}

/// Addresses in the order of trying: where the backend shall see the client's address, those of its family come first.
pub(crate) fn by_family(source: Source, mut addresses: Vec<SocketAddr>, client: IpAddr) -> Vec<SocketAddr> {
    if source != Source::Own {
        addresses.sort_by_key(|address| address.is_ipv4() != client.is_ipv4());
    }
    addresses
}

/// Why a candidate was not reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) reason: CloseReason,
    /// The candidate itself failed, rather than this host or the client's address.
    is_of_candidate: bool,
}

const TOO_LATE: Failure = Failure { reason: CloseReason::BackendTimeout, is_of_candidate: true };

/// What came of dialling a candidate's addresses.
struct Tried {
    outcome: Result<(TcpStream, SocketAddr, Rung), Failure>,
    /// Those that failed, whether another one was reached or not.
    failures: Vec<(SocketAddr, Failure)>,
}

async fn reach(locals: &LocalAddresses, backend: &Backend, addresses: &[SocketAddr], caller: Caller<'_>) -> Tried {
    let manner = Manner { speaks_at_once: caller.speaks_at_once, is_multipath: backend.mptcp };
    let connect =
        |to: SocketAddr| connect_tcp(seen_client(locals, backend.source, caller, to), backend.source, to, manner);
    let limit = backend.connect_timeout;
    if let [only] = addresses {
        let connected = timeout(limit, connect(*only)).await.map_err(|_| TOO_LATE);
        let connected = connected.and_then(|connected| connected.map_err(|error| failure(&error)));
        let failures = connected.as_ref().err().map(|failure| (*only, *failure)).into_iter().collect();
        return Tried { outcome: connected.map(|(stream, rung)| (stream, *only, rung)), failures };
    }
    let begun = RefCell::new(Vec::new());
    let connect = |to: SocketAddr| {
        begun.borrow_mut().push((to, Instant::now()));
        connect(to)
    };
    let of = |errors: &[(SocketAddr, DialError)]| errors.iter().map(|(to, error)| (*to, failure(error))).collect();
    match Box::pin(eyeballs::race(addresses, limit, connect)).await {
        Ok(won) => Tried { outcome: Ok((won.value.0, won.address, won.value.1)), failures: of(&won.failures) },
        Err(lost) => {
            let mut failures: Vec<_> = of(&lost.failures);
            let last = failures.last().map_or(TOO_LATE, |(_, failure)| *failure);
            let outcome = Err(if lost.unanswered.is_empty() { last } else { TOO_LATE });
            // One that was begun late had no time to answer.
            let had_time =
                |to: SocketAddr| begun.borrow().iter().any(|(of, at)| *of == to && at.elapsed() >= limit / 2);
            failures.extend(lost.unanswered.iter().filter(|to| had_time(**to)).map(|to| (*to, TOO_LATE)));
            Tried { outcome, failures }
        }
    }
}

/// Whom a backend at this address can see: nobody but the proxy, where client and backend are on one host; where they are
/// neighbours, only if it must not be the proxy.
pub(crate) fn seen_client(
    locals: &LocalAddresses,
    source: Source,
    caller: Caller<'_>,
    to: SocketAddr,
) -> Option<SocketAddr> {
    let client = caller.client.ip();
    let is_proxy = match source {
        Source::Own => true,
        Source::Client { or_own } => {
            locals.same_host(client, to.ip()) || or_own && locals.are_neighbours(client, to.ip())
        }
    };
    if is_proxy {
        return None;
    }
    // Its own endpoint towards the original destination is the client's socket itself.
    let is_its_own_way = caller.arrival == Arrival::Tproxy && to == caller.original_dst;
    Some(if is_its_own_way { SocketAddr::new(client, 0) } else { caller.client })
}

pub(crate) fn failure(error: &DialError) -> Failure {
    let (reason, is_of_candidate) = match error {
        DialError::Client(_) => (CloseReason::TransparencyImpossible, false),
        DialError::Socket(error) => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => (CloseReason::OverLimit(Limit::Descriptors), false),
            _ => (CloseReason::IoError(error.kind()), false),
        },
        DialError::Connect(error) if is_this_hosts(error) => (CloseReason::IoError(error.kind()), false),
        DialError::Connect(error) => match error.raw_os_error() {
            // The last: a reset after an end.
            Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE) => (CloseReason::BackendRefused, true),
            Some(libc::ETIMEDOUT) => (CloseReason::BackendTimeout, true),
            _ => (CloseReason::BackendUnreachable, true),
        },
    };
    Failure { reason, is_of_candidate }
}

/// Ways of a connection; 0: it is by plain TCP.
pub(super) fn subflows_of(stream: &TcpStream) -> u8 {
    kernel::subflows(stream.as_fd()).unwrap_or(0)
}

fn source_used(rung: Rung) -> SourceUsed {
    match rung {
        Rung::Client => SourceUsed::ClientEndpoint,
        Rung::ClientAddress => SourceUsed::ClientAddress,
        Rung::Own(_) => SourceUsed::Own,
    }
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
