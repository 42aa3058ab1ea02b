//! `edgeproxy run`: all that needs rights is had first, then they are given up, then workers start.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use nix::fcntl::{fcntl, FcntlArg::F_DUPFD_CLOEXEC};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::unistd::close;
use tokio::runtime::Builder;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::commands::{fail, say, HOST_NOT_ABLE, WRONG_INPUT};
use crate::config::model::Config;
use crate::config::Checked;
use crate::generation::Generation;
use crate::hop::{self, KeyFault, Loaded};
use crate::kernel::scheduling;
use crate::listening::{bind_all, widen, Bound, ListenError};
use crate::multipath;
use crate::names::reader::Reader;
use crate::names::SystemFiles;
use crate::operation::access_log::{AccessLog, OpenedLog};
use crate::operation::deny::DenyList;
use crate::operation::ledger::Names;
use crate::operation::metrics_http;
use crate::operation::notify::Notifier;
use crate::operation::socket_file::{self, AdminSocket, Predecessor};
use crate::operation::state::{KernelRules, State};
use crate::operation::unique_id::fresh_seed;
use crate::run_error::{host, named, taking, RunError};
use crate::sandbox::{self, Allowed, Ports};
use crate::signals::{self, Signals};
use crate::steering::{Hand, Proxy};
use crate::succession::heir::Inheritance;
use crate::tcp::resting::REST;
use crate::transparent::keeper::{Report, Want};
use crate::transparent::keeper_channel::RuleKeeper;
use crate::transparent::kernel_rules;
use crate::transparent::local_addresses::{needs_neighbours, LocalAddresses, Routes, Watch};
use crate::transparent::udp_endpoints::UdpEndpoints;
use crate::udp::station::Membership;
use crate::worker::{work, Beginning};

/// How it begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With sockets of its own.
    Alone,
    /// With all that a running proxy has, which is asked at its admin socket: this one, or the configuration's.
    TakeOver(Option<PathBuf>),
}

impl Start {
    fn predecessor(&self, config: &Config) -> Result<Option<PathBuf>, RunError> {
        let Self::TakeOver(socket) = self else { return Ok(None) };
        let socket = socket.as_ref().or(config.operation.admin_socket.as_ref());
        let unknown = "the configuration names no operation.admin_socket; say --take-over=SOCKET";
        socket.cloned().map(Some).ok_or_else(|| RunError::TakeOver(unknown.to_owned()))
    }
}

/// `edgeproxy run`.
pub(crate) fn command(path: &Path, start: &Start) -> ExitCode {
    if let Err(cause) = signals::begin() {
        return fail(HOST_NOT_ABLE, &host("signals")(cause).to_string());
    }
    let Checked { config, notes, places } = match crate::config::check(path) {
        Ok(checked) => checked,
        Err(faults) => return fail(WRONG_INPUT, &faults.to_string()),
    };
    notes.iter().for_each(|note| say(&format!("edgeproxy: note: {note}")));
    let keys = match hop::load(&config) {
        Ok(keys) => keys,
        Err(KeyFault { place, found, allowed, .. }) => {
            return fail(WRONG_INPUT, &places.fault(&place, found, allowed).to_string());
        }
    };
    match run(path, config, keys, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_status(), &error.to_string()),
    }
}

