//! The control thread: signals, the admin socket, reloads, checks. It carries no client's bytes, and no worker waits for it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{channel, Receiver, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now, JoinHandle as Task};
use tokio::time::{interval, Instant};

use crate::admission::Admission;
use crate::commands::say;
use crate::config::model::{Operation, Transport};
use crate::drain::Heard;
use crate::generation::Generation;
use crate::listening::{Bound, Endpoint};
use crate::names::reader::Reader;
use crate::names::{Names, SystemFiles};
use crate::operation::access_log::AccessLog;
use crate::operation::admin::{Active, Order as Asked, Page, Response};
use crate::operation::admin_socket::{self, AdminBounds, Ordered};
use crate::operation::metrics_http::{self, MetricsBounds};
use crate::operation::notify::{Notifier, ServiceState};
use crate::operation::socket_file::AdminSocket;
use crate::operation::state::State;
use crate::route::forbidden::{forbidden, Origin};
use crate::run_error::{host, taking, Failure, RunError};
use crate::sandbox::Ports;
use crate::signals::{Signals, Stops};
use crate::succession::bequest::Step;
use crate::succession::giving::Giving;
use crate::succession::heir::{unless_told_to_end, Estate, Inheritance};
use crate::suspicion::told_of;
use crate::transparent::keeper::Want;
use crate::transparent::keeper_channel::RuleKeeper;
use crate::transparent::local_addresses::{LocalAddresses, Routes};
use crate::udp::flow::handover::{Gate, Heritage};
use crate::upstream::health;
use crate::worker::Order;

/// How long the log may take for its last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How often those who ask get to know anew how candidates are.
const LOOK: Duration = Duration::from_secs(1);

/// Orders from the admin socket that may wait.
const WAITING_ORDERS: usize = 16;

/// A running proxy, as its control thread has it.
pub(crate) struct Proxy {
    pub(crate) path: PathBuf,
    /// Files and sockets that were opened before the sandbox, for good.
    pub(crate) begun_with: Operation,
    /// Those to which the sandbox holds TCP.
    pub(crate) ports: Ports,
    /// Whether it lets sockets of Multipath TCP be made.
    pub(crate) may_multipath: bool,
    pub(crate) generation: Arc<Generation>,
    /// Those before it of which connections may go on.
    pub(crate) earlier: Vec<Weak<Generation>>,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) workers: Vec<Hand>,
    /// What workers cannot do.
    pub(crate) failures: UnboundedReceiver<Failure>,
    pub(crate) sockets: Vec<Bound>,
    pub(crate) log: Option<AccessLog>,
    pub(crate) admin: Option<AdminSocket>,
    pub(crate) metrics: Option<(SocketAddr, TcpListener)>,
    pub(crate) notifier: Notifier,
    pub(crate) keeper: Option<RuleKeeper>,
    /// What it keeps.
    pub(crate) wanted: Option<Want>,
    pub(crate) locals: LocalAddresses,
    pub(crate) routes: Routes,
    pub(crate) files: SystemFiles,
    /// Who copies these files.
    pub(crate) reader: Option<Reader>,
    pub(crate) checks: Option<Task<()>>,
    /// Those that answer at the admin socket and for metrics.
    pub(crate) services: Vec<Task<()>>,
    pub(crate) giving: Option<Giving>,
}

/// A worker's thread, and the way to it.
pub(crate) struct Hand {
    pub(crate) orders: UnboundedSender<Order>,
    pub(crate) thread: JoinHandle<()>,
}

impl Hand {
    pub(crate) fn tell(&self, order: Order) {
        // A worker that is gone needs no telling.
        let _ = self.orders.send(order);
    }
}

impl Proxy {
    /// Gives workers sockets, each with the flows that are known there. Datagrams wait for [`Self::receive`].
    pub(crate) fn listen(&self, sockets: Vec<(Gate, OwnedFd)>, flows: Vec<Heritage>) {
        let mut flows_at: HashMap<Gate, Vec<Heritage>> = HashMap::new();
        for flow in flows {
            flows_at.entry(flow.state.gate).or_default().push(flow);
        }
        for (gate, socket) in sockets {
            // As many as there are workers, or some serve several, or some none.
            let worker = gate.number.checked_rem(self.workers.len()).and_then(|index| self.workers.get(index));
            if let Some(hand) = worker {
                hand.tell(Order::Listen(gate, socket, flows_at.remove(&gate).unwrap_or_default()));
            }
        }
    }

    /// Has datagrams received at all sockets.
    pub(crate) fn receive(&self) {
        self.workers.iter().for_each(|hand| hand.tell(Order::Receive));
    }

    /// Gives workers sockets and flows, and has datagrams received when all flows are where they belong: a client that has
    /// moved is known by all workers.
    pub(crate) async fn go_on(&self, sockets: Vec<(Gate, OwnedFd)>, flows: Vec<Heritage>) {
        self.listen(sockets, flows);
        self.obeyed().await;
        self.receive();
    }

