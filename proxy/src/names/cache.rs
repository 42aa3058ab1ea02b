//! What was learnt of names, and until when it may be used. Pure: the time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::exchange::Fault;
use super::name::HostName;
use crate::config::model::Resolver;

/// After a failure nobody is asked for the name again for so long (RFC 9520 section 3.2: one second at least).
const FAILURE_REST: Duration = Duration::from_secs(1);

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its addresses, in the order in which they are to be tried.
    Addresses(Rc<[IpAddr]>),
    /// It exists, without addresses.
    NoAddresses,
    /// It does not exist.
    NoSuchName,
    /// No server answered; why the last one did not.
    Unanswered(Fault),
}

/// What the cache says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// This holds.
    Fresh(Known),
    /// These addresses have run out; they may be used where no server answers (RFC 8767).
    Stale {
        /// The addresses.
        addresses: Rc<[IpAddr]>,
        /// What asking anew can be expected to give.
        refresh: Refresh,
    },
}

/// Whether to ask anew for what has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// Nobody has asked yet: an answer is worth a wait.
    Untried,
    /// The last attempt failed: ask, but let nobody wait for it.
    Failing,
    /// It failed just now.
    Resting,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    learnt: Instant,
    holds: Duration,
    /// The last attempt to learn it anew, if that failed.
    failed: Option<Instant>,
    /// Its place in [`Cache::order`].
    used: u64,
}

/// A bounded cache. To look up, store and drop costs the logarithm of its size.
///
/// Invariant: `order` holds each entry exactly once, at its `used`.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<HostName, Entry>,
    order: BTreeMap<u64, HostName>,
    uses: u64,
    most: usize,
    min_ttl: Duration,
    max_ttl: Duration,
    negative: Duration,
    stale: Duration,
}

impl Cache {
    pub(crate) fn new(settings: &Resolver) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            most: settings.cache_entries.get(),
            min_ttl: settings.min_ttl,
            max_ttl: settings.max_ttl,
            negative: settings.negative,
            stale: settings.stale,
        }
    }

    /// What is known of `host`, which counts as a use of it.
    pub(crate) fn find(&mut self, host: &HostName, now: Instant) -> Found {
        let Some(entry) = self.entries.get_mut(host) else { return Found::Nothing };
        self.uses += 1;
        self.order.remove(&entry.used);
        self.order.insert(self.uses, host.clone());
        entry.used = self.uses;
        let age = now.saturating_duration_since(entry.learnt);
        if age < entry.holds {
            return Found::Fresh(entry.known.clone());
        }
        match &entry.known {
            Known::Addresses(addresses) if age - entry.holds < self.stale => {
                let refresh = match entry.failed {
                    None => Refresh::Untried,
                    Some(failed) if now.saturating_duration_since(failed) < FAILURE_REST => Refresh::Resting,
                    Some(_) => Refresh::Failing,
                };
                Found::Stale { addresses: Rc::clone(addresses), refresh }
            }
            Known::Addresses(_) | Known::NoAddresses | Known::NoSuchName | Known::Unanswered(_) => Found::Nothing,
        }
    }

    /// Remembers what servers say, which holds for `ttl` by their word. What failed to be learnt takes no place of
    /// addresses that may still be used.
    pub(crate) fn learn(&mut self, host: &HostName, known: Known, ttl: Duration, now: Instant) {
        if matches!(known, Known::Unanswered(_)) {
            if let Some(entry) = self.entries.get_mut(host) {
                let past = now.saturating_duration_since(entry.learnt).saturating_sub(entry.holds);
                if matches!(entry.known, Known::Addresses(_)) && past < self.stale {
                    entry.failed = Some(now);
                    return;
                }
            }
        }
        let holds = match known {
            Known::Addresses(_) => ttl.max(self.min_ttl).min(self.max_ttl),
            Known::NoAddresses | Known::NoSuchName => ttl.max(self.min_ttl).min(self.negative),
            Known::Unanswered(_) => FAILURE_REST,
        };
        self.uses += 1;
        let entry = Entry { known, learnt: now, holds, failed: None, used: self.uses };
        if let Some(replaced) = self.entries.insert(host.clone(), entry) {
            self.order.remove(&replaced.used);
        }
        self.order.insert(self.uses, host.clone());
        while self.entries.len() > self.most {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
