"""A switch carries frames as they are: what is in them is for the hosts to judge, not for bridges of the kernel."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.realise.conftest import Up

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
networks:
  lan: {prefixes: [192.168.1.0/24]}
nodes:
  a: {links: {lan: auto}}
  b: {links: {lan: auto}}
"""
BROKEN = (IP(chksum=0x1234), IP(ihl=4), IP(len=2000), IP(version=5))  # no host accepts them


def test_a_switch_carries_packets_whose_header_is_broken(up: Up) -> None:
    """Where br_netfilter is, as on hosts with Docker, the kernel looks into what its bridges carry, and drops these."""
    with (
        up(TOPOLOGY) as lab,
        lab["a"].socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
        lab["b"].socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as seen,
    ):
        sender.bind(("lan", 0))
        seen.bind(("lan", 0x0800))
        seen.settimeout(10)
        for header in BROKEN:
            frame = bytes(Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / header / UDP() / (b"x" * 64))
            sender.send(frame)
            assert seen.recv(2000) == frame, header.summary()
