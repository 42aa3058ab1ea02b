//! What each inside address has: its number of sessions, its outside address, its block of ports.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::ports::Span;
use crate::settings::{Pooling, Settings};

/// A block of ports at an outside address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) address: Ipv4Addr,
    pub(crate) span: Span,
}

#[derive(Debug, Default)]
struct Subscriber {
    sessions: u32,
    block: Option<u32>,
}

/// All inside addresses with sessions.
#[derive(Debug)]
pub(crate) struct Subscribers {
    known: HashMap<Ipv4Addr, Subscriber>,
    holders: HashMap<u32, Ipv4Addr>,
    turn: usize,
}

impl Subscribers {
    pub(crate) fn new() -> Self {
        Self { known: HashMap::new(), holders: HashMap::new(), turn: 0 }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.holders.is_empty()
    }

    pub(crate) fn sessions_of(&self, inside: Ipv4Addr) -> u32 {
        self.known.get(&inside).map_or(0, |subscriber| subscriber.sessions)
    }

    pub(crate) fn add_session(&mut self, inside: Ipv4Addr) {
        self.known.entry(inside).or_default().sessions += 1;
    }

    /// With its last session an inside address gives its block back.
    pub(crate) fn remove_session(&mut self, inside: Ipv4Addr) {
        let Some(subscriber) = self.known.get_mut(&inside) else { return };
        subscriber.sessions = subscriber.sessions.saturating_sub(1);
        if subscriber.sessions == 0 {
            if let Some(block) = subscriber.block {
                self.holders.remove(&block);
            }
            self.known.remove(&inside);
        }
    }

    /// Forgets an inside address that got a block but no session.
    pub(crate) fn forget_idle(&mut self, inside: Ipv4Addr) {
        if self.sessions_of(inside) == 0 {
            self.remove_session(inside);
        }
    }

    /// The outside addresses that a new mapping may have, the preferred one first. Paired: always the same single one,
    /// computed from the inside address.
    pub(crate) fn addresses_for(&mut self, inside: Ipv4Addr, settings: &Settings) -> Vec<Ipv4Addr> {
        match settings.pooling {
            Pooling::Paired => paired(inside, &settings.addresses).into_iter().collect(),
            Pooling::Arbitrary => {
                let mut addresses = settings.addresses.clone();
                let count = addresses.len().max(1);
                addresses.rotate_left(self.turn % count);
                self.turn = self.turn.wrapping_add(1);
                addresses
            }
        }
    }

    /// The outside address of an inside one's forwards: always the same, with blocks that of its block.
    pub(crate) fn address_of_forward(&mut self, inside: Ipv4Addr, settings: &Settings) -> Option<Ipv4Addr> {
        let block = settings.block_size.and_then(|size| self.block_of(inside, size, settings));
        block.map(|block| block.address).or_else(|| paired(inside, &settings.addresses))
    }

    /// The block of an inside address. Its number is computed from the address (RFC 7422); where another holds that,
    /// the next free one. None when all are held.
    pub(crate) fn block_of(&mut self, inside: Ipv4Addr, size: u16, settings: &Settings) -> Option<Block> {
        let per_address = Span { first: settings.ports.first, last: settings.ports.last };
        let per_address = u32::from(per_address.last - per_address.first).saturating_add(1) / u32::from(size.max(1));
        let all = per_address * u32::try_from(settings.addresses.len()).ok()?;
        let number = match self.known.get(&inside).and_then(|subscriber| subscriber.block) {
            Some(number) => number,
            None if u32::try_from(self.holders.len()).map_or(true, |held| held >= all) => return None,
            None => {
                let wanted = u32::from(inside).checked_rem(all)?;
                (wanted..all).chain(0..wanted).find(|number| !self.holders.contains_key(number))?
            }
        };
        self.holders.insert(number, inside);
        self.known.entry(inside).or_default().block = Some(number);
        let address = settings.addresses.get(usize::try_from(number / per_address).ok()?)?;
        let offset = u16::try_from((number % per_address) * u32::from(size)).ok()?;
        let first = settings.ports.first.checked_add(offset)?;
        Some(Block { address: *address, span: Span { first, last: first.checked_add(size - 1)? } })
    }
}

fn paired(inside: Ipv4Addr, addresses: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let number = usize::try_from(u32::from(inside)).ok()?;
    addresses.get(number.checked_rem(addresses.len())?).copied()
}