/// Runs a configuration until SIGTERM or SIGINT, and reads its file anew on SIGHUP. Faults after the start are told on stderr
/// and end nothing.
fn run(path: &Path, config: Config, keys: Loaded, start: &Start) -> Result<(), RunError> {
    let most = raise_descriptor_limit();
    if let Some(warning) = multipath::warning(&config) {
        say(&format!("edgeproxy: note: {warning}"));
    }
    if let Some(lack) = lack_of_descriptors(&config, most) {
        say(&format!("edgeproxy: {lack}"));
    }
    reserve_descriptors(descriptors_needed(&config).min(most));
    scheduling::let_senders_go_on();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(host("event queue"))?;
    let mut inheritance =
        start.predecessor(&config)?.map(|socket| Inheritance::ask(&socket)).transpose().map_err(taking)?;
    let mut reading = Command::new("/proc/self/exe");
    reading.arg(crate::commands::names::READ);
    let (reader, files) = Reader::start(reading).map_err(host("the reader of /etc/hosts"))?;
    let opened = Opened { files, reader: Some(reader), ..Opened::all(config, keys, inheritance.as_mut())? };
    signals::hold().map_err(host("signals"))?;
    let allowed = Allowed::of(&opened.generation.config, path);
    let report = sandbox::enter(&allowed)?;
    say(&format!("edgeproxy: {report}"));
    let proxy = Proxy { ports: allowed.ports, may_multipath: allowed.multipath, ..opened.start(path, REST)? };
    tokio::task::LocalSet::new().block_on(&runtime, serve(proxy, inheritance))
}

/// Listens, with what an earlier process leaves to this one, and serves until the end.
async fn serve(mut proxy: Proxy, inheritance: Option<Inheritance>) -> Result<(), RunError> {
    let mut signals = Signals::hear().map_err(host("signals"))?;
    let stops = &mut signals.stops;
    if stops.has_come().await || !proxy.begin(inheritance, stops).await? {
        proxy.end_unbegun();
        return Ok(());
    }
    proxy.steer(signals).await
}

/// Descriptors beside those of clients and listeners: lookups, checks, those who ask.
const OTHER_DESCRIPTORS: usize = 512;

/// Descriptors for which there is room from the start, at most: the kernel takes eight bytes for each.
const MOST_RESERVED: u64 = 64 * 1024;

/// As many descriptors as the host allows; how many that are.
fn raise_descriptor_limit() -> u64 {
    let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    match setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        Ok(()) => most,
        Err(_) => getrlimit(Resource::RLIMIT_NOFILE).map_or(most, |(now, _)| now),
    }
}

/// How many descriptors the limits of a configuration may take. A connection takes two, a flow one.
fn descriptors_needed(config: &Config) -> u64 {
    let limits = &config.limits;
    let of_clients = limits.connections.get().saturating_mul(2).saturating_add(limits.udp_flows.get());
    let endpoints: usize = config.listeners.iter().map(|listener| listener.tcp.len() + listener.udp.len()).sum();
    let of_listeners = endpoints.saturating_mul(config.workers.get());
    let needed = of_clients.saturating_add(of_listeners).saturating_add(OTHER_DESCRIPTORS);
    u64::try_from(needed).unwrap_or(u64::MAX)
}

/// Has the kernel make its table of descriptors as large as it may become, while this process has one thread. A table that
/// threads share grows (at 64 descriptors, 128, 256 and so on) only after the kernel has waited for all processors
/// (`expand_fdtable` in its fs/file.c), and until then each thread waits that opens a descriptor: measured, 8 to 15 ms.
fn reserve_descriptors(count: u64) {
    let last = i32::try_from(count.min(MOST_RESERVED).saturating_sub(1)).unwrap_or(0);
    let reserved = File::open("/dev/null").and_then(|any| Ok(fcntl(any.as_raw_fd(), F_DUPFD_CLOEXEC(last))?));
    // Where it cannot be had now, it grows when it must.
    let _ = reserved.map(close);
}

/// What to say where the host allows fewer descriptors than the limits of the configuration may take.
fn lack_of_descriptors(config: &Config, most: u64) -> Option<String> {
    let needed = descriptors_needed(config);
    (needed > most).then(|| {
        format!(
            "note: [limits] may take {needed} descriptors, and this host allows {most}: fewer clients will be served; \
             raise it (`LimitNOFILE=` of systemd, `ulimit -Hn`), or lower connections and udp_flows"
        )
    })
}

