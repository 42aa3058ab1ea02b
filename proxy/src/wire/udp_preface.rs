//! Whether a datagram of a trusted peer begins with a header, and what of its peer's ways that teaches. The specification asks
//! for a header in each datagram; nginx, sozu and frp send one in the first of a flow only, Cloudflare sends its own.
//!
//! Only [`DatagramRule::Every`] and [`DatagramRule::Spp`] keep clients from speaking for others: there the peer's header stands
//! before all that a client says. Behind a peer that sends the first only, a client's second datagram may begin with a header
//! that the client wrote. [`DatagramRule::First`] takes it for payload, also where the first datagram had no header, or a broken
//! one; [`DatagramRule::Auto`] cannot tell it from the header of another client on the same socket, and believes it.

use serde::{Deserialize, Serialize};

use super::header::{HeaderRefusal, ProxyHeader};
use super::{proxy_v2, spp};

/// How the datagrams of a peer are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatagramRule {
    /// Learned from each socket of the peer.
    Auto,
    /// Version 2 before each payload.
    Every,
    /// Version 2 before the first payload of each socket of the peer; later ones are payload throughout.
    First,
    /// Cloudflare's before each payload.
    Spp,
}

/// What was learned of one socket (address and port) of a peer; begins as [`PeerFraming::Unheard`], and is forgotten when the
/// socket has been silent for long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerFraming {
    /// Nothing yet.
    #[default]
    Unheard,
    /// Version 2 before each payload so far.
    Every,
    /// Version 2 before some, so the last header holds for those without.
    First,
    /// Cloudflare's.
    Spp,
    /// No header at all so far.
    Bare,
}

/// What a datagram begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatagramPreface {
    /// A header of its own.
    Header {
        /// What it says.
        header: ProxyHeader,
        /// Where the payload begins.
        payload_at: usize,
    },
    /// Payload, for which the last header of the peer's socket holds.
    Continued,
    /// Payload without a header that could hold for it.
    Missing,
}

/// Reads the beginning of a datagram of a trusted peer; gives what is known of the peer's socket from then on.
///
/// # Errors
/// A header that is broken. What was learned stays as it was, but for [`after_a_broken_one`].
pub fn read(
    rule: DatagramRule,
    learned: PeerFraming,
    datagram: &[u8],
) -> Result<(PeerFraming, DatagramPreface), HeaderRefusal> {
    let is_v2 = datagram.starts_with(proxy_v2::SIGNATURE);
    match (rule, learned) {
        (DatagramRule::First, PeerFraming::First) => Ok((learned, DatagramPreface::Continued)),
        (DatagramRule::First, PeerFraming::Unheard) if is_v2 => Ok((PeerFraming::First, v2(datagram)?)),
        (DatagramRule::First, _) => Ok((PeerFraming::Bare, DatagramPreface::Missing)),
        (DatagramRule::Every, _) if is_v2 => Ok((PeerFraming::Every, v2(datagram)?)),
        (DatagramRule::Spp, _) if datagram.starts_with(&spp::MAGIC) => Ok((PeerFraming::Spp, simple(datagram)?)),
        (DatagramRule::Every | DatagramRule::Spp, _) => Ok((learned, DatagramPreface::Missing)),
        (DatagramRule::Auto, _) => auto(learned, datagram, is_v2),
    }
}

/// What is known of a peer's socket after a broken header: where only the first datagram has one, no later one is believed.
#[must_use]
pub const fn after_a_broken_one(rule: DatagramRule, learned: PeerFraming) -> PeerFraming {
    match (rule, learned) {
        (DatagramRule::First, PeerFraming::Unheard) => PeerFraming::Bare,
        _ => learned,
    }
}

/// Cloudflare's two bytes begin one in 65536 random payloads, and of a QUIC flow with an unlucky connection ID one in 32. So
/// they count only in the first datagram of a socket, and from then on only if they did there.
fn auto(learned: PeerFraming, datagram: &[u8], is_v2: bool) -> Result<(PeerFraming, DatagramPreface), HeaderRefusal> {
    let is_simple = datagram.starts_with(&spp::MAGIC) && datagram.len() >= spp::LENGTH;
    match learned {
        PeerFraming::First | PeerFraming::Bare if is_v2 => Ok((PeerFraming::First, v2(datagram)?)),
        PeerFraming::Unheard | PeerFraming::Every | PeerFraming::Spp if is_v2 => {
            Ok((PeerFraming::Every, v2(datagram)?))
        }
        PeerFraming::Unheard | PeerFraming::Spp if is_simple => Ok((PeerFraming::Spp, simple(datagram)?)),
        PeerFraming::Unheard => Ok((PeerFraming::Bare, DatagramPreface::Missing)),
        PeerFraming::Bare | PeerFraming::Spp => Ok((learned, DatagramPreface::Missing)),
        PeerFraming::Every | PeerFraming::First => Ok((PeerFraming::First, DatagramPreface::Continued)),
    }
}

fn v2(datagram: &[u8]) -> Result<DatagramPreface, HeaderRefusal> {
    proxy_v2::parse_datagram(datagram).map(|(header, payload_at)| DatagramPreface::Header { header, payload_at })
}

fn simple(datagram: &[u8]) -> Result<DatagramPreface, HeaderRefusal> {
    spp::parse_datagram(datagram).map(|header| DatagramPreface::Header { header, payload_at: spp::LENGTH })
}

#[cfg(test)]
mod tests;
