//! Endpoints of hosts that clients name: those that failed clients of late, each with its row, and so many at most.
//!
//! What is not in the table has not failed. A name says nothing: only the endpoint to which it led is noted, for the transport
//! by which it failed, and only once it has. One that takes a client is forgotten, and with it its rest; so is one that has
//! not failed for some rests.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::model::{Ejection, Transport};

use super::condition::{number_of, Change};
use super::extent::Failed;
use super::row::{nanoseconds, Row};

/// Endpoints that one target remembers, some 250 bytes each. Of more those whose last failure is longest ago are forgotten: a
/// client that names many hosts which fail may have others dialled in vain, and nobody kept from them.
const MOST: usize = 4096;
/// One that has not failed for so many rests is forgotten.
const RESTS: u64 = 4;
/// Those that are forgotten at one look at most. More than a look can note, so that they do go.
const FORGOTTEN_AT_ONCE: usize = 4;

type Endpoint = (Transport, SocketAddr);

/// See the module. Shared by all threads.
#[derive(Debug)]
pub(super) struct Endpoints {
    epoch: Instant,
    eject: Ejection,
    /// As many as `noted` has. Most of the time there are none, and nobody takes the lock.
    count: AtomicUsize,
    /// When the last rest ends. Most of the time that is over, and who asks what rests takes no lock.
    rests_end: AtomicU64,
    noted: Mutex<Noted>,
}

/// Invariant: `order` holds each endpoint exactly once, at its number.
#[derive(Debug, Default)]
struct Noted {
    all: HashMap<Endpoint, One>,
    /// By the last failure.
    order: BTreeMap<u64, Endpoint>,
    failures: u64,
}

#[derive(Debug, Default)]
struct One {
    /// Of its last failure.
    number: u64,
    failed: u64,
    row: Row,
}

impl Endpoints {
    pub(super) fn new(eject: Ejection, epoch: Instant) -> Self {
        let (count, rests_end) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { epoch, eject, count, rests_end, noted: Mutex::default() }
    }

    /// Counts a failure of an endpoint. A port that is closed costs nobody time, and its host lives.
    pub(super) fn failed(&self, failed: Failed, now: Instant) -> Option<Change> {
        if failed.is_refusal {
            self.connected(failed.by, failed.to, now);
            return None;
        }
        let whose = number_of(failed.seen);
        let to = (failed.by, failed.to);
        let end = self.change(now, |noted, now, old| noted.failed(to, self.eject, whose, now, old))?;
        self.rests_end.fetch_max(end, Relaxed);
        Some(Change::Ejected)
    }

    /// It has taken a client.
    pub(super) fn connected(&self, by: Transport, to: SocketAddr, now: Instant) {
        if self.count.load(Relaxed) != 0 {
            self.change(now, |noted, _, _| noted.forget((by, to)));
        }
    }

    /// See [`Condition::part`](super::condition::Condition::part).
    pub(super) fn part(&self, by: Transport, all: Vec<SocketAddr>, now: Instant) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let now = self.since_epoch(now);
        if now >= self.rests_end.load(Relaxed) {
            return (all, Vec::new());
        }
        let noted = self.lock();
        all.into_iter().partition(|to| !noted.all.get(&(by, *to)).is_some_and(|one| one.row.rests(now)))
    }

    /// How many rest.
    pub(super) fn resting(&self, now: Instant) -> usize {
        let now = self.since_epoch(now);
        if now >= self.rests_end.load(Relaxed) {
            return 0;
        }
        self.lock().all.values().filter(|one| one.row.rests(now)).count()
    }

    /// What a change of the table comes to, of which the arguments are the time and that before which failures are old. Then
    /// some of these are forgotten.
    fn change<T>(&self, now: Instant, change: impl FnOnce(&mut Noted, u64, u64) -> T) -> T {
        let now = self.since_epoch(now);
        let old = now.saturating_sub(nanoseconds(self.eject.duration).saturating_mul(RESTS));
        let mut noted = self.lock();
        let what = change(&mut noted, now, old);
        noted.forget_before(old);
        self.count.store(noted.all.len(), Relaxed);
        what
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.epoch))
    }
}