/// All that is had before the sandbox.
struct Opened {
    generation: Arc<Generation>,
    bound: Vec<Bound>,
    log: Option<OpenedLog>,
    admin: Option<AdminSocket>,
    metrics: Option<(SocketAddr, TcpListener)>,
    locals: LocalAddresses,
    watch: Watch,
    routes: Routes,
    notifier: Notifier,
    keeper: Option<RuleKeeper>,
    seeds: Vec<[u8; 16]>,
    files: SystemFiles,
    reader: Option<Reader>,
}

impl Opened {
    fn all(config: Config, keys: Loaded, mut from: Option<&mut Inheritance>) -> Result<Self, RunError> {
        let count = config.workers.get();
        let operation = &config.operation;
        let log = operation.access_log.as_deref();
        let log = log.map(|file| AccessLog::open(file).map_err(named("operation.access_log", file.display())));
        let admin = operation.admin_socket.as_deref();
        let admin = admin.map(|path| match from.as_mut().and_then(|from| from.admin_socket(path)) {
            Some(lent) => Ok(AdminSocket::lent(path.to_owned(), lent)),
            None => own_admin_socket(path).map_err(named("operation.admin_socket", path.display())),
        });
        let metrics = operation.metrics.map(|address| {
            let inherited = from.as_mut().and_then(|from| from.metrics(address));
            let listener = inherited.map_or_else(|| metrics_http::listen(address), Ok);
            Ok::<_, RunError>((address, listener.map_err(named("operation.metrics", address))?))
        });
        let (log, admin, metrics) = (log.transpose()?, admin.transpose()?, metrics.transpose()?);
        let (locals, watch, routes) = follow_host(&config).map_err(host("addresses of this host, by netlink"))?;
        let notifier =
            Notifier::connect(std::env::var_os("NOTIFY_SOCKET").as_deref()).map_err(host("NOTIFY_SOCKET"))?;
        let seeds = (0..count).map(|_| fresh_seed()).collect::<Result<_, _>>().map_err(host("/dev/urandom"))?;
        let keeper = keeper(&config, &locals, from.as_mut().and_then(|from| from.keeper()))?;
        if let Some(lack) = kernel_rules::lack(&config, |address| locals.is_local(address)) {
            say(&format!("edgeproxy: note: {lack}"));
        }
        let generation = Arc::new(Generation::after(None, config, keys, &locals, Instant::now()));
        let bound = listen(&generation, count, from)?;
        let (files, reader) = (SystemFiles::default(), None);
        Ok(Self {
            generation,
            bound,
            log,
            admin,
            metrics,
            locals,
            watch,
            routes,
            notifier,
            keeper,
            seeds,
            files,
            reader,
        })
    }

