//! `edgeproxy run`: binds, starts workers, and steers them until the end. The control thread carries no client's bytes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::mpsc::{unbounded_channel, UnboundedSender};
use tokio::time::{sleep, Instant};

use crate::admission::Admission;
use crate::commands::{fail, HOST_NOT_ABLE, RAN_AND_FAILED, WRONG_INPUT};
use crate::config::model::Config;
use crate::generation::Generation;
use crate::listening::{bind, Endpoint, ListenError};
use crate::operation::access_log::AccessLog;
use crate::operation::ledger::{Ledger, Names};
use crate::operation::unique_id::fresh_seed;
use crate::transparent::local_addresses::LocalAddresses;
use crate::transparent::udp_endpoints::UdpEndpoints;
use crate::worker::{work, Beginning, Order};

/// How often the end of the last connection is looked for while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long the log may take for its last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// An endpoint cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The access log cannot be written.
    #[error("access log {}: {cause}; `operation.access_log` must be a file that this user may append to, or \"-\"", path.display())]
    Log { path: PathBuf, cause: io::Error },
    /// The kernel lacks something.
    #[error("{what}: {cause}")]
    Host { what: &'static str, cause: io::Error },
}

fn host(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |cause| RunError::Host { what, cause }
}

/// A running proxy, as its control thread has it.
struct Proxy {
    path: PathBuf,
    generation: Arc<Generation>,
    ledger: Ledger,
    admission: Arc<Admission>,
    flows: Arc<Admission>,
    workers: Vec<Hand>,
    endpoints: Vec<Endpoint>,
    log: Option<AccessLog>,
}

/// A worker's thread, and the way to it.
struct Hand {
    orders: UnboundedSender<Order>,
    thread: JoinHandle<io::Result<()>>,
}

/// `edgeproxy run`.
pub(crate) fn command(path: &Path) -> ExitCode {
    let config = match crate::config::load(path) {
        Ok(config) => config,
        Err(faults) => return fail(WRONG_INPUT, &faults.to_string()),
    };
    match run(path, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (RunError::Listen(_) | RunError::Log { .. })) => fail(RAN_AND_FAILED, &error.to_string()),
        Err(error @ RunError::Host { .. }) => fail(HOST_NOT_ABLE, &error.to_string()),
    }
}

/// Runs a configuration until SIGTERM or SIGINT, and reads its file anew on SIGHUP.
///
/// # Errors
///
/// What could not be had at the start. Later faults are told on stderr and end nothing.
fn run(path: &Path, config: Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(host("event queue"))?;
    let proxy = Proxy::start(path, config)?;
    runtime.block_on(proxy.steer())
}

impl Proxy {
    fn start(path: &Path, config: Config) -> Result<Self, RunError> {
        let count = config.workers.get();
        let log = match &config.operation.access_log {
            Some(file) => Some(AccessLog::open(file).map_err(|cause| RunError::Log { path: file.clone(), cause })?),
            None => None,
        };
        let (locals, watch) = LocalAddresses::open().map_err(host("addresses of this host, by netlink"))?;
        spawn("addresses", move || drop(watch.run()))?;
        let udp_endpoints = UdpEndpoints::default();
        let generation = Arc::new(Generation::after(None, config, Instant::now()));
        let mut proxy = Self {
            path: path.to_owned(),
            generation: Arc::clone(&generation),
            ledger: Ledger::default(),
            admission: Arc::new(Admission::default()),
            flows: Arc::new(Admission::default()),
            workers: Vec::with_capacity(count),
            endpoints: Vec::new(),
            log,
        };
        let bound = bind_all(&generation, &generation.endpoints(), count)?;
        let counters = proxy.ledger.begin(Names::of(&generation.config), count);
        for (index, counters) in counters.into_iter().enumerate() {
            let beginning = Beginning {
                generation: Arc::clone(&generation),
                counters,
                seed: fresh_seed().map_err(host("/dev/urandom"))?,
                log: proxy.log.as_ref().map(AccessLog::worker),
                locals: locals.clone(),
                admission: Arc::clone(&proxy.admission),
                flows: Arc::clone(&proxy.flows),
                udp_endpoints: udp_endpoints.clone(),
            };
            let (orders, inbox) = unbounded_channel();
            let thread = spawn(&format!("worker-{index}"), move || work(beginning, inbox))?;
            proxy.workers.push(Hand { orders, thread });
        }
        proxy.hand_out(bound);
        Ok(proxy)
    }

