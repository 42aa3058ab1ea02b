//! Where QUIC flows live, by the connection ids that their servers chose: a datagram from an endpoint that nobody knows,
//! for a connection that is known, comes from a client whose address or port has changed (NAT rebinding, RFC 9000 section 9).
//!
//! The kernel gives a new endpoint to any of the workers, so all of them share what is known here, and hand datagrams over to
//! the one whose flow it is. A client that moves on purpose takes a connection id which was agreed upon under encryption
//! (NEW_CONNECTION_ID); nobody on the way can know it, and for such a one a new flow begins.
//!
//! Whoever knows a connection id, which each router on the way sees, can draw answers to where it claims to be, until the
//! client speaks again: the last endpoint heard from is the client's.

use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sniff::quic_header::{connection_ids, short_header_dcid, LONGEST_CONNECTION_ID};
use serde::{Deserialize, Serialize};

/// Shorter ids than these are met by chance. (Servers in use choose 4 bytes at least.)
const SHORTEST: usize = 4;

/// Places that are known at once; when they are taken, further flows cannot be followed.
const MOST_PLACES: usize = 64 * 1024;

/// Places of one flow: a server chooses one id in its first answer, and another one when it asks for a new beginning.
pub(crate) const MOST_OF_FLOW: usize = 4;

/// A connection id that a server may have chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ConnectionId {
    length: u8,
    bytes: [u8; LONGEST_CONNECTION_ID],
}

impl ConnectionId {
    fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; LONGEST_CONNECTION_ID];
        bytes.get_mut(..id.len()).filter(|_| id.len() >= SHORTEST)?.copy_from_slice(id);
        Some(Self { length: u8::try_from(id.len()).ok()?, bytes })
    }

    /// The id under which a server wants to be addressed, if its datagram says so.
    pub(crate) fn chosen_in(answer: &[u8]) -> Option<Self> {
        let (_, chosen) = connection_ids(answer)?;
        Self::new(chosen)
    }
}

/// How a flow can be found. What was hit belongs to it: ids of different servers may be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// By the id in a datagram.
    Connection { hit: SocketAddr, id: ConnectionId },
    /// By the endpoint to which it has moved, where that is another worker's.
    Endpoint { hit: SocketAddr, peer: SocketAddr },
}

/// Which flow: its worker, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) worker: usize,
    pub(crate) flow: u64,
}

/// What all workers know. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Homes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    /// How many places are known, for those who need not look.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    places: HashMap<Place, Home>,
    /// How many ids there are of each length: a short header does not tell it.
    lengths: [usize; LONGEST_CONNECTION_ID + 1],
}

impl Homes {
    /// Remembers a place; `false`: it is another flow's, or there are too many.
    pub(crate) fn learn(&self, place: Place, home: Home) -> bool {
        let mut known = self.known();
        if known.places.len() >= MOST_PLACES {
            return false;
        }
        let Entry::Vacant(vacant) = known.places.entry(place) else { return false };
        vacant.insert(home);
        known.count(place, |count| count + 1);
        self.0.count.store(known.places.len(), Ordering::Relaxed);
        true
    }

    /// Forgets it.
    pub(crate) fn forget(&self, place: &Place) {
        let mut known = self.known();
        if known.places.remove(place).is_some() {
            known.count(*place, |count| count.saturating_sub(1));
            self.0.count.store(known.places.len(), Ordering::Relaxed);
        }
    }

    /// The flow to which a datagram belongs that came from an endpoint without one.
    pub(crate) fn find(&self, peer: SocketAddr, hit: SocketAddr, datagram: &[u8]) -> Option<Home> {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let known = self.known();
        if let Some(home) = known.places.get(&Place::Endpoint { hit, peer }) {
            return Some(*home);
        }
        let at = |id| known.places.get(&Place::Connection { hit, id }).copied();
        if let Some((destination, _)) = connection_ids(datagram) {
            return ConnectionId::new(destination).and_then(at);
        }
        let lengths = known.lengths.iter().enumerate().filter(|(_, count)| **count > 0);
        lengths.filter_map(|(length, _)| ConnectionId::new(short_header_dcid(datagram, length)?)).find_map(at)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn count(&mut self, place: Place, change: impl Fn(usize) -> usize) {
        let length = match place {
            Place::Connection { id, .. } => usize::from(id.length),
            Place::Endpoint { .. } => return,
        };
        if let Some(count) = self.lengths.get_mut(length) {
            *count = change(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn long(destination: &[u8], source: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0xc0, 0, 0, 0, 1];
        for id in [destination, source] {
            datagram.push(u8::try_from(id.len()).expect("short"));
            datagram.extend(id);
        }
        datagram.extend([0; 30]);
        datagram
    }

    const HOME: Home = Home { worker: 1, flow: 7 };

    #[test]
    fn a_datagram_is_known_by_the_id_that_its_server_chose_in_either_header_where_it_was_hit() {
        for id in [b"1234".as_slice(), b"12345678", &[7; 20]] {
            let homes = Homes::default();
            let (hit, peer) = (at("192.0.2.1:443"), at("203.0.113.7:4242"));
            let chosen = ConnectionId::chosen_in(&long(b"client", id)).expect("a long header");
            assert!(homes.learn(Place::Connection { hit, id: chosen }, HOME));
            let short = [b"\x40".as_slice(), id, b"sealed"].concat();
            for datagram in [&short, &long(id, b"client")] {
                assert_eq!(homes.find(peer, hit, datagram), Some(HOME));
                assert_eq!(homes.find(peer, at("192.0.2.2:443"), datagram), None, "another address");
            }
            for other in
                [long(b"87654321", id), b"\x40unknown and more than twenty".to_vec(), short[..id.len()].to_vec()]
            {
                assert_eq!(homes.find(peer, hit, &other), None);
            }
            homes.forget(&Place::Connection { hit, id: chosen });
            assert_eq!(homes.find(peer, hit, &short), None);
            assert_eq!(homes.known().lengths, [0; LONGEST_CONNECTION_ID + 1]);
        }
    }

    #[test]
    fn ids_that_are_met_by_chance_are_not_learned() {
        for length in 0..SHORTEST {
            assert_eq!(ConnectionId::chosen_in(&long(b"client", &vec![1; length])), None);
        }
        assert_eq!(ConnectionId::chosen_in(b"\x40short header of a server"), None);
    }

    #[test]
    fn a_place_is_its_first_flows_and_places_are_bounded() {
        let homes = Homes::default();
        let (hit, other) = (at("192.0.2.1:443"), Home { worker: 0, flow: 8 });
        let place =
            |number: usize| Place::Endpoint { hit, peer: at(&format!("203.0.{}.{}:1", number >> 8, number & 255)) };
        assert!(homes.learn(place(0), HOME));
        assert!(!homes.learn(place(0), other));
        assert_eq!(homes.find(at("203.0.0.0:1"), hit, b"whatever it is"), Some(HOME));
        assert_eq!((1..MOST_PLACES).filter(|number| homes.learn(place(*number), HOME)).count(), MOST_PLACES - 1);
        assert!(!homes.learn(Place::Endpoint { hit, peer: at("203.0.113.7:4242") }, HOME));
    }
}
