//! Connections that come back: each has an identifier, which goes to the next proxy with its header, and is known for as long as
//! it lives. Where two proxies lead to each other, the first of them meets its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::operation::unique_id::UniqueId;

/// Identifiers are kept in so many tables, so that workers seldom meet at one lock.
const SHARDS: usize = 16;

/// Identifiers that were sent on, of connections that live, with the peer from which each came. Shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct Circle([Mutex<HashMap<UniqueId, IpAddr>>; SHARDS]);

impl Circle {
    /// It is sent on, until [`Self::forget`].
    pub(crate) fn sent(&self, id: &UniqueId, peer: IpAddr) {
        if let Some(mut known) = self.shard(id.bytes()) {
            known.insert(id.clone(), peer);
        }
    }

    /// Its connection has ended.
    pub(crate) fn forget(&self, id: &UniqueId) {
        if let Some(mut known) = self.shard(id.bytes()) {
            known.remove(id);
        }
    }

    /// Whether what a peer's header brings is of a connection that was here before. One that was made here can come from nowhere
    /// else. One of another's making should be unlike all others, too; where a peer's are not, it brings them all itself.
    pub(crate) fn comes_back(&self, given: &[u8], peer: IpAddr) -> bool {
        let Some(known) = self.shard(given) else { return false };
        let is_own = <[u8; 16]>::try_from(given).is_ok_and(|own| known.contains_key(&UniqueId::Own(own)));
        is_own || known.get(&UniqueId::Given(given.into())).is_some_and(|first| *first != peer)
    }

    fn shard(&self, id: &[u8]) -> Option<MutexGuard<'_, HashMap<UniqueId, IpAddr>>> {
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
        assert!(!circle.comes_back(own.bytes(), ONE));
        circle.sent(&own, ONE);
        assert!(circle.comes_back(own.bytes(), ONE) && circle.comes_back(own.bytes(), OTHER));
        assert!(!circle.comes_back(&[8; 16], OTHER) && !circle.comes_back(&[7; 15], OTHER));
        circle.forget(&own);
        assert!(!circle.comes_back(own.bytes(), OTHER));
        assert!(circle.0.iter().all(|shard| shard.lock().expect("no panic").is_empty()));
    }

    #[test]
    fn one_that_a_peer_made_comes_back_from_another_peer_alone() {
        let circle = Circle::default();
        for id in [b"x".as_slice(), &[7; 16], &[1; 128]] {
            let given = UniqueId::Given(id.into());
            circle.sent(&given, ONE);
            assert!(!circle.comes_back(id, ONE), "a peer whose identifiers are alike is no circle");
            assert!(circle.comes_back(id, OTHER));
            circle.forget(&given);
            assert!(!circle.comes_back(id, OTHER));
        }
    }
}
