//! A worker: one thread with one runtime and sockets of its own. Workers share no connection; what they share is counted
//! atomically or read as a snapshot.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::{spawn_local, JoinHandle, LocalSet};
use tokio::time::{interval, Instant, MissedTickBehavior};

use crate::admission::Admission;
use crate::config::model::Transport;
use crate::generation::{Epoch, Generation};
use crate::kernel::{self, Batch};
use crate::listening::{keep_alive, Endpoint};
use crate::names::{Names, SystemFiles};
use crate::operation::access_log::WorkerLog;
use crate::operation::admin::{Active, Page};
use crate::operation::counters::WorkerCounters;
use crate::operation::deny::DenyReader;
use crate::operation::unique_id::UniqueIds;
use crate::operation::CloseReason;
use crate::run_error::Failure;
use crate::story::{SharedStory, Story};
use crate::tcp;
use crate::tcp::resting::Resting;
use crate::tcp::scratch::Scratch;
use crate::tcp::undecided::Undecided;
use crate::transparent::local_addresses::LocalAddresses;
use crate::transparent::udp_endpoints::UdpEndpoints;
use crate::udp;
use crate::udp::flow::handover::{Gate, Heritage};
use crate::udp::listener::Listener;
use crate::udp::station::{take_handed, Membership, Station};
use crate::udp::tending::Tended;

/// How often a worker hands its log lines over, though they are few.
const TICK: Duration = Duration::from_secs(1);

/// Stories that are registered before the first look for those that have ended.
const FIRST_SWEEP: usize = 64;

/// What the connections of one worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) scratch: Scratch,
    pub(crate) resting: Resting,
    /// For how long nothing moves at a connection until it rests.
    pub(crate) rest: Duration,
    pub(crate) undecided: Undecided,
    pub(crate) ids: RefCell<UniqueIds>,
    pub(crate) log: Option<WorkerLog>,
    pub(crate) locals: LocalAddresses,
    pub(crate) admission: Arc<Admission>,
    /// As `admission`, of UDP flows.
    pub(crate) flows: Arc<Admission>,
    pub(crate) batch: RefCell<Batch>,
    pub(crate) udp_endpoints: UdpEndpoints,
    pub(crate) udp: Station,
    epoch: RefCell<Rc<Epoch>>,
    deny: RefCell<DenyReader>,
    /// Stories that go on; some of those that have ended.
    stories: RefCell<Vec<Weak<RefCell<Story>>>>,
    /// How long that list may become before those are taken out.
    sweep_at: Cell<usize>,
}

impl Worker {
    /// The configuration for those who arrive now.
    pub(crate) fn epoch(&self) -> Rc<Epoch> {
        Rc::clone(&self.epoch.borrow())
    }

    /// Whether an address is kept out.
    pub(crate) fn is_denied(&self, peer: IpAddr) -> bool {
        self.deny.borrow_mut().is_denied(peer, Instant::now().into_std())
    }

    /// Lets a story be found by those who ask who is here.
    pub(crate) fn register(&self, story: &SharedStory) {
        let mut stories = self.stories.borrow_mut();
        if stories.len() >= self.sweep_at.get() {
            stories.retain(|story| story.strong_count() > 0);
            self.sweep_at.set(2 * stories.len() + FIRST_SWEEP);
        }
        stories.push(Rc::downgrade(story));
    }

    /// Who is here, the oldest first.
    fn active(&self, page: Page) -> Vec<Active> {
        let mut began = Vec::new();
        self.each_story(|story| began.push(story.accepted));
        began.sort_unstable();
        let wanted = began.get(page.skip..).unwrap_or_default();
        let (Some(first), Some(last)) = (wanted.first(), wanted.iter().take(page.most).next_back()) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        self.each_story(|story| {
            if (first..=last).contains(&&story.accepted) {
                found.push((story.accepted, story.active()));
            }
        });
        found.sort_by_key(|(accepted, _)| *accepted);
        // Of those that began in the same instant some may belong to the page before.
        let same = began.iter().take(page.skip).filter(|accepted| *accepted == first).count();
        found.into_iter().map(|(_, active)| active).skip(same).take(page.most).collect()
    }

    fn each_story(&self, mut see: impl FnMut(&Story)) {
        for story in self.stories.borrow().iter().filter_map(Weak::upgrade) {
            if let Ok(story) = story.try_borrow() {
                see(&story);
            }
        }
        self.resting.each_story(see);
    }

    fn count_active(&self) -> usize {
        self.stories.borrow().iter().filter(|story| story.strong_count() > 0).count() + self.resting.count()
    }

