//! The control thread: signals, the admin socket, reloads, checks. It carries no client's bytes, and no worker waits for it.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::time::{clock_gettime, ClockId};
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::sync::mpsc::{channel, Receiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now, JoinHandle as Task};
use tokio::time::{interval, sleep, Instant};

use crate::admission::Admission;
use crate::commands::say;
use crate::config::model::{Config, Operation, Transport};
use crate::generation::Generation;
use crate::listening::{bind_all, Bound, Endpoint};
use crate::names::{Names, SystemFiles};
use crate::operation::access_log::AccessLog;
use crate::operation::admin::{Active, Order as Asked, Page, Response};
use crate::operation::admin_socket::{self, AdminBounds, Ordered};
use crate::operation::ledger;
use crate::operation::metrics_http::{self, MetricsBounds};
use crate::operation::notify::{Notifier, ServiceState};
use crate::operation::state::State;
use crate::route::forbidden::{forbidden, Origin};
use crate::transparent::keeper::{Report, Want};
use crate::transparent::keeper_channel::RuleKeeper;
use crate::transparent::local_addresses::LocalAddresses;
use crate::transparent::needs::Needs;
use crate::upstream::health;
use crate::worker::Order;

/// How often the end of the last connection is looked for while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

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
    pub(crate) generation: Arc<Generation>,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) workers: Vec<Hand>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) log: Option<AccessLog>,
    pub(crate) admin: Option<UnixListener>,
    pub(crate) metrics: Option<TcpListener>,
    pub(crate) notifier: Notifier,
    pub(crate) keeper: Option<RuleKeeper>,
    pub(crate) locals: LocalAddresses,
    pub(crate) checks: Option<Task<()>>,
}

/// A worker's thread, and the way to it.
pub(crate) struct Hand {
    pub(crate) orders: UnboundedSender<Order>,
    pub(crate) thread: JoinHandle<()>,
}

impl Hand {
    fn tell(&self, order: Order) {
        // A worker that is gone needs no telling.
        let _ = self.orders.send(order);
    }
}