    /// Waits until workers have obeyed all orders so far.
    pub(crate) async fn obeyed(&self) {
        self.hold(&[]).await;
    }

    /// Listens; with what an earlier process leaves to this one. Whether it does: else it was told to end before that was there,
    /// and [`Self::end_unbegun`] is due.
    ///
    /// # Errors
    ///
    /// Nothing is taken over; or there are no descriptors left; or a worker does not serve.
    pub(crate) async fn begin(
        &mut self,
        inheritance: Option<Inheritance>,
        stops: &mut Stops,
    ) -> Result<bool, RunError> {
        let sockets = copies(&self.sockets).map_err(host("sockets of workers"))?;
        let Some(inheritance) = inheritance else {
            self.go_on(sockets, Vec::new()).await;
            return self.failed().map(|()| true);
        };
        let given = unless_told_to_end(stops, move || inheritance.accept()).await.map_err(taking)?;
        let Some((Estate { flows, denied, signatures }, succession)) = given else { return Ok(false) };
        self.generation.rings.inherit(signatures);
        let now = std::time::Instant::now();
        for (prefix, left) in denied {
            let Some(until) = now.checked_add(left) else { continue };
            if let Err(full) = self.state().deny.deny(&[prefix.0], until, now) {
                say(&format!("edgeproxy: {prefix} is denied no more: {full}"));
            }
        }
        self.go_on(sockets, flows).await;
        self.failed()?;
        match unless_told_to_end(stops, move || succession.serving()).await {
            Ok(Some(())) => {}
            // It ends as one that serves.
            Ok(None) => stops.put_back(),
            Err(error) => say(&format!("edgeproxy: the earlier process did not say farewell: {error}")),
        }
        if let Some(admin) = &mut self.admin {
            admin.own();
        }
        Ok(true)
    }

    /// Whether a worker has failed so far; workers have obeyed.
    fn failed(&mut self) -> Result<(), RunError> {
        self.failures.try_recv().map_or(Ok(()), |failure| Err(RunError::Worker(failure)))
    }

    /// Steers until the end.
    ///
    /// # Errors
    ///
    /// There is no room in the event queue for the admin socket or the metrics; or a worker failed later.
    pub(crate) async fn steer(mut self, signals: Signals) -> Result<(), RunError> {
        let Signals { mut hangup, mut stops } = signals;
        let mut orders = self.answer_others().map_err(host("event queue"))?;
        let mut lost = Ok(());
        let (to_here, mut steps) = channel(1);
        let mut looks = interval(LOOK);
        self.begin_checks();
        self.tell_manager(ServiceState::Ready, "serving");
        say("edgeproxy: ready");
        loop {
            tokio::select! {
                _ = hangup.recv() => drop(self.reload().await),
                () = stops.any() => break,
                Some(failure) = self.failures.recv() => {
                    say(&format!("edgeproxy: {failure}: nothing new is taken, so that whoever started this starts it anew"));
                    lost = Err(RunError::WorkerLost(failure));
                    break;
                }
                _ = looks.tick() => self.look(),
                Some(ordered) = orders.recv() => match ordered {
                    Ordered::Answer(Asked::Drain, answer) => {
                        let _ = answer.send(Response::Done("draining".to_owned()));
                        // Where nobody is waited for, this process would be gone before the answer has left.
                        yield_now().await;
                        break;
                    }
                    Ordered::Answer(Asked::Reload, answer) => {
                        // Whoever asked may be gone.
                        let _ = answer.send(Response::Reload(Box::new(self.reload().await)));
                    }
                    Ordered::Answer(Asked::Connections(page), answer) => {
                        let _ = answer.send(Response::Connections(self.active(page).await));
                    }
                    // It comes by the other way, with its connection.
                    Ordered::Answer(Asked::HandOver, _) => {}
                    Ordered::HandOver(stream) => self.offer(stream, &to_here),
                },
                Some(step) = steps.recv() => match step {
                    Step::Taken(taken, answer) => self.give(taken, answer).await,
                    Step::Failed(why, estate) => self.take_back(&why, estate).await,
                    Step::Serving(heir) => {
                        self.leave_all_to(heir).await;
                        self.outlive(&mut stops, &mut hangup).await;
                        self.end();
                        return Ok(());
                    }
                },
            }
        }
        // A new process that was about to take over hears that there is nothing to take.
        drop((steps, to_here));
        // Clients of a worker that is lost wait in vain.
        let delay = if lost.is_ok() { self.generation.config.timeouts.drain_delay } else { Duration::ZERO };
        self.drain(delay, &mut Heard { stops, hangup, orders, looks }).await;
        self.end();
        lost
    }

