//! Who may come in: bounds on connections in all, at one listener, and from one source.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::circle::Circle;
use crate::config::model::SourcePrefixes;

/// Sources are counted in so many tables, so that workers seldom meet at one lock.
const SHARDS: usize = 32;

/// Who is counted as one source: an IPv4 address, or an IPv6 /64 (what one household is given at least, RFC 6177), unless the
/// file has shorter prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey(NonZeroU64);

impl SourceKey {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self::within(address, SourcePrefixes::default())
    }

    pub(crate) fn within(address: IpAddr, prefixes: SourcePrefixes) -> Self {
        let key = match address.to_canonical() {
            // Multicast addresses of IPv6, with which it would be one, are nobody's own (RFC 4291 section 2.7).
            IpAddr::V4(v4) => {
                let beyond = 32_u32.saturating_sub(prefixes.v4.into());
                0xffff_ffff << 32 | u64::from(u32::from(v4)) >> beyond << beyond
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                let first = [a, b, c, d].into_iter().fold(0, |prefix, part| prefix << 16 | u64::from(part));
                let beyond = 64_u32.saturating_sub(prefixes.v6.into()).min(63);
                first >> beyond << beyond
            }
        };
        // ::/64 holds no client, nor does the one after it.
        Self(NonZeroU64::new(key).unwrap_or(NonZeroU64::MIN))
    }

    /// As a number that is neither 0 nor the largest (255.255.255.255 is none).
    pub(crate) fn number(self) -> u64 {
        self.0.get().min(u64::MAX - 1)
    }
}

/// Which bound would be passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Total,
    Listener,
    Source,
}

/// The bounds of one configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) total: NonZeroUsize,
    pub(crate) listener: NonZeroUsize,
    pub(crate) source: NonZeroUsize,
    pub(crate) prefixes: SourcePrefixes,
}

/// What is in now. Shared by all workers, and kept across configurations.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    total: AtomicUsize,
    sources: Sources,
    /// Those of them of which it is not yet known where they lead.
    undecided: Sources,
    /// Those of which other proxies were told.
    pub(crate) circle: Circle,
}

/// How many there are of each source.
#[derive(Debug, Default)]
struct Sources([Mutex<HashMap<SourceKey, usize>>; SHARDS]);

/// How many are in at one listener.
pub(crate) type Occupancy = Arc<AtomicUsize>;

/// Which listener, across configurations: where its occupancy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ListenerKey(usize);

impl ListenerKey {
    pub(crate) fn of(occupancy: &Occupancy) -> Self {
        Self(Arc::as_ptr(occupancy) as usize)
    }
}

/// A place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    listener: Occupancy,
    /// Where it counts; not yet known while a PROXY header is awaited.
    source: Option<SourceKey>,
    is_undecided: bool,
}

impl Admission {
    /// A place for `source` at a listener, unless a bound would be passed.
    pub(crate) fn admit(
        self: &Arc<Self>,
        source: IpAddr,
        listener: &Occupancy,
        bounds: Bounds,
    ) -> Result<Permit, Bound> {
        let mut permit = self.admit_unnamed(listener, bounds)?;
        permit.name(source, bounds)?;
        Ok(permit)
    }

    /// A place at a listener for somebody whose PROXY header will say who it is: [`Permit::name`].
    pub(crate) fn admit_unnamed(self: &Arc<Self>, listener: &Occupancy, bounds: Bounds) -> Result<Permit, Bound> {
        take(&self.total, bounds.total).ok_or(Bound::Total)?;
        if take(listener, bounds.listener).is_none() {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Bound::Listener);
        }
        let (admission, listener) = (Arc::clone(self), Arc::clone(listener));
        Ok(Permit { admission, listener, source: None, is_undecided: false })
    }

    /// How many are in.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether a source has as many as it may.
    pub(crate) fn is_full(&self, source: IpAddr, bounds: Bounds) -> bool {
        let source = SourceKey::within(source, bounds.prefixes);
        let Some(Ok(shard)) = self.sources.shard(source).map(Mutex::lock) else { return true };
        shard.get(&source).is_some_and(|count| *count >= bounds.source.get())
    }
}

