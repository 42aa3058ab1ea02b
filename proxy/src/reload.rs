//! A new configuration in place of the one in force: all of it, or nothing of it.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::time::{clock_gettime, ClockId};
use tokio::time::Instant;

use crate::commands::say;
use crate::config::model::Config;
use crate::config::{Checked, Fault, Faults};
use crate::generation::Generation;
use crate::hop::{self, KeyFault};
use crate::listening::{bind_all, Endpoint};
use crate::mend;
use crate::multipath;
use crate::operation::ledger;
use crate::operation::notify::ServiceState;
use crate::operation::reload_told::ReloadTold;
use crate::operation::state::KernelRules;
use crate::run_error::host;
use crate::steering::{copies, Proxy};
use crate::transparent::keeper::{Report, Want};
use crate::transparent::local_addresses::needs_neighbours;
use crate::worker::Order;

impl Proxy {
    /// Takes the file as it is now, if it is valid and its endpoints can be had; otherwise all stays as it was. The manager and
    /// the log hear of it. When this is over, each worker serves by what is in force.
    pub(crate) async fn reload(&mut self) -> ReloadTold {
        self.tell_manager(ServiceState::Reloading { monotonic: since_boot() }, "reloading");
        if let Some(log) = &self.log {
            log.reopen();
        }
        let told = match self.take_over() {
            Ok(notes) => {
                self.obeyed().await;
                self.state().reloads += 1;
                let next_start = self.waiting_for_a_start(&self.generation.config);
                ReloadTold { reloaded: true, next_start, notes, ..ReloadTold::default() }
            }
            Err(refused) => {
                self.state().reload_failures += 1;
                refused
            }
        };
        say(&format!("edgeproxy: {told}"));
        self.tell_manager(ServiceState::Ready, "serving");
        told
    }