    /// Lets memory go that connections held before they came to rest, once it is worth the while.
    fn tidy(&self) {
        if self.resting.take_fresh() > 0 {
            self.stories.borrow_mut().retain(|story| story.strong_count() > 0);
            kernel::give_back();
        }
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
    pub(crate) flows: Arc<Admission>,
    pub(crate) udp_endpoints: UdpEndpoints,
    pub(crate) udp: Membership,
    pub(crate) deny: DenyReader,
    pub(crate) files: SystemFiles,
    pub(crate) rest: Duration,
    pub(crate) failing: UnboundedSender<Failure>,
}

/// What the control thread tells a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// Those who arrive from now on are served by this configuration.
    Serve(Arc<Generation>, Arc<WorkerCounters>),
    /// A further socket, and the flows that are known there. Datagrams wait in it.
    Listen(Gate, OwnedFd, Vec<Heritage>),
    /// Receive datagrams at all sockets.
    Receive,
    /// Take nothing more at these endpoints, whose sockets stay open elsewhere; give their flows away.
    Hold(Vec<Endpoint>, oneshot::Sender<Vec<Heritage>>),
    /// Accept what waits at this endpoint, and then close it.
    Leave(Endpoint),
    /// Say who is here, and how many are.
    List(Page, oneshot::Sender<(Vec<Active>, usize)>),
    /// End all that is left.
    End,
    /// Begins no flow of datagrams any more, and says whether any is in use.
    Drain(oneshot::Sender<bool>),
}

/// A worker's life: until it is told to end, or nobody is left to tell it anything. Connections that are left then tell
/// their stories, before the log's last lines are handed over.
pub(crate) fn work(runtime: &Runtime, beginning: Beginning, orders: UnboundedReceiver<Order>) {
    // As a task of its own: the future that the set is run with is polled again at whatever wakes any connection.
    let failing = beginning.failing.clone();
    let obeying = async { spawn_local(obey_and_tell(beginning, orders)).await.map_err(io::Error::other) };
    if let Err(cause) = LocalSet::new().block_on(runtime, obeying) {
        Failure::tell(&failing, "a worker ended".to_owned(), cause);
    }
}

/// Tells of a failure before its orders are gone, at which others see that it has failed.
async fn obey_and_tell(beginning: Beginning, mut orders: UnboundedReceiver<Order>) {
    let failing = beginning.failing.clone();
    if let Err(cause) = obey(beginning, &mut orders).await {
        Failure::tell(&failing, "a worker cannot begin".to_owned(), cause);
    }
}

async fn obey(beginning: Beginning, orders: &mut UnboundedReceiver<Order>) -> io::Result<()> {
    let Beginning {
        generation,
        counters,
        seed,
        log,
        locals,
        admission,
        flows,
        udp_endpoints,
        udp,
        deny,
        files,
        rest,
        failing,
    } = beginning;
    let names = Names::new(&generation.config.resolver, files);
    let epoch = RefCell::new(Rc::new(Epoch::new(generation, counters, names)));
    let (scratch, batch, ids) = (Scratch::new(), RefCell::default(), RefCell::new(UniqueIds::new(seed)));
    let worker = Rc::new(Worker {
        scratch,
        resting: Resting::new()?,
        rest,
        undecided: Undecided::default(),
        ids,
        log,
        locals,
        admission,
        flows,
        batch,
        udp_endpoints,
        udp: Station::new(udp.homes, udp.colleagues, udp.worker)?,
        epoch,
        deny: RefCell::new(deny),
        stories: RefCell::default(),
        sweep_at: Cell::new(FIRST_SWEEP),
    });
    spawn_local(Resting::watch(Rc::clone(&worker)));
    spawn_local(take_handed(Rc::clone(&worker), udp.inbox));
    spawn_local(Tended::hear(Rc::clone(&worker)));
    spawn_local(Tended::look_after(Rc::clone(&worker)));
    let mut doors: HashMap<Gate, Door> = HashMap::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = ticks.tick() => {
                if let Some(log) = &worker.log {
                    log.flush();
                }
                Resting::sweep(&worker, Instant::now());
                worker.tidy();
                continue;
            }
        };
        match order {
            Some(Order::Serve(generation, counters)) => {
                doors.values().for_each(|door| door.heed(&generation));
                let next = worker.epoch().followed_by(generation, counters);
                *worker.epoch.borrow_mut() = Rc::new(next);
            }
            Some(Order::Listen(gate, socket, flows)) => match Door::open(&worker, gate.endpoint, socket, flows) {
                Ok(door) => {
                    // An earlier process may have had another configuration.
                    door.heed(&worker.epoch().generation);
                    doors.insert(gate, door);
                }
                Err(cause) => {
                    Failure::tell(&failing, format!("{}: a worker cannot serve it", gate.endpoint.address), cause);
                }
            },
            Some(Order::Receive) => doors.values_mut().for_each(Door::receive),
            Some(Order::Hold(endpoints, answer)) => {
                let held = take(&mut doors, |endpoint| endpoints.contains(&endpoint));
                let flows = held.into_iter().flat_map(|(gate, door)| door.hold(gate.number)).collect();
                // Whoever asked may be gone; with it, the flows are.
                let _ = answer.send(flows);
            }
            Some(Order::Leave(endpoint)) => {
                for (_, door) in take(&mut doors, |own| own == endpoint) {
                    door.close(&worker).await;
                }
            }
            Some(Order::List(page, answer)) => {
                // Who is not here any more is in the log by then.
                if let Some(log) = &worker.log {
                    log.flush();
                }
                // Whoever asked may be gone.
                let _ = answer.send((worker.active(page), worker.count_active()));
            }
            // Whoever asked may be gone.
            Some(Order::Drain(answer)) => drop(answer.send(worker.udp.drain(Instant::now()))),
            Some(Order::End) | None => break,
        }
    }
    worker.resting.end();
    worker.udp.tended.end();
    Ok(())
}