impl Sources {
    /// Counts one more of a source; how many it then has.
    fn count(&self, source: SourceKey) -> usize {
        let Some(Ok(mut shard)) = self.shard(source).map(Mutex::lock) else { return usize::MAX };
        let count = shard.entry(source).or_insert(0);
        *count += 1;
        *count
    }

    /// Counts one less.
    fn release(&self, source: SourceKey) {
        let Some(Ok(mut shard)) = self.shard(source).map(Mutex::lock) else { return };
        if let Entry::Occupied(mut entry) = shard.entry(source) {
            if *entry.get() <= 1 {
                entry.remove();
            } else {
                *entry.get_mut() -= 1;
            }
        }
    }

    fn shard(&self, source: SourceKey) -> Option<&Mutex<HashMap<SourceKey, usize>>> {
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        #[allow(clippy::cast_possible_truncation)] // less than SHARDS
        self.0.get((hasher.finish() % SHARDS as u64) as usize)
    }
}

/// One more, if that is within the bound.
fn take(count: &AtomicUsize, bound: NonZeroUsize) -> Option<usize> {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < bound.get()).then_some(now + 1)).ok()
}

impl Permit {
    /// Counts it as one of `source`, unless that would be one too many; once for each permit.
    pub(crate) fn name(&mut self, source: IpAddr, bounds: Bounds) -> Result<(), Bound> {
        let source = SourceKey::within(source, bounds.prefixes);
        // From here on dropping the permit gives the source's place back too, be it refused or not.
        self.source = Some(source);
        if self.admission.sources.count(source) > bounds.source.get() {
            return Err(Bound::Source);
        }
        Ok(())
    }

    /// Counts it as one that waits to be led on, until [`Self::is_decided`]; whether its source has no more than `most` of them.
    /// Of one without a name nobody can say.
    pub(crate) fn waits(&mut self, most: NonZeroUsize) -> bool {
        let Some(source) = self.source.filter(|_| !self.is_undecided) else { return true };
        self.is_undecided = true;
        self.admission.undecided.count(source) <= most.get()
    }

    /// It waits no longer.
    pub(crate) fn is_decided(&mut self) {
        if let Some(source) = self.source.filter(|_| self.is_undecided) {
            self.is_undecided = false;
            self.admission.undecided.release(source);
        }
    }

    /// Where it counts.
    pub(crate) fn listener(&self) -> ListenerKey {
        ListenerKey::of(&self.listener)
    }

