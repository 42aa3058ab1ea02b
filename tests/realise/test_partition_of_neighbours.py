"""A partition covers what a neighbour says to all of its network, whichever address that is sent to."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest

from lab.realise.lab import Lab
from lab.realise.node import Node

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
networks: {home: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}}
nodes: {nas: {links: {home: 192.168.1.10}}, laptop: {links: {home: 192.168.1.20}}}
"""
PORT = 7000


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.mark.parametrize("to", ["192.168.1.255", "255.255.255.255", "224.0.0.251", "ff02::fb"])
def test_what_is_said_to_all_does_not_pass(lab: Lab, to: str) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with lab["laptop"].socket(family, socket.SOCK_DGRAM) as heard, lab["nas"].socket(family, socket.SOCK_DGRAM) as said:
        said.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"home")
        said.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        heard.bind(("", PORT))
        join(heard, to, lab["laptop"])
        said.sendto(b"before", (to, PORT))
        heard.settimeout(30)
        assert heard.recv(10) == b"before"
        with lab.fault.partition("nas", "laptop"):
            said.sendto(b"during", (to, PORT))
            heard.settimeout(0.3)
            with pytest.raises(TimeoutError):
                heard.recv(10)
        said.sendto(b"after", (to, PORT))
        heard.settimeout(30)
        assert heard.recv(10) == b"after"


def join(receiver: socket.socket, to: str, node: Node) -> None:
    """Have a socket hear a multicast group at home; a broadcast needs nothing."""
    packed = socket.inet_pton(receiver.family, to)
    if receiver.family == socket.AF_INET6:
        index = int(node.run(["cat", "/sys/class/net/home/ifindex"], check=True).stdout)
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + index.to_bytes(4, sys.byteorder))
    elif packed[0] & 0xF0 == 0xE0:
        own = socket.inet_aton(str(node.address("home")))
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, packed + own)
