//! Packets for tests, built from nothing, with right checksums.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::checksum;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

pub(crate) fn endpoint(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

pub(crate) fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (endpoint(source), endpoint(destination));
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut body = ports(source, destination);
    body.extend(length.to_be_bytes());
    body.extend([0, 0]);
    body.extend(payload);
    transport(17, 6, source, destination, body)
}

pub(crate) fn tcp(source: &str, destination: &str, flags: u8) -> Vec<u8> {
    let (source, destination) = (endpoint(source), endpoint(destination));
    let mut body = ports(source, destination);
    body.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    transport(6, 16, source, destination, body)
}

/// An echo request (8) or reply (0).
pub(crate) fn echo(kind: u8, source: &str, destination: &str, identifier: u16) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0];
    body.extend(identifier.to_be_bytes());
    body.extend([0, 1, b'p', b'i', b'n', b'g']);
    icmp(source, destination, body)
}

pub(crate) fn icmp_error(kind: u8, source: &str, destination: &str, inner: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, 4, 0, 0, 0, 0, 5, 0];
    body.extend(inner);
    icmp(source, destination, body)
}

fn icmp(source: &str, destination: &str, mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum::of(&[&body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(1, source.parse().unwrap(), destination.parse().unwrap(), &body)
}

fn ports(source: SocketAddrV4, destination: SocketAddrV4) -> Vec<u8> {
    [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat()
}

fn transport(
    protocol: u8,
    sum_at: usize,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    mut body: Vec<u8>,
) -> Vec<u8> {
    let sum = match transport_sum(protocol, *source.ip(), *destination.ip(), &body) {
        0 if protocol == 17 => 0xffff, // RFC 768
        sum => sum,
    };
    body[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    ip(protocol, *source.ip(), *destination.ip(), &body)
}

fn transport_sum(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, body: &[u8]) -> u16 {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    checksum::of(&[&source.octets(), &destination.octets(), &[0, protocol], &length, body])
}

fn ip(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = checksum::of(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

/// Whether every checksum of a packet of ours is right; of an ICMP error only the outer ones.
pub(crate) fn sums_are_right(packet: &[u8]) -> bool {
    let (header, body) = packet.split_at(20);
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let transport = match packet[9] {
        1 => checksum::of(&[body]),
        17 if body[6..8] == [0, 0] => 0,
        protocol => transport_sum(protocol, address(12), address(16), body),
    };
    checksum::of(&[header]) == 0 && transport == 0
}