    /// Whether nobody else comes in, whoever it is.
    pub(crate) fn is_last(&self, bounds: Bounds) -> bool {
        self.admission.total() >= bounds.total.get() || self.listener.load(Ordering::Relaxed) >= bounds.listener.get()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
        self.listener.fetch_sub(1, Ordering::Relaxed);
        self.is_decided();
        self.source.iter().for_each(|source| self.admission.sources.release(*source));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(total: usize, listener: usize, source: usize) -> Bounds {
        let bound = |n| NonZeroUsize::new(n).expect("not zero");
        Bounds {
            total: bound(total),
            listener: bound(listener),
            source: bound(source),
            prefixes: SourcePrefixes::default(),
        }
    }

    fn is_empty(sources: &Sources) -> bool {
        sources.0.iter().all(|shard| shard.lock().expect("no panic").is_empty())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_bound_holds_and_says_which_it_was() {
        for (bounds, bound) in
            [(bounds(1, 9, 9), Bound::Total), (bounds(9, 1, 9), Bound::Listener), (bounds(9, 9, 1), Bound::Source)]
        {
            let (admission, listener) = (Arc::new(Admission::default()), Occupancy::default());
            let first = admission.admit(address("192.0.2.1"), &listener, bounds).expect("room");
            let refused = admission.admit(address("192.0.2.1"), &listener, bounds).map(drop);
            assert_eq!(refused, Err(bound));
            drop(first);
            assert!(admission.admit(address("192.0.2.1"), &listener, bounds).is_ok(), "{bound:?}: room again");
            assert_eq!((admission.total(), listener.load(Ordering::Relaxed)), (0, 0));
            assert!(is_empty(&admission.sources));
        }
    }

    #[test]
    fn the_last_permit_knows_that_it_is() {
        let (admission, listener) = (Arc::new(Admission::default()), Occupancy::default());
        let permit = admission.admit(address("192.0.2.1"), &listener, bounds(9, 9, 9)).expect("room");
        for (bounds, is_last) in
            [(bounds(1, 9, 9), true), (bounds(9, 1, 9), true), (bounds(2, 2, 2), false), (bounds(9, 9, 1), false)]
        {
            assert_eq!(permit.is_last(bounds), is_last, "{bounds:?}");
        }
    }

    #[test]
    fn who_is_named_later_counts_from_then_on() {
        let (admission, listener, bounds) = (Arc::new(Admission::default()), Occupancy::default(), bounds(9, 9, 1));
        let mut permits: Vec<_> = (0..3).map(|_| admission.admit_unnamed(&listener, bounds).expect("room")).collect();
        assert_eq!(admission.total(), 3);
        let named = ["192.0.2.1", "192.0.2.2", "192.0.2.1"].map(address);
        let outcomes: Vec<_> = permits.iter_mut().zip(named).map(|(permit, name)| permit.name(name, bounds)).collect();
        assert_eq!(outcomes, [Ok(()), Ok(()), Err(Bound::Source)]);
        drop(permits);
        assert_eq!(admission.total(), 0);
        assert!(is_empty(&admission.sources));
    }

    #[test]
    fn those_of_a_source_who_wait_to_be_led_on_have_a_bound_of_their_own() {
        let (admission, listener, bounds) = (Arc::new(Admission::default()), Occupancy::default(), bounds(9, 9, 9));
        let most = NonZeroUsize::new(2).expect("not zero");
        let mut permits: Vec<_> =
            (0..3).map(|_| admission.admit(address("192.0.2.1"), &listener, bounds).expect("room")).collect();
        let waits: Vec<_> = permits.iter_mut().map(|permit| permit.waits(most)).collect();
        assert_eq!(waits, [true, true, false]);
        assert!(permits[0].waits(most), "it does already");
        permits.pop();
        permits[1].is_decided();
        let mut other = admission.admit(address("192.0.2.2"), &listener, bounds).expect("room");
        let mut next = admission.admit(address("192.0.2.1"), &listener, bounds).expect("room");
        assert!(next.waits(most) && other.waits(most));
        let mut unnamed = admission.admit_unnamed(&listener, bounds).expect("room");
        assert!((0..9).all(|_| unnamed.waits(most)));
        drop((permits, other, next, unnamed));
        assert!(is_empty(&admission.undecided) && is_empty(&admission.sources));
    }

    #[test]
    fn the_prefixes_of_the_file_make_a_source_and_it_is_given_back_as_it_was_taken() {
        let same = |(v4, v6), one, other| {
            let of = |text| SourceKey::within(address(text), SourcePrefixes { v4, v6 });
            of(one) == of(other)
        };
        assert!(same((24, 64), "192.0.2.1", "192.0.2.255") && !same((24, 64), "192.0.2.1", "192.0.3.1"));
        assert!(same((1, 64), "128.0.0.1", "255.0.0.1") && !same((1, 64), "1.0.0.1", "128.0.0.1"));
        assert!(same((32, 56), "2001:db8:0:1::1", "2001:db8:0:ff::1"));
        assert!(!same((32, 56), "2001:db8:0:1::1", "2001:db8:0:100::1"));
        assert!(same((32, 1), "2001:db8::1", "fd00::1") ^ same((32, 1), "2001:db8::1", "3fff::1"));
        assert!(!same((1, 1), "255.0.0.1", "fd00::1"));
        let (admission, listener) = (Arc::new(Admission::default()), Occupancy::default());
        let wide = Bounds { prefixes: SourcePrefixes { v4: 24, v6: 48 }, ..bounds(9, 9, 1) };
        let permit = admission.admit(address("192.0.2.1"), &listener, wide).expect("room");
        assert_eq!(admission.admit(address("192.0.2.2"), &listener, wide).map(drop), Err(Bound::Source));
        assert!(admission.is_full(address("192.0.2.3"), wide) && !admission.is_full(address("192.0.3.3"), wide));
        drop(permit);
        assert!(is_empty(&admission.sources));
    }

    #[test]
    fn a_household_of_ipv6_is_one_source_and_mapped_ipv4_is_ipv4() {
        let same = |one, other| SourceKey::of(address(one)) == SourceKey::of(address(other));
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("192.0.2.1", "0:0:c000:201::1"));
    }
}
