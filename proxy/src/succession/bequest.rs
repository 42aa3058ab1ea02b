//! The running process's side of the talk, on a thread of its own: it waits for the other, and the control thread does not.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::channel::Channel;
use super::heir::Estate;
use super::message::{Answer, Bequeathed, Taken};
use crate::kernel::descriptors::MOST_DESCRIPTORS;
use crate::listening::Bound;

/// How long the new process may take for its start: it reads its configuration, and has the kernel's rules looked at.
const START: Duration = Duration::from_secs(60);
/// How long it may then be silent: meanwhile no datagram is received.
const PROMPT: Duration = Duration::from_secs(5);

/// What is offered: copies of descriptors.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    pub(crate) sockets: Vec<Bound>,
    pub(crate) admin: Option<(PathBuf, UnixListener)>,
    pub(crate) metrics: Option<(SocketAddr, TcpListener)>,
    pub(crate) keeper: Option<(OwnedFd, Vec<u8>)>,
}

/// What the control thread hears of it.
#[derive(Debug)]
pub(crate) enum Step {
    /// The new process has started; now it needs what goes on.
    Taken(Taken, oneshot::Sender<Estate>),
    /// It serves. It waits until the channel is closed.
    Serving(Channel),
    /// It does not; what it was given comes back.
    Failed(io::Error, Estate),
}

/// Talks to the end. A control thread that does not listen any more has ended, and so does this.
pub(crate) fn bequeath(stream: UnixStream, offer: Offer, steps: &mpsc::Sender<Step>) {
    let mut estate = Estate::default();
    let step = match talk(stream, offer, steps, &mut estate) {
        Ok(Some(channel)) => Step::Serving(channel),
        Ok(None) => return,
        Err(error) => Step::Failed(error, estate),
    };
    // Whom this does not reach has ended.
    let _ = steps.blocking_send(step);
}

fn talk(
    stream: UnixStream,
    offer: Offer,
    steps: &mpsc::Sender<Step>,
    estate: &mut Estate,
) -> io::Result<Option<Channel>> {
    let mut channel = Channel::new(stream)?;
    channel.set_patience(START)?;
    offer.send(&mut channel)?;
    drop(offer);
    let Answer::Taken(taken) = channel.receive()? else { return Err(out_of_turn()) };
    let (reply, replied) = oneshot::channel();
    if steps.blocking_send(Step::Taken(taken, reply)).is_err() {
        return Ok(None);
    }
    let Ok(given) = replied.blocking_recv() else { return Ok(None) };
    *estate = given;
    channel.set_patience(PROMPT)?;
    give(estate, &mut channel)?;
    match channel.receive()? {
        Answer::Serving => Ok(Some(channel)),
        Answer::Taken(_) => Err(out_of_turn()),
    }
}

impl Offer {
    fn send(&self, channel: &mut Channel) -> io::Result<()> {
        for Bound { endpoint, sockets } in &self.sockets {
            for some in sockets.chunks(MOST_DESCRIPTORS) {
                let descriptors: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
                channel.send(&Bequeathed::Sockets { endpoint: *endpoint, count: some.len() }, &descriptors)?;
            }
        }
        if let Some((path, socket)) = &self.admin {
            channel.send(&Bequeathed::AdminSocket { path: path.clone() }, &[socket.as_fd()])?;
        }
        if let Some((address, socket)) = &self.metrics {
            channel.send(&Bequeathed::Metrics { address: *address }, &[socket.as_fd()])?;
        }
        if let Some((keeper, heard)) = &self.keeper {
            channel.send(&Bequeathed::Keeper { heard: heard.clone() }, &[keeper.as_fd()])?;
        }
        channel.send(&Bequeathed::OfferEnds, &[])
    }
}

fn give(estate: &Estate, channel: &mut Channel) -> io::Result<()> {
    // One flow of a message at most holds datagrams, which may be long.
    let groups = estate.flows.split_inclusive(|flow| flow.state.is_held());
    for some in groups.flat_map(|group| group.chunks(MOST_DESCRIPTORS)) {
        let descriptors: Vec<BorrowedFd<'_>> = some.iter().flat_map(|flow| &flow.upstream).map(AsFd::as_fd).collect();
        channel.send(&Bequeathed::Flows(some.iter().map(|flow| flow.state.clone()).collect()), &descriptors)?;
    }
    for (prefix, left) in &estate.denied {
        let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        channel.send(&Bequeathed::Denied { prefix: *prefix, milliseconds }, &[])?;
    }
    for of_key in &estate.signatures {
        channel.send(&Bequeathed::Signatures(of_key.clone()), &[])?;
    }
    channel.send(&Bequeathed::Over, &[])
}

fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message out of turn")
}
