//! Datagrams of peers that may speak for others: without their PROXY header, and for whom they are.

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::config::model::{HeaderFraming, HeaderPolicy};
use crate::generation::HeaderRule;
use crate::hop::Coming;
use crate::operation::outcomes::HeaderIn;
use crate::wire::spp;
use crate::wire::tlv::Tlvs;
use crate::wire::udp_preface::{self, DatagramPreface, DatagramRule, PeerFraming};

use super::peers::Peers;
use super::table::FlowKey;

/// What came with a datagram.
#[derive(Debug)]
pub(crate) struct Unwrapped<'a> {
    pub(crate) key: FlowKey,
    pub(crate) header_in: HeaderIn,
    /// What answers begin with: a peer that speaks Cloudflare's protocol wants its header back.
    pub(crate) reply_prefix: Option<&'a [u8]>,
    /// What the header holds beside the addresses.
    pub(crate) tlvs: Tlvs,
    pub(crate) payload: &'a [u8],
}

/// Takes the header off. What is learned of the peer's socket stays with `peers`.
///
/// # Errors
///
/// What is wrong with the header, or that there is none.
pub(crate) fn unwrapped<'a>(
    HeaderRule { policy, framing, ring }: HeaderRule<'_>,
    peers: &Peers,
    (peer, hit): (SocketAddr, SocketAddr),
    datagram: &'a [u8],
    now: Instant,
) -> Result<Unwrapped<'a>, HeaderIn> {
    let plain = |header_in| {
        let key = FlowKey { peer, hit, named: None };
        Unwrapped { key, header_in, reply_prefix: None, tlvs: Tlvs::default(), payload: datagram }
    };
    if policy == HeaderPolicy::Never {
        return Ok(plain(HeaderIn::NotExpected));
    }
    let (learned, last) = peers.get((peer, hit), now);
    let rule = rule(framing);
    let Ok((framing, preface)) = udp_preface::read(rule, learned, datagram) else {
        // No client behind a peer that signs can write a header: the peer's own may still come.
        if ring.is_none() {
            peers.learn((peer, hit), udp_preface::after_a_broken_one(rule, learned), last, now);
        }
        return Err(HeaderIn::Broken);
    };
    match preface {
        DatagramPreface::Header { header, payload_at } => {
            if let (Some(ring), Some(header)) = (ring, datagram.get(..payload_at)) {
                let coming = if framing == PeerFraming::First { Coming::Once } else { Coming::Again };
                ring.judge(header, coming, peer.ip())?;
            }
            let named = header.addresses;
            peers.learn((peer, hit), framing, named, now);
            let is_simple = framing == PeerFraming::Spp;
            Ok(Unwrapped {
                key: FlowKey { peer, hit, named },
                header_in: match (named, is_simple) {
                    (None, _) => HeaderIn::Local,
                    (Some(_), true) => HeaderIn::Spp,
                    (Some(_), false) => HeaderIn::V2,
                },
                reply_prefix: datagram.get(..spp::LENGTH).filter(|_| is_simple),
                tlvs: header.tlvs,
                payload: datagram.get(payload_at..).unwrap_or_default(),
            })
        }
        DatagramPreface::Continued => {
            peers.learn((peer, hit), framing, last, now);
            Ok(Unwrapped { key: FlowKey { peer, hit, named: last }, ..plain(HeaderIn::Remembered) })
        }
        DatagramPreface::Missing => {
            if ring.is_none() {
                peers.learn((peer, hit), framing, last, now);
            }
            match policy {
                HeaderPolicy::Require => Err(HeaderIn::Missing),
                HeaderPolicy::Optional | HeaderPolicy::Never => Ok(plain(HeaderIn::Absent)),
            }
        }
    }
}

