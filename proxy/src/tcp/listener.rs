//! Accepting: who is denied or one too many is reset at once; nothing here waits for a client's bytes, and no error of
//! accept ends it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::admission::{Bound, ListenerKey};
use crate::config::model::{Arrival, HeaderPolicy, ListenerId, Transport};
use crate::generation::Epoch;
use crate::kernel;
use crate::listening::{prepare_accepted, Endpoint};
use crate::operation::outcomes::Peer;
use crate::operation::{CloseReason, Limit};
use crate::story::Story;
use crate::worker::Worker;

use super::connection::{knows_destination, serve, Accepted, Beginning};
use super::unfinished::reset;

/// How long accepting rests after an error: first, and at most.
const FIRST_REST: Duration = Duration::from_millis(5);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Accepts for as long as the task lives.
pub(crate) async fn accept(worker: Rc<Worker>, socket: Rc<TcpListener>, endpoint: Endpoint) {
    let rest = Cell::new(FIRST_REST);
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                rest.set(FIRST_REST);
                begin(&worker, endpoint, stream, peer);
            }
            Err(_) => {
                let epoch = worker.epoch();
                if let Some(listener) = epoch.generation.listener_at(endpoint) {
                    epoch.counters.accept_failed(listener);
                }
                // Mostly the process or the kernel is out of something. Whatever it is, it may last.
                sleep(rest.get()).await;
                rest.set((rest.get() * 2).min(LONGEST_REST));
            }
        }
    }
}

/// Takes what the kernel has already accepted for a socket that is about to be closed.
pub(crate) fn accept_waiting(worker: &Rc<Worker>, socket: &TcpListener, endpoint: Endpoint) {
    let listener = SockRef::from(socket);
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream.into()));
        if let (Ok(stream), Some(peer)) = (stream, peer.as_socket()) {
            begin(worker, endpoint, stream, peer);
        }
    }
}

fn begin(worker: &Rc<Worker>, endpoint: Endpoint, stream: TcpStream, peer: SocketAddr) {
    let epoch = worker.epoch();
    let Some(listener) = epoch.generation.listener_at(endpoint) else { return reset(&stream) };
    let arrival = if endpoint.is_tproxy { Arrival::Tproxy } else { Arrival::Direct };
    let original_dst = if knows_destination(endpoint.address, arrival) {
        endpoint.address
    } else {
        match stream.local_addr() {
            Ok(address) => address,
            Err(_) => return, // gone between its accept and now
        }
    };
    if endpoint.is_multipath {
        begin_multipath(&epoch, &stream);
    }
    match admit(worker, &epoch, listener, peer) {
        Ok(permit) => {
            let accepted = Accepted { stream, peer, original_dst, permit };
            spawn_local(serve(Rc::clone(worker), Box::new(Beginning { epoch, listener, accepted })));
        }
        Err(reason) => {
            if reason == CloseReason::OverLimit(Limit::SourceConnections) {
                epoch.generation.suspicion.is_full(peer.ip());
            }
            Story::begin(worker, &epoch, listener, Transport::Tcp, peer, original_dst).close = reason;
            reset(&stream);
        }
    }
}

/// Counts what a client of a socket of Multipath TCP speaks, and gives it what others have inherited.
fn begin_multipath(epoch: &Epoch, stream: &TcpStream) {
    epoch.counters.multipath(Peer::Client, kernel::subflows(stream.as_fd()).is_some());
    prepare_accepted(&SockRef::from(stream), &epoch.config().timeouts);
}

fn admit(
    worker: &Worker,
    epoch: &Epoch,
    listener: ListenerId,
    peer: SocketAddr,
) -> Result<crate::admission::Permit, CloseReason> {
    if worker.is_denied(peer.ip()) {
        return Err(CloseReason::Denied);
    }
    let (occupancy, bounds) = epoch.generation.bounds(listener).ok_or(CloseReason::NoRule)?;
    let rule = epoch.listener(listener).and_then(|listener| epoch.generation.header_rule(listener, peer.ip()));
    let policy = rule.map_or(HeaderPolicy::Never, |rule| rule.policy);
    let admit = || match policy {
        HeaderPolicy::Never => worker.admission.admit(peer.ip(), occupancy, bounds),
        // A peer that speaks for many clients is not one source.
        HeaderPolicy::Require | HeaderPolicy::Optional => worker.admission.admit_unnamed(occupancy, bounds),
    };
    let mut permit = admit();
    if permit.is_err() && policy == HeaderPolicy::Never && worker.admission.is_full(peer.ip(), bounds) {
        return permit.map_err(over_limit); // nobody is to go for one who does not come in
    }
    // The total may be wanting, and then the listener's own.
    for _ in 0..2 {
        let has_room = match permit {
            Err(Bound::Total) => worker.undecided.give_way(None),
            Err(Bound::Listener) => worker.undecided.give_way(Some(ListenerKey::of(occupancy))),
            Err(Bound::Source) | Ok(_) => false,
        };
        if !has_room {
            break;
        }
        permit = admit();
    }
    permit.map_err(over_limit)
}

/// The word for a bound that would be passed.
pub(super) fn over_limit(bound: Bound) -> CloseReason {
    CloseReason::OverLimit(match bound {
        Bound::Total => Limit::Connections,
        Bound::Listener => Limit::ListenerConnections,
        Bound::Source => Limit::SourceConnections,
    })
}