    /// Keys whose values are not those that the process began with, and which only a start takes.
    fn waiting_for_a_start(&self, config: &Config) -> Vec<String> {
        let (now, wanted) = (&self.begun_with, &config.operation);
        let keys = [
            ("workers", self.workers.len() == config.workers.get()),
            ("operation.admin_socket", now.admin_socket == wanted.admin_socket),
            ("operation.metrics", now.metrics == wanted.metrics),
            ("operation.access_log", now.access_log == wanted.access_log),
            ("operation.fixed_ports", now.fixed_ports == wanted.fixed_ports),
        ];
        keys.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key.to_owned()).collect()
    }

    /// The notes on the file that is taken.
    fn take_over(&mut self) -> Result<Vec<Fault>, ReloadTold> {
        if self.giving.is_some() {
            return Err(ReloadTold::refused("a new process is about to take over"));
        }
        let Checked { config, notes, places } =
            crate::config::check(&self.path).map_err(|Faults(faults)| ReloadTold::faulty(faults))?;
        if let Some(lack) = self.ports.lack(&config) {
            let found = format!("it takes {lack}, and this process gave up all that it did not begin with");
            let fault = places.fault("operation.fixed_ports", found, RESTART_WHOLLY);
            return Err(ReloadTold::faulty(vec![fault]));
        }
        if let Some(key) = multipath::wanted_by(&config).filter(|_| !self.may_multipath) {
            let found = "this process began without MPTCP, and gave up all that it did not begin with";
            return Err(ReloadTold::faulty(vec![places.fault(&key, found, RESTART_WHOLLY)]));
        }
        let of_key = |fault: KeyFault| vec![places.fault(&fault.place, fault.found, fault.allowed)];
        let keys = hop::load(&config).map_err(|fault| ReloadTold::faulty(of_key(fault)))?;
        let warning = multipath::warning(&config);
        let count = self.workers.len();
        let generation = Generation::after(Some(&self.generation), config, keys, &self.locals, Instant::now());
        let generation = Arc::new(generation);
        let wanted = generation.endpoints();
        let held: Vec<_> = self.sockets.iter().map(|bound| bound.endpoint).collect();
        let new: Vec<_> = wanted.iter().copied().filter(|endpoint| !held.contains(endpoint)).collect();
        let bound = bind_all(&new, &held, count, &generation.config.timeouts).map_err(ReloadTold::refused)?;
        let sockets = copies(&bound).map_err(|error| ReloadTold::refused(host("sockets of workers")(error)))?;
        if needs_neighbours(&generation.config) {
            self.routes.follow().map_err(|error| ReloadTold::refused(host("routes of this host")(error)))?;
        }
        let of_rules = |unkept: Unkept| {
            ReloadTold::faulty(vec![places.fault("transparent.manage_rules", unkept.found, unkept.mend)])
        };
        // Connections go on under the configuration that they began with, and so do its rules.
        self.earlier.push(Arc::downgrade(&self.generation));
        if let Err(unkept) = self.keep_rules(&generation.config) {
            self.earlier.pop();
            return Err(of_rules(unkept));
        }
        let counters = {
            let mut state = self.state();
            state.deny.replace_fixed(&generation.config.deny);
            state.ledger.begin(ledger::Names::of(&generation.config), count)
        };
        generation.come_into_force(Instant::now());
        // Before the new configuration, which knows nothing of those who wait at an endpoint that it has not got.
        let left = |endpoint: Endpoint| !wanted.contains(&endpoint);
        // Whoever came between the last accept and the end of a socket would be reset.
        for bound in self.sockets.iter().filter(|bound| left(bound.endpoint)) {
            let _ = bound.refuse_newcomers(); // nobody waits for handshakes here
        }
        self.leave(left);
        for (hand, counters) in self.workers.iter().zip(counters) {
            hand.tell(Order::Serve(Arc::clone(&generation), counters));
        }
        self.sockets.extend(bound);
        self.listen(sockets, Vec::new());
        self.receive();
        self.generation = generation;
        if let Some(warning) = warning {
            say(&format!("edgeproxy: note: {warning}"));
        }
        self.begin_checks();
        self.look();
        Ok(notes)
    }

    fn want_of(&self, config: &Config) -> Want {
        Want::of(config, |address| self.locals.is_local(address))
    }

    /// What a configuration wants, and those before it of which connections go on.
    fn want_beside_earlier(&mut self, config: &Config) -> Want {
        self.earlier.retain(|generation| generation.strong_count() > 0);
        let earlier = self.earlier.iter().rev().filter_map(Weak::upgrade);
        earlier.map(|generation| self.want_of(&generation.config)).fold(self.want_of(config), |want, before| {
            // Whoever is there under another mark or table is found by these as well.
            let own = if want.needs.is_empty() { before } else { want };
            if before.needs.is_empty() {
                want
            } else {
                Want { needs: want.needs.and(before.needs), ..own }
            }
        })
    }

    /// Has the rules taken away that nobody needs any more: neither the configuration nor a connection under one before it.
    pub(crate) fn take_rules_of_ended(&mut self) {
        let generation = Arc::clone(&self.generation);
        let want = self.want_beside_earlier(&generation.config);
        let Some(keeper) = self.keeper.as_mut().filter(|_| self.wanted.is_some_and(|wanted| wanted != want)) else {
            return;
        };
        match keeper.tell(want) {
            Ok(()) => self.wanted = Some(want),
            Err(error) => say(&format!("edgeproxy: the process that keeps rules: {error}")),
        }
    }

    /// Has the rules kept that a configuration needs, and those before it of which connections go on.
    pub(crate) fn keep_rules(&mut self, config: &Config) -> Result<(), Unkept> {
        let want = self.want_beside_earlier(config);
        let own = self.want_of(config).needs;
        let Some(keeper) = &mut self.keeper else {
            let unkept = Unkept {
                found: "this process has none that keeps rules, and gave CAP_NET_ADMIN up".to_owned(),
                mend: RESTART,
            };
            if !own.is_empty() {
                return Err(unkept);
            }
            self.state().kernel_rules = None;
            return Ok(());
        };
        match keeper.want(want) {
            Ok(Report::Installed | Report::Restored(_) | Report::Left(_)) => {
                self.wanted = Some(want);
                self.state().kernel_rules_are(true);
                Ok(())
            }
            Ok(Report::Failed(found)) => {
                let mend = mend::of_rules(&found).trim_start_matches("; ");
                Err(Unkept { found, mend })
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                // It comes to it all the same, and then to this. Without its end of the channel it would take all away.
                if let Some(stays) = self.wanted {
                    let _ = keeper.tell(stays); // what it has no room for, it was not told before either
                }
                let found =
                    "the process that keeps rules does not answer; it is told to keep those of before".to_owned();
                Err(Unkept { found, mend: "see what holds it up (nft, or another keeper), and reload again" })
            }
            Err(error) => {
                if is_gone(&error) {
                    self.lose_keeper();
                }
                Err(Unkept { found: format!("the process that keeps rules: {error}"), mend: RESTART })
            }
        }
    }

    /// Nobody puts rules back any more.
    fn lose_keeper(&mut self) {
        self.keeper = None;
        self.state().kernel_rules_are(false);
    }

    /// Tells what became of the kernel's rules since the last look.
    pub(crate) fn hear_of_rules(&mut self) {
        while let Some(keeper) = &mut self.keeper {
            match keeper.report() {
                Ok(Some(Report::Installed)) => {
                    say("edgeproxy: the kernel's rules are as the configuration has them");
                    self.state().kernel_rules_are(true);
                }
                Ok(Some(Report::Restored(lines))) => {
                    say(&format!("edgeproxy: somebody removed rules, they are there again: {}", lines.join("; ")));
                    if let Some(rules) = &mut self.state().kernel_rules {
                        *rules = KernelRules { present: true, restored: rules.restored + 1 };
                    }
                }
                Ok(Some(Report::Left(why))) => {
                    say(&format!("edgeproxy: rules that are needed no more could not be taken away: {why}"));
                    self.state().kernel_rules_are(true);
                }
                Ok(Some(Report::Failed(why))) => {
                    say(&format!("edgeproxy: rules are missing: {why}"));
                    self.state().kernel_rules_are(false);
                }
                Ok(None) => return,
                Err(error) if is_gone(&error) => {
                    say(&format!("edgeproxy: {error}; restart to have the kernel's rules kept"));
                    self.lose_keeper();
                }
                Err(error) => return say(&format!("edgeproxy: the process that keeps rules: {error}")),
            }
        }
    }
}

/// Why the kernel's rules are not as a configuration has them.
#[derive(Debug, thiserror::Error)]
#[error("transparent.manage_rules: {found}; {mend}")]
pub(crate) struct Unkept {
    found: String,
    mend: &'static str,
}

/// Whether the keeper has ended, so that nobody takes rules away when its channel is closed.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

const RESTART: &str =
    "restart it, or start it with `--take-over` beside itself, with CAP_NET_ADMIN; or load the lines of `edgeproxy rules`, \
     and leave manage_rules off";

const RESTART_WHOLLY: &str = "restart it, or start it with `--take-over` beside itself";

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