    /// Gives each worker its socket of each endpoint.
    fn hand_out(&mut self, bound: Vec<Bound>) {
        for Bound { endpoint, sockets } in bound {
            for (hand, socket) in self.workers.iter().zip(sockets) {
                hand.tell(Order::Listen(endpoint, socket));
            }
            self.endpoints.push(endpoint);
        }
    }

    async fn steer(mut self) -> Result<(), RunError> {
        let mut hangup = signal(SignalKind::hangup()).map_err(host("SIGHUP"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(host("SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(host("SIGINT"))?;
        say("ready");
        loop {
            tokio::select! {
                _ = hangup.recv() => self.reload(),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        let drain = self.generation.config.timeouts.drain;
        for endpoint in &self.endpoints {
            for hand in &self.workers {
                hand.tell(Order::Leave(*endpoint));
            }
        }
        let deadline = Instant::now() + drain;
        while self.admission.total() > 0 && Instant::now() < deadline {
            tokio::select! {
                () = sleep(DRAIN_LOOK) => {}
                // A second signal ends the wait.
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        self.end();
        Ok(())
    }

    /// Takes the file as it is now, if it is valid and its endpoints can be had; otherwise all stays as it was.
    fn reload(&mut self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
        match self.taken_over() {
            Ok(()) => say("reloaded"),
            Err(why) => say(&format!("not reloaded, the old configuration stays: {why}")),
        }
    }

    fn taken_over(&mut self) -> Result<(), String> {
        let config = crate::config::load(&self.path).map_err(|faults| faults.to_string())?;
        let count = self.workers.len();
        let generation = Arc::new(Generation::after(Some(&self.generation), config, Instant::now()));
        let wanted = generation.endpoints();
        let new: Vec<_> = wanted.iter().copied().filter(|endpoint| !self.endpoints.contains(endpoint)).collect();
        let bound = bind_all(&generation, &new, count).map_err(|error| error.to_string())?;
        let counters = self.ledger.begin(Names::of(&generation.config), count);
        for (hand, counters) in self.workers.iter().zip(counters) {
            hand.tell(Order::Serve(Arc::clone(&generation), counters));
        }
        let (kept, left): (Vec<_>, Vec<_>) = self.endpoints.drain(..).partition(|endpoint| wanted.contains(endpoint));
        for endpoint in left {
            for hand in &self.workers {
                hand.tell(Order::Leave(endpoint));
            }
        }
        self.endpoints = kept;
        self.hand_out(bound);
        self.generation = generation;
        Ok(())
    }

    fn end(self) {
        for Hand { orders, thread } in self.workers {
            // A worker that is gone needs no telling.
            let _ = orders.send(Order::End);
            let _ = thread.join();
        }
        if let Some(log) = self.log {
            log.finish(LOG_PATIENCE);
        }
    }
}

impl Hand {
    fn tell(&self, order: Order) {
        // A worker that is gone needs no telling.
        let _ = self.orders.send(order);
    }
}

/// An endpoint with one socket for each worker.
struct Bound {
    endpoint: Endpoint,
    sockets: Vec<std::os::fd::OwnedFd>,
}

fn bind_all(generation: &Generation, endpoints: &[Endpoint], workers: usize) -> Result<Vec<Bound>, ListenError> {
    endpoints
        .iter()
        .map(|endpoint| {
            let sockets = bind(*endpoint, workers, &generation.config.timeouts)?;
            Ok(Bound { endpoint: *endpoint, sockets })
        })
        .collect()
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, RunError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(host("a thread"))
}

/// One line to whoever started the proxy.
fn say(text: &str) {
    // With stderr gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "edgeproxy: {text}");
}
