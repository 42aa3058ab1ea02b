//! Sources that are refused at accept: prefixes with an end, fed by the configuration and by the admin socket.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// Prefixes that the admin socket may add.
pub const MOST_DENIED: usize = 65_536;

/// The list cannot take what was asked for; nothing of it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deny list holds {held} prefixes and takes no {asked} more; at most {MOST_DENIED} are allowed")]
pub struct DenyListFull {
    /// Prefixes that it holds.
    pub held: usize,
    /// Prefixes that it was to take.
    pub asked: usize,
}

/// The list as the control thread has it. Workers see each change at their next connection.
#[derive(Debug)]
pub struct DenyList {
    fixed: Vec<IpNet>,
    added: BTreeMap<IpNet, Instant>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Grows with each change, after the snapshot was replaced.
    version: AtomicU64,
    current: Mutex<Arc<Snapshot>>,
}

impl Shared {
    fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, snapshot: Snapshot) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl DenyList {
    /// Of the configuration's prefixes.
    #[must_use]
    pub fn new(fixed: &[IpNet]) -> Self {
        let list = Self { fixed: fixed.to_vec(), added: BTreeMap::new(), shared: Arc::default() };
        list.publish();
        list
    }

    /// For one worker.
    #[must_use]
    pub fn reader(&self) -> DenyReader {
        let version = self.shared.version.load(Ordering::Acquire);
        DenyReader { version, snapshot: self.shared.current(), shared: Arc::clone(&self.shared) }
    }

    /// Takes the prefixes of a new configuration in place of the former's; what was added stays.
    pub fn replace_fixed(&mut self, fixed: &[IpNet]) {
        self.fixed = fixed.to_vec();
        self.publish();
    }

    /// Refuses these until then. One that was added before gets the new end.
    pub fn deny(&mut self, prefixes: &[IpNet], until: Instant, now: Instant) -> Result<(), DenyListFull> {
        let held = self.added.len();
        self.added.retain(|_, until| *until > now);
        let nothing_ended = self.added.len() == held;
        let mut fresh: Vec<IpNet> = prefixes.iter().map(canonical).collect();
        fresh.sort_unstable();
        fresh.dedup();
        let asked = fresh.iter().filter(|prefix| !self.added.contains_key(prefix)).count();
        if self.added.len() + asked > MOST_DENIED {
            return Err(DenyListFull { held: self.added.len(), asked });
        }
        self.added.extend(fresh.iter().map(|prefix| (*prefix, until)));
        if nothing_ended {
            // A list that is fed one by one is not built anew each time: copying a table costs a fraction of it.
            let mut snapshot = Snapshot::clone(&self.shared.current());
            fresh.into_iter().for_each(|prefix| snapshot.insert(prefix, Some(until)));
            self.shared.replace(snapshot);
        } else {
            self.publish();
        }
        Ok(())
    }

    /// Takes out what was added; how many there were. The configuration's stay.
    pub fn undeny(&mut self, prefixes: &[IpNet]) -> usize {
        let found = prefixes.iter().filter(|prefix| self.added.remove(&canonical(prefix)).is_some()).count();
        self.publish();
        found
    }

    /// All that are refused at this moment: the configuration's first, then what was added with the time that is left.
    pub fn denied(&self, now: Instant) -> impl Iterator<Item = (IpNet, Option<Duration>)> + '_ {
        let added = self.added.iter().filter_map(move |(prefix, until)| {
            let left = until.checked_duration_since(now).filter(|left| !left.is_zero())?;
            Some((*prefix, Some(left)))
        });
        self.fixed.iter().map(|prefix| (*prefix, None)).chain(added)
    }

    fn publish(&self) {
        let added = self.added.iter().map(|(prefix, until)| (*prefix, Some(*until)));
        let mut snapshot = Snapshot::default();
        let fixed = self.fixed.iter().map(|prefix| (canonical(prefix), None));
        fixed.chain(added).for_each(|(prefix, until)| snapshot.insert(prefix, until));
        self.shared.replace(snapshot);
    }
}

