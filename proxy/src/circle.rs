//! Connections that come back: each has an identifier, which goes to the next proxy with its header, and is known for as long as
//! it lives. Where two proxies lead to each other, the first of them meets its own at the same listener again; one that comes back
//! to another listener of this proxy is only led on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::operation::unique_id::UniqueId;

/// Identifiers are kept in so many tables, so that workers seldom meet at one lock.
const SHARDS: usize = 16;

/// Where and from whom a connection came that was sent on.
#[derive(Debug, PartialEq, Eq)]
struct Pass {
    /// The listener's name, which a reload leaves as it is.
    listener: Box<str>,
    /// The peer that brought the identifier; `None`: it was made here.
    from: Option<IpAddr>,
}

impl Pass {
    fn of(id: &UniqueId, listener: &str, peer: IpAddr) -> Self {
        Self { listener: listener.into(), from: matches!(id, UniqueId::Given(_)).then_some(peer) }
    }
}

/// Identifiers, each with its passes through this proxy: seldom two.
type Passes = HashMap<Box<[u8]>, Vec<Pass>>;

/// Identifiers that were sent on, of connections that live. Shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct Circle([Mutex<Passes>; SHARDS]);

impl Circle {
    /// It is sent on, until [`Self::forget`].
    pub(crate) fn sent(&self, id: &UniqueId, listener: &str, peer: IpAddr) {
        let Some(mut known) = self.shard(id.bytes()) else { return };
        let (passes, pass) = (known.entry(id.bytes().into()).or_default(), Pass::of(id, listener, peer));
        if !passes.contains(&pass) {
            passes.push(pass);
        }
    }

    /// Its connection has ended.
    pub(crate) fn forget(&self, id: &UniqueId, listener: &str, peer: IpAddr) {
        let Some(mut known) = self.shard(id.bytes()) else { return };
        let Some(passes) = known.get_mut(id.bytes()) else { return };
        let gone = Pass::of(id, listener, peer);
        passes.retain(|pass| *pass != gone);
        if passes.is_empty() {
            known.remove(id.bytes());
        }
    }

    /// Whether what a peer's header brings is of a connection that was at this listener before. One that was made here can come
    /// from nowhere else. One of another's making should be unlike all others, too; where a peer's are not, it brings them all
    /// itself.
    pub(crate) fn comes_back(&self, given: &[u8], listener: &str, peer: IpAddr) -> bool {
        let Some(known) = self.shard(given) else { return false };
        let Some(passes) = known.get(given) else { return false };
        passes.iter().any(|pass| *pass.listener == *listener) && passes.iter().any(|pass| pass.from != Some(peer))
    }

    fn shard(&self, id: &[u8]) -> Option<MutexGuard<'_, Passes>> {
        // Whoever chooses identifiers chooses where they are, which only makes workers wait.
        let place = id.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        Some(self.0.get(place % SHARDS)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn an_identifier_that_was_made_here_comes_back_from_whomever_while_its_connection_lives() {
        let circle = Circle::default();
        let own = UniqueId::Own([7; 16]);
        assert!(!circle.comes_back(own.bytes(), "tls", ONE));
        circle.sent(&own, "tls", ONE);
        assert!(circle.comes_back(own.bytes(), "tls", ONE) && circle.comes_back(own.bytes(), "tls", OTHER));
        assert!(!circle.comes_back(&[8; 16], "tls", OTHER) && !circle.comes_back(&[7; 15], "tls", OTHER));
        circle.forget(&own, "tls", ONE);
        assert!(!circle.comes_back(own.bytes(), "tls", OTHER));
        assert!(circle.0.iter().all(|shard| shard.lock().expect("no panic").is_empty()));
    }

    #[test]
    fn one_that_a_peer_made_comes_back_from_another_peer_alone() {
        let circle = Circle::default();
        for id in [b"x".as_slice(), &[7; 16], &[1; 128]] {
            let given = UniqueId::Given(id.into());
            circle.sent(&given, "tls", ONE);
            assert!(!circle.comes_back(id, "tls", ONE), "a peer whose identifiers are alike is no circle");
            assert!(circle.comes_back(id, "tls", OTHER));
            circle.forget(&given, "tls", ONE);
            assert!(!circle.comes_back(id, "tls", OTHER));
        }
    }

    #[test]
    fn another_listener_leads_on_once() {
        for first in [UniqueId::Own([7; 16]), UniqueId::Given([7; 16].into())] {
            let (circle, again) = (Circle::default(), UniqueId::Given([7; 16].into()));
            circle.sent(&first, "tls", ONE);
            assert!(!circle.comes_back(&[7; 16], "plain", OTHER));
            circle.sent(&again, "plain", OTHER);
            assert!(circle.comes_back(&[7; 16], "plain", OTHER), "the same peer, and yet no identifier of its making");
            assert!(circle.comes_back(&[7; 16], "tls", OTHER));
            circle.forget(&again, "plain", OTHER);
            assert!(!circle.comes_back(&[7; 16], "plain", OTHER) && circle.comes_back(&[7; 16], "tls", OTHER));
            circle.forget(&first, "tls", ONE);
            assert!(circle.0.iter().all(|shard| shard.lock().expect("no panic").is_empty()));
        }
    }
}