impl Noted {
    fn failed(&mut self, to: Endpoint, eject: Ejection, whose: u64, now: u64, old: u64) -> Option<u64> {
        self.failures += 1;
        let one = self.all.entry(to).or_default();
        self.order.remove(&one.number);
        if one.failed < old {
            one.row = Row::default();
        }
        (one.number, one.failed) = (self.failures, now);
        let end = one.row.failed(eject, whose, now);
        self.order.insert(self.failures, to);
        while self.all.len() > MOST {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.all.remove(&oldest);
        }
        end
    }

    fn forget(&mut self, to: Endpoint) {
        if let Some(one) = self.all.remove(&to) {
            self.order.remove(&one.number);
        }
    }

    /// Forgets those that failed last before this time, the oldest ones first.
    fn forget_before(&mut self, old: u64) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some(oldest) = self.order.values().next().copied() else { return };
            if self.all.get(&oldest).is_some_and(|one| one.failed >= old) {
                return;
            }
            self.forget(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::mpsc;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::config::model::Transport::{Tcp, Udp};
    use crate::upstream::condition::{Condition, Standing};
    use crate::upstream::extent::Extent;

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
        Failed { by: Tcp, seen: None, client: CLIENT.parse().expect("an address"), to, is_refusal: false }
    }

    fn seen(client: &str, to: SocketAddr) -> Failed {
        let client = client.parse().expect("an address");
        Failed { seen: Some(client), client, ..silent(to) }
    }

    fn rests_by(by: Transport, hosts: &Condition, to: SocketAddr, now: Instant) -> bool {
        hosts.part(by, vec![to], now) == (vec![], vec![to])
    }

    fn rests(hosts: &Condition, to: SocketAddr, now: Instant) -> bool {
        rests_by(Tcp, hosts, to, now)
    }

    #[test]
    fn the_endpoint_that_failed_rests_and_no_other_one_of_its_host() {
        let now = Instant::now();
        let hosts = hosts(2, now);
        assert_eq!(hosts.failed_at(silent(at(1)), now), None);
        assert!(!rests(&hosts, at(1), now), "as many as the file says");
        assert_eq!(hosts.failed_at(silent(at(1)), now), Some(Change::Ejected));
        assert!(rests(&hosts, at(1), now) && !rests(&hosts, at(2), now));
        assert!(!rests(&hosts, SocketAddr::new(at(1).ip(), 444), now), "another port");
        assert_eq!((hosts.resting(now), hosts.standing(now)), (1, Standing::Usable));
        assert!(!rests(&hosts, at(1), now + REST));
        assert_eq!(hosts.failed_at(silent(at(1)), now + REST), Some(Change::Ejected), "it is on trial");
    }