fn rule(framing: HeaderFraming) -> DatagramRule {
    match framing {
        HeaderFraming::Every => DatagramRule::Every,
        HeaderFraming::First => DatagramRule::First,
        HeaderFraming::Spp => DatagramRule::Spp,
        HeaderFraming::Auto => DatagramRule::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proxy_v2::{Announced, Fields};

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn v2(client: &str, payload: &[u8]) -> Vec<u8> {
        [Fields::bare(Announced::Datagram, at(client), at("198.51.100.1:443")).build(), payload.to_vec()].concat()
    }

    fn simple(client: &str, payload: &[u8]) -> Vec<u8> {
        [&spp::build(at(client), at("198.51.100.1:443")), payload].concat()
    }

    const PLAIN: &str = "the peer itself";

    /// For whom each datagram is, and what is left of it; or what is wrong.
    fn read(
        policy: HeaderPolicy,
        framing: HeaderFraming,
        datagrams: &[Vec<u8>],
    ) -> Vec<Result<(String, Vec<u8>), HeaderIn>> {
        let peers = Peers::default();
        let ends = (at("192.0.2.1:1"), at("192.0.2.9:443"));
        let one = |datagram: &Vec<u8>| {
            let read = unwrapped(HeaderRule { policy, framing, ring: None }, &peers, ends, datagram, Instant::now())?;
            let client = read.key.named.map_or(PLAIN.to_owned(), |(client, _)| client.to_string());
            Ok((client, read.payload.to_vec()))
        };
        datagrams.iter().map(one).collect()
    }

    #[test]
    fn each_policy_and_framing_takes_each_datagram_as_it_must() {
        use {HeaderFraming as F, HeaderPolicy as P};
        const ONE: &str = "203.0.113.1:1";
        const TWO: &str = "203.0.113.2:2";
        let (one, two, bare, spp) = (v2(ONE, b"1"), v2(TWO, b"2"), b"plain".to_vec(), simple(ONE, b"s"));
        let (empty, empty_spp) = (v2(ONE, b""), simple(ONE, b""));
        let ok = |client: &str, payload: &[u8]| Ok((client.to_owned(), payload.to_vec()));
        let missing = || Err(HeaderIn::Missing);
        let cases = [
            (P::Never, F::Auto, vec![&one, &bare], vec![ok(PLAIN, &one), ok(PLAIN, &bare)]),
            (P::Require, F::Every, vec![&one, &two, &bare], vec![ok(ONE, b"1"), ok(TWO, b"2"), missing()]),
            (P::Optional, F::Every, vec![&one, &bare], vec![ok(ONE, b"1"), ok(PLAIN, &bare)]),
            (P::Require, F::Every, vec![&empty, &empty_spp], vec![ok(ONE, b""), missing()]),
            (P::Require, F::Spp, vec![&empty_spp], vec![ok(ONE, b"")]),
            (P::Require, F::First, vec![&one, &bare, &two], vec![ok(ONE, b"1"), ok(ONE, &bare), ok(ONE, &two)]),
            (P::Require, F::First, vec![&bare, &one], vec![missing(), missing()]),
            (P::Optional, F::First, vec![&bare, &one], vec![ok(PLAIN, &bare), ok(PLAIN, &one)]),
            (P::Require, F::Spp, vec![&spp, &one, &bare], vec![ok(ONE, b"s"), missing(), missing()]),
            (P::Optional, F::Spp, vec![&spp, &bare], vec![ok(ONE, b"s"), ok(PLAIN, &bare)]),
            (P::Require, F::Auto, vec![&one, &two, &bare], vec![ok(ONE, b"1"), ok(TWO, b"2"), ok(TWO, &bare)]),
            (P::Require, F::Auto, vec![&spp, &bare], vec![ok(ONE, b"s"), missing()]),
            (P::Optional, F::Auto, vec![&bare, &spp], vec![ok(PLAIN, &bare), ok(PLAIN, &spp)]),
        ];
        for (policy, framing, datagrams, expected) in cases {
            let datagrams: Vec<_> = datagrams.into_iter().cloned().collect();
            assert_eq!(read(policy, framing, &datagrams), expected, "{policy:?} {framing:?} {datagrams:02x?}");
        }
    }

    #[test]
    fn after_a_broken_header_the_next_is_believed_but_where_only_the_first_may_be_one() {
        let mut short = v2("203.0.113.1:1", b"");
        short.truncate(20);
        let tcp = Fields::bare(Announced::Stream, at("203.0.113.1:1"), at("198.51.100.1:443")).build();
        let next = v2("203.0.113.2:2", b"2");
        for broken in [short, tcp] {
            for framing in [HeaderFraming::Every, HeaderFraming::Auto] {
                let read = read(HeaderPolicy::Optional, framing, &[broken.clone(), next.clone()]);
                assert_eq!(read, [Err(HeaderIn::Broken), Ok(("203.0.113.2:2".to_owned(), b"2".to_vec()))]);
            }
            let heard = [broken, next.clone(), next.clone()];
            let plain = || Ok((PLAIN.to_owned(), next.clone()));
            let optional = read(HeaderPolicy::Optional, HeaderFraming::First, &heard);
            assert_eq!(optional, [Err(HeaderIn::Broken), plain(), plain()]);
            let required = read(HeaderPolicy::Require, HeaderFraming::First, &heard);
            assert_eq!(required, [Err(HeaderIn::Broken), Err(HeaderIn::Missing), Err(HeaderIn::Missing)]);
        }
    }

    #[test]
    fn only_cloudflares_header_stands_before_answers_too() {
        let (peers, ends) = (Peers::default(), (at("192.0.2.1:1"), at("192.0.2.9:443")));
        for (datagram, expected) in [(simple("203.0.113.1:1", b"x"), true), (v2("203.0.113.1:1", b"x"), false)] {
            let rule = HeaderRule { policy: HeaderPolicy::Require, framing: HeaderFraming::Auto, ring: None };
            let read = unwrapped(rule, &peers, ends, &datagram, Instant::now()).expect("a header");
            assert_eq!(read.reply_prefix, expected.then(|| &datagram[..spp::LENGTH]));
        }
    }

    #[test]
    fn of_a_peer_that_signs_only_what_is_signed_names_a_client_and_nobody_else_spoils_it() {
        use {HeaderFraming as F, HeaderPolicy as P};
        let ends = (at("192.0.2.1:1"), at("192.0.2.9:443"));
        let unsigned = v2("203.0.113.1:1", b"1");
        for (policy, framing) in
            [(P::Require, F::Every), (P::Optional, F::Every), (P::Require, F::First), (P::Optional, F::First)]
        {
            let (peers, ring) = (Peers::default(), crate::hop::tests::ring(&[1]));
            let signer = ring.signer().expect("a key");
            let bare = Fields::bare(Announced::Datagram, at("203.0.113.2:2"), at("198.51.100.1:443"));
            let signed = [Fields { signed: Some((&signer.0, signer.1)), ..bare }.build(), b"2".to_vec()].concat();
            let rule = HeaderRule { policy, framing, ring: Some(&ring) };
            let read = |datagram| {
                let read = unwrapped(rule, &peers, ends, datagram, Instant::now())?;
                Ok((read.key.named.map(|(client, _)| client.to_string()), read.payload.to_vec()))
            };
            let mut wrong = signed.clone();
            wrong[16] ^= 1;
            assert_eq!(read(&unsigned), Err(HeaderIn::Unsigned), "{policy:?} {framing:?}");
            assert_eq!(read(&unsigned[..20]), Err(HeaderIn::Broken));
            assert_eq!(read(&wrong), Err(HeaderIn::WronglySigned));
            let bare = read(b"bare");
            let expected = if policy == P::Require { Err(HeaderIn::Missing) } else { Ok((None, b"bare".to_vec())) };
            assert_eq!(bare, expected);
            let client = Some("203.0.113.2:2".to_owned());
            assert_eq!(read(&signed), Ok((client.clone(), b"2".to_vec())));
            // Before each it comes again; where the first has it, what follows is payload, be it a header.
            let again = if framing == F::First { signed.clone() } else { b"2".to_vec() };
            assert_eq!(read(&signed), Ok((client, again)));
            let elsewhere = (at("192.0.2.1:7"), ends.1);
            let replayed = unwrapped(rule, &peers, elsewhere, &signed, Instant::now());
            assert_eq!(replayed.err(), (framing == F::First).then_some(HeaderIn::SignedReplayed));
        }
    }
}