/// Takes the doors of some endpoints out.
fn take(doors: &mut HashMap<Gate, Door>, is_wanted: impl Fn(Endpoint) -> bool) -> Vec<(Gate, Door)> {
    let gates: Vec<Gate> = doors.keys().copied().filter(|gate| is_wanted(gate.endpoint)).collect();
    gates.iter().filter_map(|gate| doors.remove_entry(gate)).collect()
}

/// A socket at which clients arrive, and the task that serves it.
enum Door {
    Tcp {
        endpoint: Endpoint,
        socket: Rc<TcpListener>,
        task: JoinHandle<()>,
    },
    /// It receives when all flows are where they belong, or datagrams of theirs would begin them anew.
    Udp {
        listener: Rc<Listener>,
        task: Option<JoinHandle<()>>,
    },
}

impl Door {
    fn open(worker: &Rc<Worker>, endpoint: Endpoint, socket: OwnedFd, flows: Vec<Heritage>) -> io::Result<Self> {
        let worker = Rc::clone(worker);
        match endpoint.transport {
            Transport::Tcp => {
                let socket = Rc::new(TcpListener::from_std(socket.into())?);
                let task = spawn_local(tcp::listener::accept(worker, Rc::clone(&socket), endpoint));
                Ok(Self::Tcp { endpoint, socket, task })
            }
            Transport::Udp => {
                let (door, table) = (Rc::new(udp::door::Door::open(socket, endpoint)?), Rc::default());
                let listener = Rc::new(Listener { worker, door, table });
                listener.inherit(flows);
                Ok(Self::Udp { listener, task: None })
            }
        }
    }

    /// Receives datagrams, if it does not yet.
    fn receive(&mut self) {
        if let Self::Udp { listener, task } = self {
            task.get_or_insert_with(|| spawn_local(Rc::clone(listener).receive()));
        }
    }

    /// Takes over what those who arrive from now on inherit.
    fn heed(&self, generation: &Generation) {
        if let Self::Tcp { endpoint, socket, .. } = self {
            let socket = SockRef::from(socket.as_ref());
            let hears = generation.listener_at(*endpoint).is_some_and(|id| generation.hears(id));
            // A kernel that refuses keeps to what was.
            let _ = keep_alive(&socket, &generation.config.timeouts);
            let _ = socket.set_tcp_quickack(!hears);
        }
    }

    /// The socket is closed when this is done: whoever comes afterwards is refused, and not taken by the kernel in vain.
    async fn close(self, worker: &Rc<Worker>) {
        match self {
            Self::Tcp { endpoint, socket, task } => {
                gone(task).await;
                tcp::listener::accept_waiting(worker, &socket, endpoint);
            }
            Self::Udp { listener, task } => {
                if let Some(task) = task {
                    gone(task).await;
                }
                listener.table.close_all(CloseReason::Drained);
            }
        }
    }

    /// Takes nothing more; what waits is for whoever has the socket too.
    fn hold(self, number: usize) -> Vec<Heritage> {
        match self {
            Self::Tcp { task, .. } => {
                task.abort();
                Vec::new()
            }
            Self::Udp { listener, task } => {
                stop(task);
                listener.hand_over(number)
            }
        }
    }
}

/// A task that is aborted keeps what it has, a socket too, until it is looked at next.
async fn gone(task: JoinHandle<()>) {
    task.abort();
    // Cancelled, or it had ended.
    let _ = task.await;
}

fn stop(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        task.abort();
    }
}
