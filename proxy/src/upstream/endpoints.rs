//! Places of hosts that clients name: those that failed clients of late, each with its condition, and so many at most.
//!
//! What is not in the table has not failed. A name says nothing: only the endpoint to which it led is noted, and only once it
//! has failed. One that takes a client is forgotten, and with it its rest.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::model::Ejection;

use super::condition::{Change, Condition, Standing};
use super::extent::{Extent, Failed};

/// Endpoints that one target remembers, some 300 bytes each. Of more those whose last failure is longest ago are forgotten: a
/// client that names many hosts which fail may have others dialled in vain, and nobody kept from them.
const MOST: usize = 4096;

/// See the module. Shared by all threads.
#[derive(Debug)]
pub(super) struct Endpoints {
    epoch: Instant,
    eject: Ejection,
    /// As many as `noted` has. Most of the time there are none, and nobody takes the lock.
    count: AtomicUsize,
    noted: Mutex<Noted>,
}

/// Invariant: `order` holds each endpoint exactly once, at its number.
#[derive(Debug, Default)]
struct Noted {
    conditions: HashMap<SocketAddr, (u64, Arc<Condition>)>,
    /// By the last failure.
    order: BTreeMap<u64, SocketAddr>,
    failures: u64,
}

impl Endpoints {
    pub(super) fn new(eject: Ejection, epoch: Instant) -> Self {
        Self { epoch, eject, count: AtomicUsize::new(0), noted: Mutex::default() }
    }

    /// Counts a failure of an endpoint. A port that is closed costs nobody time, and its host lives.
    pub(super) fn failed(&self, failed: Failed, now: Instant) -> Option<Change> {
        if failed.is_refusal {
            self.connected(failed.to);
            return None;
        }
        let new = || Condition::of(Extent::Place, Some(self.eject), None, self.epoch);
        let condition = {
            let mut noted = self.lock();
            let condition = noted.note(failed.to, new);
            self.count.store(noted.conditions.len(), Relaxed);
            condition
        };
        condition.failed(failed.seen, now)
    }

    /// It has taken a client.
    pub(super) fn connected(&self, to: SocketAddr) {
        if self.count.load(Relaxed) != 0 {
            let mut noted = self.lock();
            noted.forget(to);
            self.count.store(noted.conditions.len(), Relaxed);
        }
    }

    pub(super) fn rests(&self, to: SocketAddr, now: Instant) -> bool {
        self.count.load(Relaxed) != 0
            && self.lock().conditions.get(&to).is_some_and(|(_, condition)| is_ejected(condition, now))
    }

