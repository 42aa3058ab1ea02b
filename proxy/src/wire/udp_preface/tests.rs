use super::*;
use crate::wire::proxy_v2::{Announced, Fields};
use DatagramRule::{Auto, Every, First, Spp};
use Sent::{Payload, Simple, Unlucky, V2};

/// What a test may send, and what it may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// A datagram with a header of version 2 for client 1 or 2.
    V2(u8),
    /// One with Cloudflare's.
    Simple,
    /// Payload.
    Payload,
    /// Payload that begins with Cloudflare's two bytes and is long enough.
    Unlucky,
}

fn bytes(sent: Sent) -> Vec<u8> {
    let (client, destination) = ("192.0.2.9:1".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    match sent {
        V2(number) => {
            let client = std::net::SocketAddr::from(([192, 0, 2, number], 1));
            [Fields::bare(Announced::Datagram, client, destination).build(), b"payload".to_vec()].concat()
        }
        Simple => [spp::build(client, destination).as_slice(), b"payload"].concat(),
        Payload => b"payload".to_vec(),
        Unlucky => [spp::MAGIC.as_slice(), &[0x77; 100]].concat(),
    }
}

/// Sends all on one socket of a peer; a letter for each answer: a client's number for a header, `c`ontinued, `m`issing.
fn answers(rule: DatagramRule, sent: &[Sent]) -> String {
    let mut learned = PeerFraming::default();
    sent.iter()
        .map(|sent| {
            let datagram = bytes(*sent);
            let (then, preface) = read(rule, learned, &datagram).unwrap();
            learned = then;
            match preface {
                DatagramPreface::Header { header, payload_at } => {
                    if *sent != Unlucky {
                        assert_eq!(&datagram[payload_at..], b"payload");
                    }
                    let (client, _) = header.addresses.unwrap();
                    client.ip().to_string().chars().last().unwrap()
                }
                DatagramPreface::Continued => 'c',
                DatagramPreface::Missing => 'm',
            }
        })
        .collect()
}

#[test]
fn auto_learns_who_sends_every_and_who_sends_the_first() {
    assert_eq!(answers(Auto, &[V2(1), V2(2), V2(1)]), "121");
    assert_eq!(answers(Auto, &[V2(1), Payload, Payload]), "1cc");
    assert_eq!(answers(Auto, &[V2(1), Payload, V2(2), Payload]), "1c2c", "the peer took the port for another client");
    assert_eq!(answers(Auto, &[Payload, V2(1), Payload]), "m1c", "the first came late");
    assert_eq!(answers(Auto, &[Payload, Payload]), "mm");
}

#[test]
fn auto_takes_cloudflares_bytes_for_a_header_only_where_the_first_datagram_had_one() {
    assert_eq!(answers(Auto, &[Simple, Simple, Payload]), "99m");
    assert_eq!(answers(Auto, &[V2(1), Unlucky, Simple]), "1cc");
    assert_eq!(answers(Auto, &[Payload, Unlucky, Simple]), "mmm");
    assert_eq!(answers(Auto, &[Simple, V2(1), Payload]), "91c");
    let cut = &bytes(Simple)[..spp::LENGTH - 1];
    assert_eq!(read(Auto, PeerFraming::Unheard, cut), Ok((PeerFraming::Bare, DatagramPreface::Missing)));
}

#[test]
fn every_believes_no_datagram_without_a_header() {
    assert_eq!(answers(Every, &[V2(1), Payload, V2(2), Simple]), "1m2m");
}

#[test]
fn first_takes_all_later_datagrams_for_payload() {
    assert_eq!(answers(First, &[V2(1), V2(2), Payload, Simple]), "1ccc");
    assert_eq!(answers(First, &[Payload, V2(1), Payload]), "mmm", "a header that a client may have written");
}

#[test]
fn spp_believes_cloudflares_header_only() {
    assert_eq!(answers(Spp, &[Simple, V2(1), Simple, Payload]), "9m9m");
    assert_eq!(read(Spp, PeerFraming::Spp, &[0x56, 0xec, 1]), Err(HeaderRefusal::SppCut));
}

#[test]
fn a_broken_header_is_refused_under_each_rule_that_reads_it() {
    let broken = [proxy_v2::SIGNATURE.as_slice(), &[0x21, 0x12, 0, 0]].concat();
    for rule in [Auto, Every, First] {
        assert_eq!(read(rule, PeerFraming::Unheard, &broken), Err(HeaderRefusal::V2AddressesCut(0)));
    }
    assert_eq!(read(First, PeerFraming::First, &broken), Ok((PeerFraming::First, DatagramPreface::Continued)));
}
