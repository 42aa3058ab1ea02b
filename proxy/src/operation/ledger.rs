//! The sum of all workers' counters over all configurations of the process. What has a name never goes backwards under it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counters::{BackendCounters, GlobalCounters, ListenerCounters, RuleCounters, WorkerCounters};
use crate::config::model::Config;

/// Names of one kind that are remembered though no configuration in use has them.
const MOST_NAMES: usize = 4096;

/// The names behind the identifiers of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// By [`crate::config::model::ListenerId`].
    pub listeners: Vec<String>,
    /// By [`crate::config::model::RuleId`].
    pub rules: Vec<String>,
    /// By [`crate::config::model::BackendId`].
    pub backends: Vec<String>,
}

impl Names {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            listeners: config.listeners.iter().map(|listener| listener.name.clone()).collect(),
            rules: config.rules.iter().map(|rule| rule.name.clone()).collect(),
            backends: config.backends.iter().map(|backend| backend.name.clone()).collect(),
        }
    }
}

/// Sums by name.
#[derive(Debug, Default)]
pub struct Totals {
    /// Of everything.
    pub global: GlobalCounters,
    /// By name of the listener.
    pub listeners: BTreeMap<String, ListenerCounters>,
    /// By name of the rule.
    pub rules: BTreeMap<String, RuleCounters>,
    /// By name of the backend.
    pub backends: BTreeMap<String, BackendCounters>,
}

impl Totals {
    fn absorb_worker(&mut self, names: &Names, worker: &WorkerCounters) {
        self.global.absorb(&worker.global);
        for (name, counters) in names.listeners.iter().zip(&*worker.listeners) {
            self.listeners.entry(name.clone()).or_default().absorb(counters);
        }
        for (name, counters) in names.rules.iter().zip(&*worker.rules) {
            self.rules.entry(name.clone()).or_default().absorb(counters);
        }
        for (name, counters) in names.backends.iter().zip(&*worker.backends) {
            self.backends.entry(name.clone()).or_default().absorb(counters);
        }
    }

    fn absorb(&mut self, other: &Self) {
        self.global.absorb(&other.global);
        for (name, counters) in &other.listeners {
            self.listeners.entry(name.clone()).or_default().absorb(counters);
        }
        for (name, counters) in &other.rules {
            self.rules.entry(name.clone()).or_default().absorb(counters);
        }
        for (name, counters) in &other.backends {
            self.backends.entry(name.clone()).or_default().absorb(counters);
        }
    }
}

/// The counters of one configuration: one set for each worker.
#[derive(Debug)]
struct Generation {
    names: Names,
    workers: Vec<Arc<WorkerCounters>>,
}

/// All counters of the process; the control thread has it. A connection counts where it began until it ends, so
/// configurations that were replaced stay here as long as a connection of theirs lives.
#[derive(Debug, Default)]
pub struct Ledger {
    generations: Vec<Generation>,
    ended: Totals,
}

impl Ledger {
    /// Counters for a configuration that comes into use, one set for each worker. A worker (and each of its connections)
    /// holds its own until it counts no more.
    pub fn begin(&mut self, names: Names, workers: usize) -> Vec<Arc<WorkerCounters>> {
        let (listeners, rules, backends) = (names.listeners.len(), names.rules.len(), names.backends.len());
        let workers: Vec<_> = (0..workers).map(|_| Arc::new(WorkerCounters::new(listeners, rules, backends))).collect();
        self.generations.push(Generation { names, workers: workers.clone() });
        workers
    }

    /// The sums of this moment.
    pub fn totals(&mut self) -> Totals {
        self.fold();
        let mut totals = Totals::default();
        totals.absorb(&self.ended);
        for generation in &self.generations {
            for worker in &generation.workers {
                totals.absorb_worker(&generation.names, worker);
            }
        }
        totals
    }

