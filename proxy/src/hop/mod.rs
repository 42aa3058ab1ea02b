//! Keys that this host shares with the next hop or the one before: files of them, signing, and the judgement of signatures.

mod key_file;
mod look;
mod rings;
mod used;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use crate::operation::outcomes::SignatureFault;
use crate::wire::signature::{self, HopKey, Stamp, Unsigned};

pub(crate) use key_file::{faults, load, KeyFault, Loaded};
pub(crate) use look::look;
pub(crate) use rings::{Inherited, Rings};
use used::{Refused, Used};

/// How far the clocks of two hops may be apart, and how long a header may take: a signature is right for so long, and from so
/// long before it was made.
pub(crate) const WINDOW: Duration = Duration::from_secs(30);

/// A flow of datagrams signs its header anew after so long, which leaves the rest of [`WINDOW`] to the clocks.
pub(crate) const SIGNED_ANEW: Duration = Duration::from_secs(5);

/// Of clocks that are apart it is told so often.
const TOLD: Duration = Duration::from_secs(60);

/// The keys of one file. The first signs, each verifies. A reload puts others in their place, for connections and flows too that
/// began before it.
#[derive(Debug)]
pub(crate) struct Ring {
    keys: RwLock<Arc<[Held]>>,
    nonces: Nonces,
    apart: Mutex<Apart>,
}

/// A key, and what was signed with it and taken.
#[derive(Debug, Clone)]
struct Held {
    key: HopKey,
    used: Arc<Used>,
}

/// Whether a header may come again: before each datagram of a flow it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coming {
    Once,
    Again,
}

impl Ring {
    fn new(keys: Arc<[Held]>) -> Self {
        Self { keys: RwLock::new(keys), nonces: Nonces::default(), apart: Mutex::default() }
    }

    fn set(&self, keys: Arc<[Held]>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn keys(&self) -> Arc<[Held]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the next header is signed with.
    pub(crate) fn signer(&self) -> Option<(HopKey, Stamp)> {
        let stamp = Stamp { time: now(), nonce: self.nonces.next() };
        self.keys().first().map(|held| (held.key.clone(), stamp))
    }

    /// Whether one whole header of a peer is signed with one of the keys, in time, and if it comes once, for the first time.
    ///
    /// # Errors
    ///
    /// Why it is not to be believed.
    pub(crate) fn judge(&self, header: &[u8], coming: Coming, peer: IpAddr) -> Result<(), SignatureFault> {
        self.judge_at(header, coming, peer, now())
    }

    fn judge_at(&self, header: &[u8], coming: Coming, peer: IpAddr, now: u64) -> Result<(), SignatureFault> {
        let signature = signature::read(header).map_err(|why| match why {
            Unsigned::Absent => SignatureFault::Unsigned,
            Unsigned::Malformed => SignatureFault::Wrong,
        })?;
        let keys = self.keys();
        let held = keys.iter().find(|held| held.key.has_signed(header, &signature)).ok_or(SignatureFault::Wrong)?;
        let stamp = signature.stamp;
        let taken = match coming {
            _ if stamp.time.abs_diff(now) > millis(WINDOW) => Err(Refused::Stale),
            Coming::Once => held.used.take(stamp, now),
            Coming::Again => Ok(()),
        };
        taken.map_err(|why| match why {
            Refused::Stale => {
                self.note_apart(peer, stamp.time, now);
                SignatureFault::Stale
            }
            Refused::Replayed => SignatureFault::Replayed,
        })
    }

    fn note_apart(&self, peer: IpAddr, signed: u64, now: u64) {
        let mut apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        apart.last = Some((peer, signed, now));
    }

    /// What to say of the last header whose time was wrong; now and then.
    pub(crate) fn to_tell(&self) -> Option<String> {
        self.to_tell_at(now())
    }

    fn to_tell_at(&self, now: u64) -> Option<String> {
        let mut apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        if apart.told.is_some_and(|told| now.abs_diff(told) < millis(TOLD)) {
            return None;
        }
        let (peer, signed, heard) = apart.last.take()?;
        apart.told = Some(now);
        let seconds = Duration::from_millis(signed.abs_diff(heard)).as_secs_f64();
        let side = if signed < heard { "before" } else { "after" };
        let why = if signed.abs_diff(heard) > millis(WINDOW) {
            format!("at most {} s are taken: see that the clocks of both hosts are right", WINDOW.as_secs())
        } else {
            "it is older than what this process remembers of those that it has taken: if this goes on, that clock is behind"
                .to_owned()
        };
        Some(format!("a PROXY header of {peer} was signed {seconds:.1} s {side} it came, by this host's clock; {why}"))
    }
}

#[derive(Debug, Default)]
struct Apart {
    /// A peer, when it has signed by its clock, and when that came by this host's.
    last: Option<(IpAddr, u64, u64)>,
    told: Option<u64>,
}

/// Numbers of which no two are alike: SipHash of a counter under a key that the standard library draws from the kernel.
#[derive(Debug, Default)]
struct Nonces {
    halves: [RandomState; 2],
    drawn: AtomicU64,
}

impl Nonces {
    fn next(&self) -> [u8; 16] {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut nonce = [0; 16];
        for (half, place) in self.halves.iter().zip(nonce.chunks_exact_mut(8)) {
            place.copy_from_slice(&half.hash_one(number).to_be_bytes());
        }
        nonce
    }
}

/// Whether a signature that was made then is to be made anew.
pub(crate) fn is_old(signed: u64) -> bool {
    now().abs_diff(signed) >= millis(SIGNED_ANEW)
}

/// Milliseconds since 1970: two hosts have no other clock in common.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