    /// Starts all threads. A connection of which nothing has moved for as long as `rest` rests.
    fn start(self, path: &Path, rest: Duration) -> Result<Proxy, RunError> {
        let Self {
            generation,
            bound,
            log,
            admin,
            metrics,
            locals,
            watch,
            routes,
            notifier,
            keeper,
            seeds,
            files,
            reader,
        } = self;
        let log = log.map(OpenedLog::start).transpose().map_err(host("a thread"))?;
        spawn("addresses", move || {
            say(&format!("edgeproxy: this host's addresses are as they were until a restart: {}", watch.run()));
        })?;
        let (admission, flows) = (Arc::new(Admission::default()), Arc::new(Admission::default()));
        let udp_endpoints = UdpEndpoints::default();
        let figures = log.as_ref().map(AccessLog::figures);
        let started = (std::time::Instant::now(), SystemTime::now());
        let mut state = State::new(DenyList::new(&generation.config.deny), figures, seeds.len(), started);
        // Without them it would not have come so far.
        state.kernel_rules = keeper.as_ref().map(|_| KernelRules { present: true, restored: 0 });
        let counters = state.ledger.begin(Names::of(&generation.config), seeds.len());
        let mut workers = Vec::with_capacity(seeds.len());
        let memberships = Membership::of(seeds.len());
        let (failing, failures) = unbounded_channel();
        for (index, ((seed, counters), udp)) in seeds.into_iter().zip(counters).zip(memberships).enumerate() {
            let beginning = Beginning {
                generation: Arc::clone(&generation),
                counters,
                seed,
                log: log.as_ref().map(AccessLog::worker),
                locals: locals.clone(),
                admission: Arc::clone(&admission),
                flows: Arc::clone(&flows),
                udp_endpoints: udp_endpoints.clone(),
                udp,
                deny: state.deny.reader(),
                files: files.clone(),
                rest,
                failing: failing.clone(),
            };
            let (orders, inbox) = unbounded_channel();
            let runtime = Builder::new_current_thread().enable_all().build().map_err(host("event queue"))?;
            let thread = spawn(&format!("worker-{index}"), move || work(&runtime, beginning, inbox))?;
            workers.push(Hand { orders, thread });
        }
        Ok(Proxy {
            path: PathBuf::from(path),
            begun_with: generation.config.operation.clone(),
            ports: Ports::Any,
            may_multipath: true,
            wanted: keeper.as_ref().map(|_| Want::of(&generation.config, |address| locals.is_local(address))),
            generation,
            earlier: Vec::new(),
            state: Arc::new(Mutex::new(state)),
            admission,
            workers,
            failures,
            sockets: bound,
            log,
            admin,
            metrics,
            notifier,
            keeper,
            locals,
            routes,
            files,
            reader,
            checks: None,
            services: Vec::new(),
            giving: None,
        })
    }
}

fn follow_host(config: &Config) -> io::Result<(LocalAddresses, Watch, Routes)> {
    let open = if needs_neighbours(config) { LocalAddresses::open_with_routes } else { LocalAddresses::open };
    let (locals, mut watch) = open()?;
    let routes = watch.routes()?;
    Ok((locals, watch, routes))
}

fn own_admin_socket(path: &Path) -> io::Result<AdminSocket> {
    socket_file::respect(path)?;
    let made =
        || socket_file::listen(path, Predecessor::Replace).map(|socket| AdminSocket::made(path.to_owned(), socket));
    signals::with_file(path, made)
}

/// The sockets of all endpoints: those that the running proxy has, and new ones.
fn listen(generation: &Generation, workers: usize, from: Option<&mut Inheritance>) -> Result<Vec<Bound>, ListenError> {
    let (timeouts, endpoints) = (&generation.config.timeouts, generation.endpoints());
    let Some(from) = from else { return bind_all(&endpoints, &[], workers, timeouts) };
    let held = from.endpoints();
    let mut bound = Vec::with_capacity(endpoints.len());
    let mut missing = Vec::new();
    for endpoint in endpoints {
        match from.sockets(endpoint) {
            Some(sockets) => bound.push(widen(endpoint, sockets, workers, timeouts)?),
            None => missing.push(endpoint),
        }
    }
    bound.extend(bind_all(&missing, &held, workers, timeouts)?);
    Ok(bound)
}

/// The process that keeps the kernel's rules, if the configuration wants them kept: also where it needs none yet, for a reload
/// may need some, and no keeper can be started then. A running one that is not wanted takes its rules away.
fn keeper(
    config: &Config,
    locals: &LocalAddresses,
    running: Option<RuleKeeper>,
) -> Result<Option<RuleKeeper>, RunError> {
    if !config.transparent.manage_rules && running.is_none() {
        return Ok(None);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg(crate::commands::rules::KEEP);
    let mut keeper = running.map_or_else(|| RuleKeeper::start(command), Ok).map_err(host("the rule keeper"))?;
    let want = Want::of(config, |address| locals.is_local(address));
    match keeper.want(want).map_err(host("the rule keeper"))? {
        Report::Installed | Report::Restored(_) | Report::Left(_) => Ok(Some(keeper)),
        Report::Failed(why) => Err(RunError::Rules(why)),
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, RunError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(host("a thread"))
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "run_failure_tests.rs"]
mod failure_tests;