/// One worker's view of the list: no lock but after a change, no allocation.
#[derive(Debug)]
pub struct DenyReader {
    shared: Arc<Shared>,
    version: u64,
    snapshot: Arc<Snapshot>,
}

impl DenyReader {
    /// Whether this source is refused now.
    pub fn is_denied(&mut self, source: IpAddr, now: Instant) -> bool {
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version {
            self.snapshot = self.shared.current();
            self.version = version;
        }
        self.snapshot.holds(source.to_canonical(), now)
    }
}

/// Prefixes by their length and first bits: a look-up costs one hash for each length in use.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    v4: HashMap<(u8, u32), Option<Instant>>,
    v4_lengths: Vec<u8>,
    v6: HashMap<(u8, u128), Option<Instant>>,
    v6_lengths: Vec<u8>,
}

impl Snapshot {
    /// What is refused for ever (`None`) stays so.
    fn insert(&mut self, prefix: IpNet, until: Option<Instant>) {
        let length = prefix.prefix_len();
        let later = |held: &mut Option<Instant>| *held = held.and(until);
        let lengths = match prefix {
            IpNet::V4(prefix) => {
                self.v4.entry((length, prefix.network().into())).and_modify(later).or_insert(until);
                &mut self.v4_lengths
            }
            IpNet::V6(prefix) => {
                self.v6.entry((length, prefix.network().into())).and_modify(later).or_insert(until);
                &mut self.v6_lengths
            }
        };
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }

    fn holds(&self, source: IpAddr, now: Instant) -> bool {
        let is_now = |until: &Option<Instant>| until.map_or(true, |until| until > now);
        match source {
            IpAddr::V4(source) => {
                let bits = u32::from(source);
                self.v4_lengths.iter().any(|length| {
                    let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
                    self.v4.get(&(*length, bits & mask)).is_some_and(is_now)
                })
            }
            IpAddr::V6(source) => {
                let bits = u128::from(source);
                self.v6_lengths.iter().any(|length| {
                    let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
                    self.v6.get(&(*length, bits & mask)).is_some_and(is_now)
                })
            }
        }
    }
}

