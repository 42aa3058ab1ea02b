//! Which pairs of endpoints the UDP sockets of this process have: with SO_REUSEADDR the kernel would give one pair twice.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// From where, to where.
type Pair = (SocketAddr, SocketAddr);

/// The pairs in use. One for all workers of a process; clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct UdpEndpoints(Arc<Mutex<HashSet<Pair>>>);

/// A pair that is its holder's until this is dropped.
#[derive(Debug)]
pub struct Claim {
    pair: Pair,
    endpoints: UdpEndpoints,
}

impl UdpEndpoints {
    /// The pair, unless another holds it.
    #[must_use]
    pub fn claim(&self, from: SocketAddr, to: SocketAddr) -> Option<Claim> {
        let pair = (from, to);
        let is_new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pair);
        is_new.then(|| Claim { pair, endpoints: self.clone() })
    }
}

impl Claim {
    /// Its own end.
    pub(crate) fn from(&self) -> SocketAddr {
        self.pair.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.endpoints.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_given_once_until_it_is_given_back() {
        let endpoints = UdpEndpoints::default();
        let (from, to) = ("203.0.113.7:4242".parse().unwrap(), "127.0.0.1:53".parse().unwrap());
        let held = endpoints.claim(from, to).unwrap();
        let clone = endpoints.clone();
        assert!(clone.claim(from, to).is_none() && endpoints.claim(from, to).is_none());
        assert!(endpoints.claim(from, "127.0.0.1:54".parse().unwrap()).is_some());
        drop(held);
        assert!(endpoints.claim(from, to).is_some());
    }
}
