//! The new process: asks the running one for all that it has open, takes what its configuration names, and says when it serves.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::channel::Channel;
use super::message::{Answer, Bequeathed, Taken, VERSION};
use crate::hop::Inherited;
use crate::listening::{Bound, Endpoint};
use crate::operation::admin::{Prefix, Request};
use crate::signals::Stops;
use crate::transparent::keeper_channel::RuleKeeper;
use crate::udp::flow::handover::Heritage;

/// How long the running process may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why nothing is taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeirError {
    /// Nobody listens there, or this user may not connect.
    #[error("{path}: {fault}; is edgeproxy running, and is this its operation.admin_socket?")]
    Unreachable { path: PathBuf, fault: io::Error },
    /// The running process refuses.
    #[error("{0}")]
    Refused(String),
    /// The two do not understand each other, or one is gone.
    #[error("nothing was handed over: {0}")]
    Broken(#[from] io::Error),
}

/// What the running process has open.
#[derive(Debug)]
pub(crate) struct Inheritance {
    channel: Channel,
    sockets: Vec<Bound>,
    admin: Option<(PathBuf, UnixListener)>,
    metrics: Option<(SocketAddr, TcpListener)>,
    keeper: Option<RuleKeeper>,
    taken: Taken,
}

/// What came with the running process's word that it takes nothing more.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    pub(crate) flows: Vec<Heritage>,
    pub(crate) denied: Vec<(Prefix, Duration)>,
    /// Of headers that were taken, so that none is taken once more.
    pub(crate) signatures: Vec<Inherited>,
}

/// The last word to the running process is due.
#[derive(Debug)]
pub(crate) struct Succession(Channel);

impl Inheritance {
    /// Asks at an admin socket.
    ///
    /// # Errors
    ///
    /// The running process goes on as if nobody had asked.
    pub(crate) fn ask(path: &Path) -> Result<Self, HeirError> {
        let unreachable = |fault| HeirError::Unreachable { path: path.to_owned(), fault };
        let mut stream = UnixStream::connect(path).map_err(unreachable)?;
        let mut line = serde_json::to_vec(&Request::HandOver { version: VERSION }).map_err(io::Error::from)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let channel = Channel::new(stream)?;
        channel.set_patience(PATIENCE)?;
        let taken = Taken::default();
        let mut all = Self { channel, sockets: Vec::new(), admin: None, metrics: None, keeper: None, taken };
        loop {
            let message: Bequeathed = all.channel.receive()?;
            let descriptors = all.channel.take(message.descriptors())?;
            match message {
                Bequeathed::Sockets { endpoint, .. } => match all.sockets.last_mut() {
                    Some(last) if last.endpoint == endpoint => last.sockets.extend(descriptors),
                    _ => all.sockets.push(Bound { endpoint, sockets: descriptors }),
                },
                Bequeathed::AdminSocket { path } => {
                    all.admin = descriptors.into_iter().next().map(|socket| (path, socket.into()));
                }
                Bequeathed::Metrics { address } => {
                    all.metrics = descriptors.into_iter().next().map(|socket| (address, socket.into()));
                }
                Bequeathed::Keeper { heard } => {
                    all.keeper = descriptors.into_iter().next().map(|channel| RuleKeeper::from_channel(channel, heard));
                }
                Bequeathed::OfferEnds => return Ok(all),
                Bequeathed::Error(why) => return Err(HeirError::Refused(why)),
                Bequeathed::Flows(_) | Bequeathed::Denied { .. } | Bequeathed::Signatures(_) | Bequeathed::Over => {
                    return Err(out_of_turn().into())
                }
            }
        }
    }

    /// Where the running process listens.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.sockets.iter().map(|bound| bound.endpoint).collect()
    }

    /// The sockets of an endpoint, if the running process has it.
    pub(crate) fn sockets(&mut self, endpoint: Endpoint) -> Option<Vec<OwnedFd>> {
        let place = self.sockets.iter().position(|bound| bound.endpoint == endpoint)?;
        self.taken.endpoints.push(endpoint);
        Some(self.sockets.swap_remove(place).sockets)
    }

    /// The admin socket of this path, if it is the running process's.
    pub(crate) fn admin_socket(&mut self, path: &Path) -> Option<UnixListener> {
        let (_, socket) = self.admin.take().filter(|(own, _)| own == path)?;
        self.taken.admin_socket = true;
        Some(socket)
    }

    /// The socket at which metrics are asked for, if it is the running process's.
    pub(crate) fn metrics(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.metrics.take().filter(|(own, _)| *own == address).map(|(_, socket)| socket)
    }

    /// The keeper of the kernel's rules.
    pub(crate) fn keeper(&mut self) -> Option<RuleKeeper> {
        self.keeper.take()
    }

    /// Says that this process has started; gets what goes on. From here on no datagram is received until this process does.
    ///
    /// # Errors
    ///
    /// The running process takes back what it has given when this one ends.
    pub(crate) fn accept(self) -> io::Result<(Estate, Succession)> {
        let Self { mut channel, taken, .. } = self; // the rest is closed: who stays with the other is found there alone
        channel.send(&Answer::Taken(taken), &[])?;
        let mut estate = Estate::default();
        loop {
            let message: Bequeathed = channel.receive()?;
            let mut upstreams = channel.take(message.descriptors())?.into_iter();
            match message {
                Bequeathed::Flows(flows) => estate.flows.extend(flows.into_iter().map(|state| {
                    let upstream = if state.is_open() { upstreams.next() } else { None };
                    Heritage { state, upstream }
                })),
                Bequeathed::Denied { prefix, milliseconds } => {
                    estate.denied.push((prefix, Duration::from_millis(milliseconds)));
                }
                Bequeathed::Signatures(of_key) => estate.signatures.push(of_key),
                Bequeathed::Over => return Ok((estate, Succession(channel))),
                Bequeathed::Error(why) => return Err(io::Error::other(why)),
                Bequeathed::Sockets { .. }
                | Bequeathed::AdminSocket { .. }
                | Bequeathed::Metrics { .. }
                | Bequeathed::Keeper { .. }
                | Bequeathed::OfferEnds => return Err(out_of_turn()),
            }
        }
    }
}

impl Succession {
    /// Says that this process serves, and waits until the other accepts no more.
    pub(crate) fn serving(mut self) -> io::Result<()> {
        self.0.send(&Answer::Serving, &[])?;
        self.0.await_end()
    }
}

/// Talks to the running process on another thread, for it may be silent for as long as [`PATIENCE`], and this one hears who tells
/// it to end. None: somebody did first. The talk then ends with the process.
///
/// # Errors
///
/// Those of the talk.
pub(crate) async fn unless_told_to_end<T: Send + 'static>(
    stops: &mut Stops,
    talk: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<Option<T>> {
    let (tell, told) = oneshot::channel();
    // Whoever does not listen any more is about to end.
    thread::Builder::new().name("heir".to_owned()).spawn(move || drop(tell.send(talk())))?;
    tokio::select! {
        biased;
        said = told => said.unwrap_or_else(|gone| Err(io::Error::other(gone))).map(Some),
        () = stops.any() => Ok(None),
    }
}

fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message out of turn")
}