    /// How many rest.
    pub(super) fn resting(&self, now: Instant) -> usize {
        let noted = self.lock();
        noted.conditions.values().filter(|(_, condition)| is_ejected(condition, now)).count()
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    fn note(&mut self, to: SocketAddr, new: impl FnOnce() -> Arc<Condition>) -> Arc<Condition> {
        self.failures += 1;
        let (number, condition) = self.conditions.entry(to).or_insert_with(|| (self.failures, new()));
        self.order.remove(number);
        *number = self.failures;
        let condition = Arc::clone(condition);
        self.order.insert(self.failures, to);
        while self.conditions.len() > MOST {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.conditions.remove(&oldest);
        }
        condition
    }

    fn forget(&mut self, to: SocketAddr) {
        if let Some((number, _)) = self.conditions.remove(&to) {
            self.order.remove(&number);
        }
    }
}

fn is_ejected(condition: &Condition, now: Instant) -> bool {
    condition.standing(now) == Standing::Ejected
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    const REST: Duration = Duration::from_secs(30);
    const CLIENT: &str = "203.0.113.1";

    fn hosts(failures: u32, now: Instant) -> Arc<Condition> {
        let failures = NonZeroU32::new(failures).expect("not zero");
        Condition::of(Extent::Hosts, Some(Ejection { failures, duration: REST }), None, now)
    }

    fn at(number: usize) -> SocketAddr {
        let [.., high, low] = number.to_be_bytes();
        ([192, 0, high, low], 443).into()
    }

    fn silent(to: SocketAddr) -> Failed {
        Failed { seen: None, client: CLIENT.parse().expect("an address"), to, is_refusal: false }
    }

    fn seen(client: &str, to: SocketAddr) -> Failed {
        let client = client.parse().expect("an address");
        Failed { seen: Some(client), client, ..silent(to) }
    }

    #[test]
    fn the_endpoint_that_failed_rests_and_no_other_one_of_its_host() {
        let now = Instant::now();
        let hosts = hosts(2, now);
        assert_eq!(hosts.failed_at(silent(at(1)), now), None);
        assert!(!hosts.rests(at(1), now), "as many as the file says");
        assert_eq!(hosts.failed_at(silent(at(1)), now), Some(Change::Ejected));
        assert!(hosts.rests(at(1), now) && !hosts.rests(at(2), now));
        assert!(!hosts.rests(SocketAddr::new(at(1).ip(), 444), now), "another port");
        assert_eq!((hosts.resting(now), hosts.standing(now)), (1, Standing::Usable));
        assert!(!hosts.rests(at(1), now + REST));
        assert_eq!(hosts.failed_at(silent(at(1)), now + REST), Some(Change::Ejected), "it is on trial");
    }

    #[test]
    fn an_endpoint_that_takes_a_client_or_whose_port_is_closed_has_never_failed() {
        let now = Instant::now();
        let hosts = hosts(2, now);
        let closed = Failed { is_refusal: true, ..silent(at(1)) };
        for lives in [
            |hosts: &Condition, _, now| hosts.connected_at(at(1), now),
            |hosts: &Condition, closed, now| {
                assert_eq!(hosts.failed_at(closed, now), None);
            },
        ] {
            hosts.failed_at(silent(at(1)), now);
            lives(&hosts, closed, now);
            assert_eq!(hosts.failed_at(silent(at(1)), now), None, "no longer in a row");
            assert_eq!(hosts.failed_at(silent(at(1)), now), Some(Change::Ejected));
            lives(&hosts, closed, now);
            assert!(!hosts.rests(at(1), now), "its rest is over");
            assert_eq!(hosts.resting(now), 0);
        }
    }

    #[test]
    fn a_client_that_is_banned_there_ejects_nobody() {
        let now = Instant::now();
        let hosts = hosts(1, now);
        for _ in 0..9 {
            assert_eq!(hosts.failed_at(seen(CLIENT, at(1)), now), None);
        }
        assert_eq!(hosts.failed_at(seen("203.0.113.2", at(2)), now), None, "the others' failures are another's");
        assert_eq!(hosts.failed_at(seen("203.0.113.2", at(1)), now), Some(Change::Ejected));
    }

    #[test]
    fn without_ejection_nothing_is_noted() {
        let now = Instant::now();
        let hosts = Condition::of(Extent::Hosts, None, None, now);
        assert!((0..9).all(|_| hosts.failed_at(silent(at(1)), now).is_none()) && !hosts.rests(at(1), now));
    }

    #[test]
    fn however_many_hosts_clients_name_a_bounded_number_is_known_and_the_last_ones_stay() {
        let now = Instant::now();
        let endpoints = Endpoints::new(Ejection { failures: NonZeroU32::MIN, duration: REST }, now);
        for number in 0..3 * MOST {
            endpoints.failed(silent(at(number)), now);
            endpoints.failed(silent(at(0)), now);
            let noted = endpoints.lock();
            assert!(noted.conditions.len() <= MOST && noted.order.len() == noted.conditions.len());
        }
        assert_eq!((endpoints.resting(now), endpoints.count.load(Relaxed)), (MOST, MOST));
        let rest = [0, 1, 2 * MOST, 3 * MOST - 1].map(|number| endpoints.rests(at(number), now));
        assert_eq!(rest, [true, false, false, true], "by their last failures");
    }
}