    /// Takes over what no worker holds any more; once, for it is taken out of its generation.
    fn fold(&mut self) {
        for generation in &mut self.generations {
            let (names, ended) = (&generation.names, &mut self.ended);
            // `get_mut` succeeds for the last holder only, and then sees all that the others wrote.
            generation.workers.retain_mut(|worker| match Arc::get_mut(worker) {
                Some(worker) => {
                    ended.absorb_worker(names, worker);
                    false
                }
                None => true,
            });
        }
        let last = self.generations.len().saturating_sub(1);
        let mut place = 0;
        self.generations.retain(|generation| {
            let keep = place == last || !generation.workers.is_empty();
            place += 1;
            keep
        });
        self.forget();
    }

    /// Bounds the names that reloads have left behind.
    fn forget(&mut self) {
        let used: Vec<&Names> = self.generations.iter().map(|generation| &generation.names).collect();
        bound(&mut self.ended.listeners, |name| used.iter().any(|names| names.listeners.contains(name)));
        bound(&mut self.ended.rules, |name| used.iter().any(|names| names.rules.contains(name)));
        bound(&mut self.ended.backends, |name| used.iter().any(|names| names.backends.contains(name)));
    }
}

fn bound<T>(named: &mut BTreeMap<String, T>, in_use: impl Fn(&String) -> bool) {
    if named.len() > MOST_NAMES {
        named.retain(|name, _| in_use(name));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::model::{BackendId, ListenerId, Protocol, RuleId, Transport};
    use crate::operation::outcomes::{HeaderIn, HeaderOut, UdpDrop};
    use crate::operation::CloseReason;
    use crate::sniff::Found;

    fn names(listeners: &[&str], rules: &[&str], backends: &[&str]) -> Names {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names { listeners: owned(listeners), rules: owned(rules), backends: owned(backends) }
    }

    const WEB: ListenerId = ListenerId(0);

    #[test]
    fn each_count_arrives_in_the_total_of_its_name() {
        let mut ledger = Ledger::default();
        let workers = ledger.begin(names(&["web", "mail"], &["all"], &["nas"]), 2);
        for worker in &workers {
            worker.opened(WEB, Transport::Tcp);
            worker.carried(WEB, Transport::Tcp, 10, 20);
            worker.closed(WEB, Transport::Tcp, CloseReason::IdleTimeout);
        }
        let worker = &workers[1];
        worker.opened(ListenerId(1), Transport::Udp);
        worker.datagrams(ListenerId(1), 3, 4);
        worker.datagrams_dropped(UdpDrop::TooLong, 5);
        worker.accept_failed(WEB);
        worker.header_in(HeaderIn::V2);
        worker.header_out(HeaderOut::Spp);
        let found = Found { ech: true, post_quantum: true, ..Found::default() };
        worker.preface(Some(&(Protocol::Tls, found)), 1_800, 2, Duration::from_micros(300));
        worker.rule_chosen(RuleId(0));
        worker.backend_connected(BackendId(0), Duration::from_millis(2));
        worker.backend_failed(BackendId(0));
        worker.opened(ListenerId(9), Transport::Tcp); // of no listener: counts nowhere

        let totals = ledger.totals();
        let web = &totals.listeners["web"];
        assert_eq!((web.tcp.opened.get(), web.tcp.active(), web.accept_errors.get()), (2, 0, 1));
        assert_eq!((web.tcp.bytes_in.get(), web.tcp.bytes_out.get()), (20, 40));
        let mail = &totals.listeners["mail"].udp;
        assert_eq!((mail.active(), mail.datagrams_in.get(), mail.datagrams_out.get()), (1, 3, 4));
        let global = &totals.global;
        assert_eq!(global.tcp_closed[CloseReason::IdleTimeout.index()].get(), 2);
        assert_eq!(global.udp_closed.iter().map(crate::operation::counters::Counter::get).sum::<u64>(), 0);
        assert_eq!(global.udp_drops[UdpDrop::TooLong as usize].get(), 5);
        assert_eq!(global.headers_in[HeaderIn::V2 as usize].get(), 1);
        assert_eq!(global.headers_out[HeaderOut::Spp as usize].get(), 1);
        assert_eq!((global.protocols[0].get(), global.ech.get(), global.post_quantum.get()), (1, 1, 1));
        assert_eq!((global.preface_bytes.sum(), global.preface_segments.sum()), (1_800, 2));
        assert_eq!(totals.rules["all"].chosen.get(), 1);
        let nas = &totals.backends["nas"];
        assert_eq!((nas.active(), nas.failures.get(), nas.connect_time.sum()), (1, 1, 2_000));
    }

    #[test]
    fn a_histogram_counts_a_value_on_its_bound_below_it() {
        let mut ledger = Ledger::default();
        let workers = ledger.begin(names(&[], &[], &["b"]), 1);
        for micros in [100, 101, 6_000_000] {
            workers[0].backend_connected(BackendId(0), Duration::from_micros(micros));
        }
        let totals = ledger.totals();
        let cumulative: Vec<_> = totals.backends["b"].connect_time.cumulative().collect();
        assert_eq!(cumulative[..2], [(Some(100), 1), (Some(250), 2)]);
        assert_eq!(cumulative.last(), Some(&(None, 3)));
    }

    #[test]
    fn totals_never_go_backwards_over_reloads() {
        let mut ledger = Ledger::default();
        let mut seen = 0;
        let mut alive = Vec::new();
        for round in 0_usize..50 {
            // The listener changes its place, and other names come and go.
            let place = round % 2;
            let listeners = if place == 0 { ["web", "other"] } else { ["other", "web"] };
            let workers = ledger.begin(names(&listeners, &[&format!("rule {round}")], &[]), 2);
            for worker in &workers {
                worker.opened(ListenerId(place), Transport::Tcp);
            }
            alive.push(workers);
            if round % 3 == 0 {
                alive.remove(0);
            }
            let now = ledger.totals().listeners["web"].tcp.opened.get();
            assert_eq!(now, seen + 2);
            assert_eq!(ledger.totals().listeners["web"].tcp.opened.get(), now, "folding twice counts nothing twice");
            seen = now;
        }
        alive.clear();
        assert_eq!(ledger.totals().listeners["web"].tcp.opened.get(), 100);
        assert_eq!(ledger.generations.len(), 1);
    }

    #[test]
    fn a_connection_of_a_replaced_configuration_is_active_until_it_ends() {
        let mut ledger = Ledger::default();
        let old = ledger.begin(names(&["web"], &[], &[]), 1);
        old[0].opened(WEB, Transport::Tcp);
        let _new = ledger.begin(names(&["web"], &[], &[]), 1);
        assert_eq!(ledger.totals().listeners["web"].tcp.active(), 1);
        old[0].closed(WEB, Transport::Tcp, CloseReason::ClientClosed);
        drop(old);
        let web = &ledger.totals().listeners["web"].tcp;
        assert_eq!((web.active(), web.closed.get()), (0, 1));
    }

    #[test]
    fn names_left_behind_are_bounded() {
        let mut ledger = Ledger::default();
        for round in 0..10 {
            let rules: Vec<String> = (0..1_000).map(|rule| format!("{round} {rule}")).collect();
            drop(ledger.begin(Names { rules, ..Names::default() }, 1));
            ledger.totals();
        }
        assert!(ledger.totals().rules.len() <= MOST_NAMES + 1_000);
        assert!(ledger.totals().rules.contains_key("9 999"));
    }

    #[test]
    fn readers_beside_a_writer_see_what_it_wrote() {
        let mut ledger = Ledger::default();
        let worker = ledger.begin(names(&["web"], &[], &[]), 1).remove(0);
        let writer = std::thread::spawn(move || (0..100_000).for_each(|_| worker.opened(WEB, Transport::Tcp)));
        let mut seen = 0;
        while seen < 100_000 {
            let now = ledger.totals().listeners["web"].tcp.opened.get();
            assert!(now >= seen);
            seen = now;
        }
        writer.join().unwrap();
    }
}
