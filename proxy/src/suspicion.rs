//! A circle that the file does not know of: as many connections come from one source as may, while targets at that very source
//! are dialled at the port of a listener. That is told, and no more: who is visited may also visit.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::OnceLock;

use crate::admission::SourceKey;

/// Sources of which it is remembered that they are dialled; a later one takes the place of another.
const PLACES: usize = 64;

/// What is suspected under one configuration, by all of its workers.
#[derive(Debug)]
pub(crate) struct Suspicion {
    dialled: [AtomicU64; PLACES],
    suspect: OnceLock<IpAddr>,
    is_told: AtomicBool,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self {
            dialled: std::array::from_fn(|_| AtomicU64::default()),
            suspect: OnceLock::new(),
            is_told: AtomicBool::new(false),
        }
    }
}

impl Suspicion {
    /// A target at the port of a listener is dialled at this address.
    pub(crate) fn dialled(&self, to: IpAddr) {
        let number = SourceKey::of(to).number();
        // Mostly it is there: then workers share the line of their caches.
        if let Some(place) = self.place(number).filter(|place| place.load(Ordering::Relaxed) != number) {
            place.store(number, Ordering::Relaxed);
        }
    }

    /// As many come from this address as may.
    pub(crate) fn is_full(&self, from: IpAddr) {
        let number = SourceKey::of(from).number();
        if self.place(number).is_some_and(|place| place.load(Ordering::Relaxed) == number) {
            let _ = self.suspect.set(from.to_canonical()); // the first is told of
        }
    }

    /// The first address that is suspected; once.
    pub(crate) fn to_tell(&self) -> Option<IpAddr> {
        let suspect = self.suspect.get()?;
        (!self.is_told.swap(true, Ordering::Relaxed)).then_some(*suspect)
    }

    fn place(&self, number: u64) -> Option<&AtomicU64> {
        // Addresses of one network differ in their last bits: of IPv4 here, of IPv6 a household's prefix.
        usize::try_from(number % PLACES as u64).ok().and_then(|at| self.dialled.get(at))
    }
}

/// What to say of a suspect.
pub(crate) fn told_of(suspect: IpAddr) -> String {
    format!(
        "as many come from {suspect} as one source may, and targets are dialled there at the port of a listener: if that \
         address leads back here, say so in targets.own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_is_dialled_and_comes_too_often_is_suspected_and_nobody_else() {
        let suspicion = Suspicion::default();
        suspicion.is_full(ip("203.0.113.10"));
        assert_eq!(suspicion.to_tell(), None, "nobody was dialled");
        suspicion.dialled(ip("203.0.113.10"));
        suspicion.is_full(ip("203.0.113.11"));
        suspicion.is_full(ip("203.0.113.74")); // has the same place
        suspicion.is_full(ip("2001:db8::10"));
        assert_eq!(suspicion.to_tell(), None, "others were dialled");
        suspicion.is_full(ip("::ffff:203.0.113.10"));
        assert_eq!(suspicion.to_tell(), Some(ip("203.0.113.10")));
        suspicion.dialled(ip("2001:db8::10"));
        suspicion.is_full(ip("2001:db8::11"));
        assert_eq!(suspicion.to_tell(), None, "the first is told of, once");
    }

    #[test]
    fn of_ipv6_a_prefix_is_one_source() {
        let suspicion = Suspicion::default();
        suspicion.dialled(ip("2001:db8:a::10"));
        suspicion.is_full(ip("2001:db8:b::10"));
        assert_eq!(suspicion.to_tell(), None);
        suspicion.is_full(ip("2001:db8:a::11"));
        assert_eq!(suspicion.to_tell(), Some(ip("2001:db8:a::11")));
    }

    #[test]
    fn a_later_one_takes_the_place_of_another() {
        let suspicion = Suspicion::default();
        suspicion.dialled(ip("203.0.113.10"));
        suspicion.dialled(ip("203.0.113.74"));
        suspicion.is_full(ip("203.0.113.10"));
        assert_eq!(suspicion.to_tell(), None);
        suspicion.is_full(ip("203.0.113.74"));
        assert!(told_of(suspicion.to_tell().unwrap()).contains("from 203.0.113.74 "));
    }
}