    #[test]
    fn an_endpoint_that_takes_a_client_or_whose_port_is_closed_has_never_failed() {
        let now = Instant::now();
        let hosts = hosts(2, now);
        let closed = Failed { is_refusal: true, ..silent(at(1)) };
        for lives in [
            |hosts: &Condition, _, now| hosts.connected_at(Tcp, at(1), now),
            |hosts: &Condition, closed, now| {
                assert_eq!(hosts.failed_at(closed, now), None);
            },
        ] {
            hosts.failed_at(silent(at(1)), now);
            lives(&hosts, closed, now);
            assert_eq!(hosts.failed_at(silent(at(1)), now), None, "no longer in a row");
            assert_eq!(hosts.failed_at(silent(at(1)), now), Some(Change::Ejected));
            lives(&hosts, closed, now);
            assert!(!rests(&hosts, at(1), now), "its rest is over");
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
        assert!((0..9).all(|_| hosts.failed_at(silent(at(1)), now).is_none()) && !rests(&hosts, at(1), now));
    }

    #[test]
    fn however_many_hosts_clients_name_a_bounded_number_is_known_and_the_last_ones_stay() {
        let now = Instant::now();
        let endpoints = Endpoints::new(Ejection { failures: NonZeroU32::MIN, duration: REST }, now);
        for number in 0..3 * MOST {
            endpoints.failed(silent(at(number)), now);
            endpoints.failed(silent(at(0)), now);
            let noted = endpoints.lock();
            assert!(noted.all.len() <= MOST && noted.order.len() == noted.all.len());
        }
        assert_eq!((endpoints.resting(now), endpoints.count.load(Relaxed)), (MOST, MOST));
        let rest = [0, 1, 2 * MOST, 3 * MOST - 1].map(|number| endpoints.part(Tcp, vec![at(number)], now).0.is_empty());
        assert_eq!(rest, [true, false, false, true], "by their last failures");
    }

    #[test]
    fn neither_transport_speaks_for_the_other() {
        let now = Instant::now();
        for (fails, other) in [(Tcp, Udp), (Udp, Tcp)] {
            let hosts = hosts(2, now);
            hosts.failed_at(Failed { by: fails, ..silent(at(1)) }, now);
            assert_eq!(hosts.failed_at(Failed { by: other, ..silent(at(1)) }, now), None, "of no row with the first");
            hosts.failed_at(Failed { by: other, is_refusal: true, ..silent(at(1)) }, now);
            hosts.connected_at(other, at(1), now);
            assert_eq!(hosts.failed_at(Failed { by: fails, ..silent(at(1)) }, now), Some(Change::Ejected));
            hosts.connected_at(other, at(1), now);
            assert_eq!([fails, other].map(|by| rests_by(by, &hosts, at(1), now)), [true, false], "{fails:?}");
        }
    }

    #[test]
    fn those_that_rest_are_parted_from_the_others_in_one_look_and_none_is_needed_while_none_rests() {
        let now = Instant::now();
        let endpoints =
            Endpoints::new(Ejection { failures: NonZeroU32::new(2).expect("not zero"), duration: REST }, now);
        let all: Vec<_> = (0..40).map(at).collect();
        all.iter().for_each(|to| assert_eq!(endpoints.failed(silent(*to), now), None));
        let asks_nobody = |now| {
            thread::scope(|scope| {
                let held = endpoints.lock();
                let (tell, told) = mpsc::channel();
                let (endpoints, all) = (&endpoints, &all);
                scope.spawn(move || tell.send((endpoints.part(Tcp, all.clone(), now), endpoints.resting(now))));
                let answer = told.recv_timeout(Duration::from_secs(30));
                drop(held);
                answer == Ok(((all.clone(), vec![]), 0))
            })
        };
        assert!(asks_nobody(now));
        all.iter().step_by(2).for_each(|to| assert_eq!(endpoints.failed(silent(*to), now), Some(Change::Ejected)));
        let resting: Vec<_> = all.iter().step_by(2).copied().collect();
        let awake: Vec<_> = all.iter().skip(1).step_by(2).copied().collect();
        assert_eq!(endpoints.part(Tcp, all.clone(), now), (awake, resting));
        assert!(asks_nobody(now + REST), "no longer");
    }

    #[test]
    fn what_has_not_failed_for_some_rests_is_forgotten_though_it_never_took_a_client() {
        let begun = Instant::now();
        let endpoints =
            Endpoints::new(Ejection { failures: NonZeroU32::new(2).expect("not zero"), duration: REST }, begun);
        let some = u32::try_from(RESTS).expect("few");
        let (kept, gone) = (begun + REST * some, begun + REST * (some + 1));
        (0..10).for_each(|number| assert_eq!(endpoints.failed(silent(at(number)), begun), None));
        assert_eq!(endpoints.failed(silent(at(9)), kept), Some(Change::Ejected), "for so long it is one row");
        let count = || endpoints.count.load(Relaxed);
        endpoints.connected(Tcp, at(99), gone);
        assert_eq!(count(), 10 - FORGOTTEN_AT_ONCE, "so many at one look");
        (0..2).for_each(|_| endpoints.connected(Tcp, at(99), gone));
        assert_eq!((count(), endpoints.lock().order.len()), (1, 1), "those of which it is long ago, and no other");
        endpoints.connected(Tcp, at(99), gone + REST * some);
        assert_eq!(count(), 0);
        let [first, late] = [begun, gone].map(|now| endpoints.failed(silent(at(1)), now));
        assert_eq!((first, late), (None, None), "another row");
    }
}