/// What ends the proxy.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Proxy {
    /// Gives each worker its socket of each endpoint.
    pub(crate) fn hand_out(&mut self, bound: Vec<Bound>) {
        for Bound { endpoint, sockets } in bound {
            for (hand, socket) in self.workers.iter().zip(sockets) {
                hand.tell(Order::Listen(endpoint, socket));
            }
            self.endpoints.push(endpoint);
        }
    }

    /// Steers until the end.
    ///
    /// # Errors
    ///
    /// Signals cannot be heard.
    pub(crate) async fn steer(mut self) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut stops =
            Stops { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        let mut orders = self.answer_others()?;
        let mut looks = interval(LOOK);
        self.begin_checks();
        self.tell_manager(ServiceState::Ready, "serving");
        say("edgeproxy: ready");
        loop {
            tokio::select! {
                _ = hangup.recv() => self.reload_and_say(),
                () = stops.any() => break,
                _ = looks.tick() => self.look(),
                Some(ordered) = orders.recv() => match ordered {
                    Ordered::Answer(Asked::Drain, answer) => {
                        let _ = answer.send(Response::Done("nothing new is taken".to_owned()));
                        // Where nobody is waited for, this process would be gone before the answer has left.
                        yield_now().await;
                        break;
                    }
                    Ordered::Answer(Asked::Reload, answer) => {
                        // Whoever asked may be gone.
                        let _ = answer.send(self.reload());
                    }
                    Ordered::Answer(Asked::Connections(page), answer) => {
                        let _ = answer.send(Response::Connections(self.active(page).await));
                    }
                    Ordered::Answer(Asked::HandOver, answer) => {
                        let _ = answer.send(Response::Error("this version hands nothing over".to_owned()));
                    }
                    Ordered::HandOver(_) => {}
                },
            }
        }
        self.drain(&mut stops).await;
        self.end();
        Ok(())
    }

    /// Serves the admin socket and the metrics; orders that only this thread can carry out come back.
    fn answer_others(&mut self) -> io::Result<Receiver<Ordered>> {
        let (to_here, orders) = channel(WAITING_ORDERS);
        if let Some(admin) = self.admin.take() {
            let listener = tokio::net::UnixListener::from_std(admin)?;
            let state = Arc::clone(&self.state);
            spawn_local(admin_socket::serve(listener, state, to_here, AdminBounds::default()));
        }
        if let Some(metrics) = self.metrics.take() {
            let listener = tokio::net::TcpListener::from_std(metrics)?;
            spawn_local(metrics_http::serve(listener, Arc::clone(&self.state), MetricsBounds::default()));
        }
        Ok(orders)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&mut self) {
        self.hear_of_rules();
        let conditions = self.generation.conditions_now(Instant::now());
        self.state().conditions = conditions;
    }

    /// Tells what became of the kernel's rules since the last look.
    fn hear_of_rules(&mut self) {
        while let Some(keeper) = &mut self.keeper {
            match keeper.report() {
                Ok(Some(Report::Installed)) => say("edgeproxy: all rules are there"),
                Ok(Some(Report::Restored(lines))) => {
                    say(&format!("edgeproxy: somebody removed rules, they are there again: {}", lines.join("; ")));
                }
                Ok(Some(Report::Failed(why))) => say(&format!("edgeproxy: rules are missing: {why}")),
                Ok(None) => return,
                Err(error) => {
                    say(&format!("edgeproxy: {error}; restart to have the kernel's rules kept"));
                    self.keeper = None;
                }
            }
        }
    }

    /// Starts the checks of the configuration in force, in place of those before.
    fn begin_checks(&mut self) {
        if let Some(before) = self.checks.take() {
            before.abort();
        }
        let generation = Arc::clone(&self.generation);
        let checks: Vec<_> = generation.checks();
        if checks.is_empty() {
            return;
        }
        let names = Names::new(&generation.config.resolver, SystemFiles::default());
        let may_dial = move |address| {
            let policy = &generation.config.targets;
            forbidden(policy, generation.own(), Transport::Tcp, address, Origin::Name).is_none()
        };
        self.checks = Some(spawn_local(health::run(checks, names, may_dial, |_, _, _| ())));
    }

    fn reload_and_say(&mut self) {
        self.tell_manager(ServiceState::Reloading { monotonic: since_boot() }, "reloading");
        match self.reload() {
            Response::Error(why) => say(&format!("edgeproxy: not reloaded, the old configuration stays: {why}")),
            Response::Done(what) => say(&format!("edgeproxy: {what}")),
            Response::Status(_)
            | Response::Connections(_)
            | Response::Denied(_)
            | Response::Changed(_)
            | Response::Metrics(_) => {}
        }
        self.tell_manager(ServiceState::Ready, "serving");
    }

    /// Takes the file as it is now, if it is valid and its endpoints can be had; otherwise all stays as it was.
    fn reload(&mut self) -> Response {
        if let Some(log) = &self.log {
            log.reopen();
        }
        match self.take_over() {
            Ok(()) => {
                self.state().reloads += 1;
                let waiting = self.waiting_for_a_start(&self.generation.config);
                Response::Done(if waiting.is_empty() {
                    "reloaded".to_owned()
                } else {
                    format!("reloaded, but what was changed here holds from the next start on: {}", waiting.join(", "))
                })
            }
            Err(why) => {
                self.state().reload_failures += 1;
                Response::Error(why)
            }
        }
    }

    /// Keys whose values are not those that the process began with, and which only a start takes.
    fn waiting_for_a_start(&self, config: &Config) -> Vec<&'static str> {
        let (now, wanted) = (&self.begun_with, &config.operation);
        let keys = [
            ("workers", self.workers.len() == config.workers.get()),
            ("operation.admin_socket", now.admin_socket == wanted.admin_socket),
            ("operation.metrics", now.metrics == wanted.metrics),
            ("operation.access_log", now.access_log == wanted.access_log),
        ];
        keys.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect()
    }

    fn take_over(&mut self) -> Result<(), String> {
        let config = crate::config::load(&self.path).map_err(|faults| faults.to_string())?;
        let count = self.workers.len();
        let generation = Arc::new(Generation::after(Some(&self.generation), config, &self.locals, Instant::now()));
        let wanted = generation.endpoints();
        let new: Vec<_> = wanted.iter().copied().filter(|endpoint| !self.endpoints.contains(endpoint)).collect();
        let bound = bind_all(&new, &self.endpoints, count, &generation.config.timeouts);
        let bound = bound.map_err(|error| error.to_string())?;
        self.keep_rules(&generation)?;
        let counters = {
            let mut state = self.state();
            state.deny.replace_fixed(&generation.config.deny);
            state.ledger.begin(ledger::Names::of(&generation.config), count)
        };
        let (kept, left): (Vec<_>, Vec<_>) = self.endpoints.drain(..).partition(|endpoint| wanted.contains(endpoint));
        // Before the new configuration, which knows nothing of those who wait at an endpoint that it has not got.
        self.leave(&left);
        for (hand, counters) in self.workers.iter().zip(counters) {
            hand.tell(Order::Serve(Arc::clone(&generation), counters));
        }
        self.endpoints = kept;
        self.hand_out(bound);
        self.generation = generation;
        self.begin_checks();
        self.look();
        Ok(())
    }

    /// Has the rules kept that the new configuration needs.
    fn keep_rules(&mut self, generation: &Generation) -> Result<(), String> {
        let rules = generation.config.transparent;
        let needs = Needs::of(&generation.config, |address| self.locals.is_local(address));
        if !rules.manage_rules || needs.is_empty() {
            return Ok(());
        }
        let Some(keeper) = &mut self.keeper else {
            return Err("transparent.manage_rules: this process keeps no rules; restart it".to_owned());
        };
        match keeper.want(Want { needs, mark: rules.mark, table: rules.table }) {
            Ok(Report::Installed | Report::Restored(_)) => Ok(()),
            Ok(Report::Failed(why)) => Err(format!("transparent.manage_rules: {why}")),
            Err(error) => Err(format!("the rule keeper: {error}")),
        }
    }

    /// Who is here.
    async fn active(&self, page: Page) -> Vec<Active> {
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

    /// Takes nothing new, and waits for those who are here.
    async fn drain(&mut self, stops: &mut Stops) {
        self.state().draining = true;
        self.tell_manager(ServiceState::Stopping, "draining");
        let (tcp, udp): (Vec<_>, Vec<_>) =
            self.endpoints.drain(..).partition(|endpoint| endpoint.transport == Transport::Tcp);
        self.leave(&tcp);
        // Once they have obeyed, whoever the kernel had accepted is counted too.
        self.active(Page { skip: 0, most: 0 }).await;
        let deadline = Instant::now() + self.generation.config.timeouts.drain;
        while self.admission.total() > 0 && Instant::now() < deadline {
            tokio::select! {
                () = sleep(DRAIN_LOOK) => {}
                // A second signal ends the wait.
                () = stops.any() => break,
            }
        }
        self.leave(&udp);
    }

    fn leave(&self, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            for hand in &self.workers {
                hand.tell(Order::Leave(*endpoint));
            }
        }
    }

    fn end(self) {
        if let Some(socket) = &self.begun_with.admin_socket {
            // Somebody else may have taken it away.
            let _ = std::fs::remove_file(socket);
        }
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

    fn tell_manager(&self, state: ServiceState, status: &str) {
        // A manager that does not listen is no reason to stop.
        let _ = self.notifier.tell(state, status);
    }
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
