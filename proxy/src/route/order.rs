//! In which order the candidates of a backend are tried.

use std::cmp::Reverse;
use std::hash::Hasher;
use std::net::IpAddr;

use crate::config::model::{Balance, Host, NamePart, Target, TargetPort};

/// What is known of one target of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Checks and recent connects speak for it.
    pub healthy: bool,
    /// Connections of this proxy to it.
    pub connections: usize,
    /// Its [`key`].
    pub key: u64,
}

/// The indices of all candidates in the order in which they are tried. Those that are not healthy come last, in the same
/// order, and never not at all: when all seem to be down, the checks may be what is wrong.
///
/// `turn` is a counter of the backend, one more for each client.
#[must_use]
pub fn order(balance: Balance, candidates: &[Candidate], turn: u64, client: IpAddr) -> Vec<usize> {
    let numbered = candidates.iter().copied().enumerate();
    let (mut healthy, mut others): (Vec<_>, Vec<_>) = numbered.partition(|(_, candidate)| candidate.healthy);
    for group in [&mut healthy, &mut others] {
        arrange(balance, group, turn, client);
    }
    healthy.into_iter().chain(others).map(|(index, _)| index).collect()
}

/// What a target is known by in the consistent order of [`Balance::SourceHash`]: the same in every process, and whatever
/// other targets the backend has.
#[must_use]
pub fn key(target: &Target) -> u64 {
    let mut hash = Fnv::default();
    match &target.host {
        Host::Address(address) => hash.write(address.to_string().as_bytes()),
        Host::Name(parts) => parts.iter().for_each(|part| match part {
            NamePart::Literal(text) => hash.write(text.as_bytes()),
            NamePart::Capture(group) => {
                hash.write(b"$");
                hash.write(group.as_bytes());
            }
        }),
    }
    match target.port {
        TargetPort::Fixed(port) => hash.write(&port.to_be_bytes()),
        TargetPort::Original => hash.write(b"$port"),
    }
    hash.finish()
}

fn arrange(balance: Balance, group: &mut [(usize, Candidate)], turn: u64, client: IpAddr) {
    match balance {
        Balance::InOrder => {}
        Balance::RoundRobin => rotate(group, turn),
        Balance::LeastConnections => {
            rotate(group, turn); // equals take turns: the sort is stable
            group.sort_by_key(|(_, candidate)| candidate.connections);
        }
        Balance::SourceHash => group.sort_by_key(|(_, candidate)| Reverse(weight(candidate.key, client))),
    }
}

fn rotate(group: &mut [(usize, Candidate)], turn: u64) {
    let length = u64::try_from(group.len()).unwrap_or(u64::MAX);
    let by = turn.checked_rem(length).and_then(|by| usize::try_from(by).ok());
    group.rotate_left(by.unwrap_or(0));
}

/// Highest random weight (Thaler and Ravishankar, 1998): each client ranks the targets for itself, so that one target
/// more or less moves only the clients of that target. A client is an IPv4 address or an IPv6 /64, in which hosts change
/// their address as they please (RFC 8981).
fn weight(key: u64, client: IpAddr) -> u64 {
    let mut hash = Fnv::default();
    match client.to_canonical() {
        IpAddr::V4(v4) => hash.write(&v4.octets()),
        IpAddr::V6(v6) => v6.octets().iter().take(8).for_each(|octet| hash.write_u8(*octet)),
    }
    mixed(hash.finish() ^ key)
}

/// FNV-1a with 64 bits; the standard library's hasher may change from release to release.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        mixed(self.0)
    }
}

/// The finaliser of MurmurHash3: each bit of the input moves half of the output's.
fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