/// The prefix without the bits of a host, and IPv4 as such: sources are looked up in this form.
fn canonical(prefix: &IpNet) -> IpNet {
    let IpNet::V6(v6) = prefix else { return prefix.trunc() };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(v4, length)| IpNet::new(v4.into(), length).ok()).map_or_else(|| prefix.trunc(), |v4| v4.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|prefix| prefix.parse().unwrap()).collect()
    }

    fn denied(reader: &mut DenyReader, source: &str, now: Instant) -> bool {
        reader.is_denied(source.parse().unwrap(), now)
    }

    #[test]
    fn prefixes_of_the_configuration_hold_for_ever_and_only_for_what_is_in_them() {
        let (list, now) = (DenyList::new(&nets("203.0.113.64/26 2001:db8:1::/48 192.0.2.1/32")), Instant::now());
        let mut reader = list.reader();
        for source in ["203.0.113.64", "203.0.113.127", "::ffff:203.0.113.64", "2001:db8:1:ffff::9", "192.0.2.1"] {
            assert!(denied(&mut reader, source, now + 999 * HOUR), "{source}");
        }
        for source in ["203.0.113.63", "203.0.113.128", "2001:db8:2::9", "192.0.2.2", "::1"] {
            assert!(!denied(&mut reader, source, now), "{source}");
        }
    }

    #[test]
    fn a_whole_family_can_be_refused() {
        let (list, now) = (DenyList::new(&nets("::/0")), Instant::now());
        assert!(denied(&mut list.reader(), "2001:db8::1", now));
        assert!(!denied(&mut list.reader(), "192.0.2.1", now));
    }

    #[test]
    fn what_was_added_ends_at_its_moment_without_anybody_doing_anything() {
        let (mut list, now) = (DenyList::new(&[]), Instant::now());
        let mut reader = list.reader();
        list.deny(&nets("198.51.100.7/32"), now + HOUR, now).unwrap();
        assert!(denied(&mut reader, "198.51.100.7", now + HOUR - Duration::from_nanos(1)));
        assert!(!denied(&mut reader, "198.51.100.7", now + HOUR));
        assert_eq!(list.denied(now).collect::<Vec<_>>(), [(nets("198.51.100.7/32")[0], Some(HOUR))]);
        assert_eq!(list.denied(now + HOUR).count(), 0);
    }

    #[test]
    fn changes_reach_readers_that_exist() {
        let (mut list, now) = (DenyList::new(&nets("192.0.2.0/24")), Instant::now());
        let mut reader = list.reader();
        list.deny(&nets("::ffff:198.51.100.0/120"), now + HOUR, now).unwrap();
        assert!(denied(&mut reader, "198.51.100.200", now));
        list.replace_fixed(&nets("10.0.0.0/8"));
        assert!(!denied(&mut reader, "192.0.2.9", now) && denied(&mut reader, "10.1.2.3", now));
        assert!(denied(&mut reader, "198.51.100.200", now), "what was added outlives a reload");
        assert_eq!(list.undeny(&nets("198.51.100.77/24 10.0.0.0/8")), 1);
        assert!(!denied(&mut reader, "198.51.100.200", now) && denied(&mut reader, "10.1.2.3", now));
    }

    #[test]
    fn an_entry_of_the_configuration_is_not_ended_by_an_added_one() {
        let (mut list, now) = (DenyList::new(&nets("192.0.2.0/24")), Instant::now());
        list.deny(&nets("192.0.2.0/24"), now + HOUR, now).unwrap();
        assert!(denied(&mut list.reader(), "192.0.2.9", now + 2 * HOUR));
        list.replace_fixed(&nets("192.0.2.0/24"));
        assert!(denied(&mut list.reader(), "192.0.2.9", now + 2 * HOUR));
    }

    #[test]
    fn the_last_word_on_an_added_prefix_holds() {
        let (mut list, now) = (DenyList::new(&[]), Instant::now());
        for hours in [2, 1] {
            list.deny(&nets("192.0.2.0/24"), now + hours * HOUR, now).unwrap();
            let mut reader = list.reader();
            assert!(denied(&mut reader, "192.0.2.9", now + hours * HOUR - Duration::from_secs(1)));
            assert!(!denied(&mut reader, "192.0.2.9", now + hours * HOUR));
        }
    }

    #[test]
    fn the_list_is_bounded_and_ended_entries_make_room() {
        let (mut list, now) = (DenyList::new(&[]), Instant::now());
        let many: Vec<IpNet> =
            (0..u32::try_from(MOST_DENIED).unwrap()).map(|n| IpNet::new(IpAddr::V4(n.into()), 32).unwrap()).collect();
        list.deny(&many, now + HOUR, now).unwrap();
        list.deny(&many[..9], now + HOUR, now).unwrap(); // nothing new
        let more = nets("192.0.2.0/24");
        assert_eq!(list.deny(&more, now + HOUR, now), Err(DenyListFull { held: MOST_DENIED, asked: 1 }));
        assert!(!denied(&mut list.reader(), "192.0.2.1", now));
        list.deny(&more, now + 2 * HOUR, now + HOUR).unwrap();
        assert_eq!(list.denied(now + HOUR).count(), 1);
    }

    proptest! {
        #[test]
        fn a_look_up_says_what_the_prefixes_say(
            prefixes in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..20),
            source in any::<u32>(),
        ) {
            let prefixes: Vec<IpNet> = prefixes
                .into_iter()
                // Near the source, or hardly any would hold it.
                .map(|(bits, length)| IpNet::new(IpAddr::V4((source ^ (bits >> 16)).into()), length).unwrap())
                .collect();
            let source = IpAddr::V4(source.into());
            let expected = prefixes.iter().any(|prefix| prefix.contains(&source));
            prop_assert_eq!(DenyList::new(&prefixes).reader().is_denied(source, Instant::now()), expected);
        }
    }
}
