//! A worker: one thread with one runtime and sockets of its own. Workers share no connection; what they share is counted
//! atomically or read as a snapshot.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{spawn_local, JoinHandle, LocalSet};
use tokio::time::{interval, MissedTickBehavior};

use crate::admission::Admission;
use crate::config::model::Transport;
use crate::generation::{Epoch, Generation};
use crate::listening::Endpoint;
use crate::names::{Names, SystemFiles};
use crate::operation::access_log::WorkerLog;
use crate::operation::counters::WorkerCounters;
use crate::operation::unique_id::UniqueIds;
use crate::tcp;
use crate::tcp::scratch::Scratch;
use crate::transparent::local_addresses::LocalAddresses;

/// How often a worker hands its log lines over, though they are few.
const TICK: Duration = Duration::from_secs(1);

/// What the connections of one worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) scratch: Scratch,
    pub(crate) ids: RefCell<UniqueIds>,
    pub(crate) log: Option<WorkerLog>,
    pub(crate) locals: LocalAddresses,
    pub(crate) admission: Arc<Admission>,
    epoch: RefCell<Rc<Epoch>>,
}

impl Worker {
    /// The configuration for those who arrive now.
    pub(crate) fn epoch(&self) -> Rc<Epoch> {
        Rc::clone(&self.epoch.borrow())
    }

    /// Whether an address is kept out.
    pub(crate) fn is_denied(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.epoch.borrow().config().deny.iter().any(|prefix| prefix.contains(&peer))
    }
}

/// What a worker starts with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) generation: Arc<Generation>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) seed: [u8; 16],
    pub(crate) log: Option<WorkerLog>,
    pub(crate) locals: LocalAddresses,
    pub(crate) admission: Arc<Admission>,
}

/// What the control thread tells a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// Those who arrive from now on are served by this configuration.
    Serve(Arc<Generation>, Arc<WorkerCounters>),
    /// A further socket.
    Listen(Endpoint, OwnedFd),
    /// Accept what waits at this endpoint, and then close it.
    Leave(Endpoint),
    /// End all that is left.
    End,
}

/// A worker's life: until it is told to end, or nobody is left to tell it anything.
///
/// # Errors
///
/// The kernel has no event queue for it.
pub(crate) fn work(beginning: Beginning, orders: UnboundedReceiver<Order>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, obey(beginning, orders));
    // Connections that are left tell their stories here, before the log's last lines are handed over.
    drop(tasks);
    Ok(())
}

async fn obey(beginning: Beginning, mut orders: UnboundedReceiver<Order>) {
    let Beginning { generation, counters, seed, log, locals, admission } = beginning;
    let epoch = RefCell::new(begin_epoch(generation, counters));
    let (scratch, ids) = (Scratch::new(), RefCell::new(UniqueIds::new(seed)));
    let worker = Rc::new(Worker { scratch, ids, log, locals, admission, epoch });
    let mut doors: HashMap<Endpoint, Door> = HashMap::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = ticks.tick() => {
                if let Some(log) = &worker.log {
                    log.flush();
                }
                continue;
            }
        };
        match order {
            Some(Order::Serve(generation, counters)) => {
                *worker.epoch.borrow_mut() = begin_epoch(generation, counters);
            }
            Some(Order::Listen(endpoint, socket)) => {
                // A socket that cannot be registered is one that this process has not got any more.
                if let Ok(door) = Door::open(&worker, endpoint, socket) {
                    doors.insert(endpoint, door);
                }
            }
            Some(Order::Leave(endpoint)) => {
                if let Some(door) = doors.remove(&endpoint) {
                    door.close(&worker);
                }
            }
            Some(Order::End) | None => break,
        }
    }
}

fn begin_epoch(generation: Arc<Generation>, counters: Arc<WorkerCounters>) -> Rc<Epoch> {
    let names = Names::new(&generation.config.resolver, SystemFiles::default());
    Rc::new(Epoch { generation, counters, names })
}

/// A socket at which clients arrive, and the task that serves it.
struct Door {
    endpoint: Endpoint,
    socket: Rc<TcpListener>,
    task: JoinHandle<()>,
}

impl Door {
    fn open(worker: &Rc<Worker>, endpoint: Endpoint, socket: OwnedFd) -> io::Result<Self> {
        match endpoint.transport {
            Transport::Tcp => {
                let socket = Rc::new(TcpListener::from_std(socket.into())?);
                let task = spawn_local(tcp::listener::accept(Rc::clone(worker), Rc::clone(&socket), endpoint));
                Ok(Self { endpoint, socket, task })
            }
            Transport::Udp => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn close(self, worker: &Rc<Worker>) {
        self.task.abort();
        tcp::listener::accept_waiting(worker, &self.socket, self.endpoint);
    }
}