    /// Serves the admin socket and the metrics; orders that only this thread can carry out come back.
    fn answer_others(&mut self) -> io::Result<Receiver<Ordered>> {
        let (to_here, orders) = channel(WAITING_ORDERS);
        if let Some(admin) = &self.admin {
            let listener = tokio::net::UnixListener::from_std(admin.listener.try_clone()?)?;
            let state = Arc::clone(&self.state);
            self.services.push(spawn_local(admin_socket::serve(listener, state, to_here, AdminBounds::default())));
        }
        if let Some((_, metrics)) = &self.metrics {
            let listener = tokio::net::TcpListener::from_std(metrics.try_clone()?)?;
            let state = Arc::clone(&self.state);
            self.services.push(spawn_local(metrics_http::serve(listener, state, MetricsBounds::default())));
        }
        Ok(orders)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn look(&mut self) {
        if self.giving.is_none() {
            // Else a new process may be talking to the keeper.
            self.hear_of_rules();
            self.take_rules_of_ended();
        }
        if self.reader.as_mut().is_some_and(Reader::has_ended) {
            say("edgeproxy: nobody reads /etc/hosts and /etc/resolv.conf any more: they are as they were until a restart");
            self.reader = None;
        }
        if let Some(suspect) = self.generation.suspicion.to_tell() {
            say(&format!("edgeproxy: {}", told_of(suspect)));
        }
        self.generation.rings.to_tell().for_each(|told| say(&format!("edgeproxy: {told}")));
        let conditions = self.generation.conditions_now(Instant::now());
        self.state().conditions = conditions;
    }

    /// Starts the checks of the configuration in force, in place of those before.
    pub(crate) fn begin_checks(&mut self) {
        if let Some(before) = self.checks.take() {
            before.abort();
        }
        let generation = Arc::clone(&self.generation);
        let checks: Vec<_> = generation.checks();
        if checks.is_empty() {
            return;
        }
        let names = Names::new(&generation.config.resolver, self.files.clone());
        let may_dial = move |address| {
            let policy = &generation.config.targets;
            forbidden(policy, generation.own(), Transport::Tcp, address, Origin::Name).is_none()
        };
        self.checks = Some(spawn_local(health::run(checks, names, may_dial, |_, _, _| ())));
    }

    /// Who is here.
    pub(crate) async fn active(&self, page: Page) -> Vec<Active> {
        let (mut found, mut skipped) = (Vec::new(), 0);
        for hand in &self.workers {
            let (answer, answered) = oneshot::channel();
            let most = page.most.saturating_sub(found.len());
            hand.tell(Order::List(Page { skip: page.skip.saturating_sub(skipped), most }, answer));
            let Ok((some, all)) = answered.await else { continue };
            skipped += all;
            found.extend(some);
        }
        found
    }

    /// As [`Self::leave`], and waits until it is done.
    pub(crate) async fn leave_now(&mut self, is_left: impl Fn(Endpoint) -> bool) {
        self.leave(is_left);
        // Once workers have obeyed, whoever the kernel had accepted is counted too.
        self.obeyed().await;
    }

    /// Closes some endpoints; connections that wait there are accepted.
    pub(crate) fn leave(&mut self, is_left: impl Fn(Endpoint) -> bool) {
        let (left, kept) = self.sockets.drain(..).partition(|bound| is_left(bound.endpoint));
        self.sockets = kept;
        let left: Vec<Bound> = left;
        for Bound { endpoint, sockets } in left {
            // Workers have copies. Whoever came between theirs and this one would be accepted by the kernel alone, and reset.
            drop(sockets);
            for hand in &self.workers {
                hand.tell(Order::Leave(endpoint));
            }
        }
    }

    /// Ends before it has taken anything over: what is the running process's stays so.
    pub(crate) fn end_unbegun(self) {
        say("edgeproxy: told to end before it was ready");
        self.end();
    }

    fn end(self) {
        drop(self.admin);
        for Hand { orders, thread } in self.workers {
            // A worker that is gone needs no telling.
            let _ = orders.send(Order::End);
            let _ = thread.join();
        }
        if let Some(log) = self.log {
            if !log.finish(LOG_PATIENCE) {
                say("edgeproxy: the access log's last lines were not written in time");
            }
        }
    }

    pub(crate) fn tell_manager(&self, state: ServiceState, status: &str) {
        // A manager that does not listen is no reason to stop.
        let _ = self.notifier.tell(state, status);
    }
}

/// The sockets for workers; the control thread keeps its own.
pub(crate) fn copies<'a>(bound: impl IntoIterator<Item = &'a Bound>) -> io::Result<Vec<(Gate, OwnedFd)>> {
    let of = |bound: &'a Bound| {
        let endpoint = bound.endpoint;
        let copy = move |(number, socket): (usize, &OwnedFd)| Ok((Gate { endpoint, number }, socket.try_clone()?));
        bound.sockets.iter().enumerate().map(copy)
    };
    bound.into_iter().flat_map(of).collect()
}
