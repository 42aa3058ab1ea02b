//! The running process gives all to a new one, and goes on with its connections only; or takes it back.

use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, Instant};

use super::bequest::{bequeath, Offer, Step};
use super::channel::Channel;
use super::heir::Estate;
use super::message::Taken;
use crate::commands::say;
use crate::config::model::Transport;
use crate::drain::DRAIN_LOOK;
use crate::listening::{Bound, Endpoint};
use crate::operation::admin::{write, Prefix, Response};
use crate::operation::notify::ServiceState;
use crate::operation::socket_file::AdminSocket;
use crate::signals::Stops;
use crate::steering::{copies, Proxy};
use crate::worker::Order;

/// A new process is about to take over.
#[derive(Debug, Default)]
pub(crate) struct Giving {
    /// What it goes on with, once it has said so.
    taken: Taken,
}

impl Proxy {
    /// Offers all to the process at the far end.
    pub(crate) fn offer(&mut self, mut stream: UnixStream, steps: &mpsc::Sender<Step>) {
        let begun = if self.giving.is_some() {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is about to take over"))
        } else {
            stream.try_clone().and_then(|stream| self.begin_offer(stream, steps.clone()))
        };
        if let Err(error) = begun {
            // Whoever asked may be gone.
            let _ = stream.write_all(&write(&Response::Error(error.to_string())));
        }
    }

    fn begin_offer(&mut self, stream: UnixStream, steps: mpsc::Sender<Step>) -> io::Result<()> {
        let copy = |bound: &Bound| {
            let sockets = bound.sockets.iter().map(|socket| socket.as_fd().try_clone_to_owned());
            Ok(Bound { endpoint: bound.endpoint, sockets: sockets.collect::<io::Result<_>>()? })
        };
        let mut offer =
            Offer { sockets: self.sockets.iter().map(copy).collect::<io::Result<_>>()?, ..Offer::default() };
        if let Some(admin) = &self.admin {
            offer.admin = Some((admin.path.clone(), admin.listener.try_clone()?));
        }
        if let Some((address, socket)) = &self.metrics {
            offer.metrics = Some((*address, socket.try_clone()?));
        }
        if let Some(keeper) = &self.keeper {
            offer.keeper = Some((keeper.as_fd().try_clone_to_owned()?, keeper.heard().to_vec()));
        }
        thread::Builder::new().name("succession".to_owned()).spawn(move || bequeath(stream, offer, &steps))?;
        self.giving = Some(Giving::default());
        Ok(())
    }

    /// The new process has started: no more datagrams are received here, and it gets the flows.
    pub(crate) async fn give(&mut self, taken: Taken, reply: oneshot::Sender<Estate>) {
        let flows = self.hold(&of(&taken, Transport::Udp)).await;
        let denied = {
            let now = std::time::Instant::now();
            let state = self.state();
            let denied = state.deny.denied(now).filter_map(|(prefix, left)| Some((Prefix(prefix), left?))).collect();
            denied
        };
        self.giving = Some(Giving { taken });
        if let Err(estate) = reply.send(Estate { flows, denied, signatures: self.generation.rings.taken() }) {
            self.take_back(&io::ErrorKind::BrokenPipe.into(), estate).await;
        }
    }

    /// The new process failed: all goes on here.
    pub(crate) async fn take_back(&mut self, why: &io::Error, estate: Estate) {
        let Some(Giving { taken }) = self.giving.take() else { return };
        let held = of(&taken, Transport::Udp);
        let held = self.sockets.iter().filter(|bound| held.contains(&bound.endpoint));
        match copies(held) {
            Ok(sockets) => self.go_on(sockets, estate.flows).await,
            Err(error) => say(&format!("edgeproxy: UDP is received no more: {error}; restart it")),
        }
        let generation = Arc::clone(&self.generation);
        if let Err(error) = self.keep_rules(&generation.config) {
            say(&format!("edgeproxy: {error}"));
        }
        say(&format!("edgeproxy: the new process did not take over, all goes on here: {why}"));
    }

    /// The new process serves: all that it has is left to it.
    pub(crate) async fn leave_all_to(&mut self, heir: Channel) {
        let taken = self.giving.take().map(|giving| giving.taken).unwrap_or_default();
        for service in self.services.drain(..) {
            service.abort();
        }
        self.metrics = None;
        if taken.admin_socket {
            self.admin.take().into_iter().for_each(AdminSocket::leave);
        }
        self.hold(&of(&taken, Transport::Tcp)).await;
        self.sockets.retain(|bound| !taken.endpoints.contains(&bound.endpoint));
        // What the new configuration has not got. Flows there have no way any more, as after a reload.
        self.leave_now(|_| true).await;
        let successor = heir.peer().ok().and_then(|pid| u32::try_from(pid).ok());
        if let Some(by) = successor {
            self.tell_manager(ServiceState::Succeeded { by }, "a newer process serves");
        }
        let here = self.admission.total();
        say(&format!("edgeproxy: a newer process serves; connections that go on here: {here}"));
    }

    /// Has workers take nothing more at these endpoints, whose sockets stay open; the flows that were there.
    pub(crate) async fn hold(&self, endpoints: &[Endpoint]) -> Vec<crate::udp::flow::handover::Heritage> {
        let mut flows = Vec::new();
        for hand in &self.workers {
            let (answer, answered) = oneshot::channel();
            hand.tell(Order::Hold(endpoints.to_vec(), answer));
            flows.extend(answered.await.unwrap_or_default());
        }
        flows
    }

    /// Waits for the connections that go on here.
    pub(crate) async fn outlive(&mut self, stops: &mut Stops, hangup: &mut Signal) {
        self.state().draining = true;
        let timeouts = &self.generation.config.timeouts;
        let (mut deadline, drain) = (Instant::now() + timeouts.handed_over, timeouts.drain);
        let mut was_stopped = false;
        while self.admission.total() > 0 && Instant::now() < deadline {
            tokio::select! {
                () = sleep(DRAIN_LOOK) => {}
                _ = hangup.recv() => {
                    if let Some(log) = &self.log {
                        log.reopen();
                    }
                }
                () = stops.any() => {
                    if was_stopped {
                        break;
                    }
                    was_stopped = true;
                    deadline = deadline.min(Instant::now() + drain);
                }
            }
        }
    }
}

fn of(taken: &Taken, transport: Transport) -> Vec<Endpoint> {
    taken.endpoints.iter().copied().filter(|endpoint| endpoint.transport == transport).collect()
}
