//! The signature of a version 2 header between two hops that share a key: a TLV of ours, whose layout is in docs/edgeproxy.md.
//! Who has no key can name no client, whichever address it has.

use std::fmt;
use std::ops::Range;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::octets::array_at;
use super::{proxy_v2, tlv};

/// The type of the TLV, one of those that are free to whoever operates the proxies (2.2.7).
pub const KIND: u8 = 0xea;

/// The length of its value: version, time, nonce, MAC.
pub const LENGTH: usize = VALUE as usize;

const VALUE: u8 = 57;
const _: () = assert!(LENGTH == NONCE_AT + NONCE + MAC);

/// The only version so far.
const VERSION: u8 = 1;
const NONCE_AT: usize = 1 + 8;
const NONCE: usize = 16;
const MAC: usize = 32;
const CHECKSUM: usize = 4;

/// What a key is known by is its MAC over this, with which no header begins.
const NAMING: &[u8] = b"edgeproxy: the name of a hop key";

/// A secret that two hops share. It is in no text that it could be written as.
#[derive(Clone)]
pub struct HopKey {
    mac: Hmac<Sha256>,
    name: [u8; 16],
}

impl HopKey {
    /// Of a secret; none, where there is no HMAC of such a one (there is of each).
    #[must_use]
    pub fn of(secret: &[u8]) -> Option<Self> {
        let mac = Hmac::new_from_slice(secret).ok()?;
        let name = array_at(&Mac::chain_update(Hmac::clone(&mac), NAMING).finalize().into_bytes(), 0)?;
        Some(Self { mac, name })
    }

    /// Tells it from other keys, and nothing of the secret.
    #[must_use]
    pub const fn name(&self) -> [u8; 16] {
        self.name
    }

    /// Whether a header was signed with this key and is as it was then. The comparison takes the same time for all.
    #[must_use]
    pub fn has_signed(&self, header: &[u8], signature: &Signature) -> bool {
        let said = header.get(signature.mac.clone()).unwrap_or_default();
        self.over(header, signature).verify_slice(said).is_ok()
    }

    /// Over the whole header, the bytes of the MAC itself and of the checksum taken as zero.
    fn over(&self, header: &[u8], signature: &Signature) -> Hmac<Sha256> {
        let mut blanks = [Some(signature.mac.clone()), signature.checksum.clone()];
        blanks.sort_by_key(|blank| blank.as_ref().map(|range| range.start));
        let (mut mac, mut at) = (self.mac.clone(), 0);
        for blank in blanks.into_iter().flatten() {
            mac.update(header.get(at..blank.start).unwrap_or_default());
            mac.update([0; MAC].get(..blank.len()).unwrap_or_default());
            at = blank.end;
        }
        mac.update(header.get(at..).unwrap_or_default());
        mac
    }

    /// Signs a header that has room for it ([`ROOM`]), be it signed already; its checksum, if it has one, is made after that.
    pub(crate) fn sign(&self, header: &mut [u8], stamp: Stamp) {
        let Ok(signature) = read_any(header) else { return };
        let Signature { mac, checksum, .. } = &signature;
        let value = mac.start.saturating_sub(NONCE_AT + NONCE);
        put(header, value, &[VERSION]);
        put(header, value + 1, &stamp.time.to_be_bytes());
        put(header, value + NONCE_AT, &stamp.nonce);
        let sum: [u8; MAC] = self.over(header, &signature).finalize().into_bytes().into();
        put(header, mac.start, &sum);
        if let Some(checksum) = checksum {
            put(header, checksum.start, &proxy_v2::checksum(header, checksum.start).to_be_bytes());
        }
    }
}

impl fmt::Debug for HopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HopKey")
    }
}

impl PartialEq for HopKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for HopKey {}

/// The TLV before it is signed.
pub(crate) const ROOM: [u8; 3 + LENGTH] = {
    let mut room = [0; 3 + LENGTH];
    room[0] = KIND;
    room[2] = VALUE;
    room
};

/// What makes each signature another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Milliseconds since 1970, by the signer's clock.
    pub time: u64,
    /// No two signatures under one key have the same.
    pub nonce: [u8; 16],
}

/// Where in a header a signature stands, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// When it was made.
    pub stamp: Stamp,
    mac: Range<usize>,
    checksum: Option<Range<usize>>,
}

/// Why a header has no signature that could be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// There is none: it is of another version, or of a peer that has no key.
    Absent,
    /// There are two, or it is of another length or version.
    Malformed,
}

/// Finds the signature of one whole header. Nothing is proven by it; see [`HopKey::has_signed`].
///
/// # Errors
///
/// There is none.
pub fn read(header: &[u8]) -> Result<Signature, Unsigned> {
    let signature = read_any(header)?;
    let version = signature.mac.start.checked_sub(NONCE_AT + NONCE).and_then(|at| header.get(at));
    if version == Some(&VERSION) {
        Ok(signature)
    } else {
        Err(Unsigned::Malformed)
    }
}

/// The same, of whichever version.
fn read_any(header: &[u8]) -> Result<Signature, Unsigned> {
    let block_at = proxy_v2::tlvs_at(header).ok_or(Unsigned::Absent)?;
    let block = header.get(block_at..).unwrap_or_default();
    let (mut found, mut checksum) = (None, None);
    for (at, kind, value) in tlv::places(block) {
        let at = block_at + at;
        match kind {
            KIND if found.is_some() || value.len() != LENGTH => return Err(Unsigned::Malformed),
            KIND => found = Some((at, value)),
            tlv::CRC32C if value.len() == CHECKSUM && checksum.is_none() => checksum = Some(at..at + CHECKSUM),
            _ => {}
        }
    }
    let (at, value) = found.ok_or(Unsigned::Absent)?;
    let time = u64::from_be_bytes(array_at(value, 1).ok_or(Unsigned::Malformed)?);
    let nonce = array_at(value, NONCE_AT).ok_or(Unsigned::Malformed)?;
    Ok(Signature { stamp: Stamp { time, nonce }, mac: at + NONCE_AT + NONCE..at + LENGTH, checksum })
}

fn put(header: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = header.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
