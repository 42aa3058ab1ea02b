//! Identifiers that join the log lines of one connection at each hop.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// An identifier: this proxy's own, or the one that a trusted peer's PROXY header brought.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UniqueId {
    /// Made here.
    Own([u8; 16]),
    /// Brought by a trusted peer: opaque, at most 128 bytes (PROXY protocol, `PP2_TYPE_UNIQUE_ID`).
    Given(Box<[u8]>),
}

impl UniqueId {
    /// The bytes that go into a PROXY header.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Given(bytes) => bytes,
        }
    }
}

impl fmt::Display for UniqueId {
    /// Two hexadecimal digits a byte, whatever the bytes are: the same text at each hop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Chunk by chunk, for a write of each byte by itself costs more than all the rest of a log line.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for chunk in self.bytes().chunks(16) {
            let mut text = [0; 32];
            for (byte, digits) in chunk.iter().zip(text.chunks_exact_mut(2)) {
                let of = |digit: u8| DIGITS.get(usize::from(digit)).copied().unwrap_or_default();
                digits.copy_from_slice(&[of(byte >> 4), of(byte & 0xf)]);
            }
            let text = text.get(..2 * chunk.len()).and_then(|text| std::str::from_utf8(text).ok());
            f.write_str(text.unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Makes identifiers for one worker: no call to the kernel, nothing shared.
#[derive(Debug)]
pub struct UniqueIds {
    prefix: u64,
    key: u64,
    made: u64,
}

impl UniqueIds {
    /// From bytes that no other worker of any proxy has: [`fresh_seed`].
    #[must_use]
    pub const fn new(seed: [u8; 16]) -> Self {
        let seed = u128::from_be_bytes(seed);
        #[allow(clippy::cast_possible_truncation)] // the two halves
        Self { prefix: (seed >> 64) as u64, key: seed as u64, made: 0 }
    }

    /// The next: no two of one worker are alike, for [`mix`] is one to one. The number of connections stays hidden.
    #[allow(clippy::should_implement_trait)] // it never ends
    pub fn next(&mut self) -> UniqueId {
        let number = self.made;
        self.made = self.made.wrapping_add(1);
        let mut bytes = [0; 16];
        let (left, right) = bytes.split_at_mut(8);
        left.copy_from_slice(&self.prefix.to_be_bytes());
        right.copy_from_slice(&mix(number ^ self.key).to_be_bytes());
        UniqueId::Own(bytes)
    }
}

/// A permutation of the 64-bit numbers (the finaliser of splitmix64; Steele, Lea, Flood 2014).
const fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A seed from the kernel's random source: one for each worker, drawn before the sandbox is entered.
pub fn fresh_seed() -> io::Result<[u8; 16]> {
    let mut seed = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_are_alike_and_neighbours_differ_widely() {
        let mut ids = UniqueIds::new([7; 16]);
        let many: Vec<UniqueId> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(many.iter().collect::<HashSet<_>>().len(), many.len());
        let differing: u32 = many[0].bytes().iter().zip(many[1].bytes()).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert!(differing > 10, "{} and {}", many[0], many[1]);
    }

    #[test]
    fn seeds_tell_workers_apart() {
        let seeds = [fresh_seed().unwrap(), fresh_seed().unwrap()];
        let [one, two] = seeds.map(|seed| UniqueIds::new(seed).next());
        assert_ne!(one, two);
    }

    #[test]
    fn the_text_is_hexadecimal_whatever_was_given() {
        assert_eq!(UniqueIds::new([0; 16]).next().to_string().len(), 32);
        assert_eq!(UniqueId::Given(b"\"\n\xff".as_slice().into()).to_string(), "220aff");
    }
}
