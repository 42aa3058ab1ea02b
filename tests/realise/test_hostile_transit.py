"""A port forward is for connections to the router's own address; what only passes through reaches whom it is for."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   nas, pi -- home -- router (NAT) -- internet -- server
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  home: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
nodes:
  server: {links: {internet: [198.51.100.10, "2001:db8:1::10"]}}
  router:
    role: router
    links: {internet: [198.51.100.1, "2001:db8:1::1"], home: [192.168.1.1, "2001:db8:10::1"]}
    nat: {outside: internet, forwards: [{tcp: 80, to: "pi:8080"}, {udp: 53, to: "pi:5353"}]}
    firewall: {forward: accept}
  nas: {links: {home: [192.168.1.10, "2001:db8:10::10"]}}
  pi: {links: {home: [192.168.1.20, "2001:db8:10::20"]}}
"""
NAS = "192.168.1.10"
ROUTER = "198.51.100.1"


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    found = module_up(TOPOLOGY)
    found["server"].run(["ip", "route", "replace", "192.168.1.0/24", "via", ROUTER], check=True)
    found["server"].run(["ip", "-6", "route", "replace", "2001:db8:10::/64", "via", "2001:db8:1::1"], check=True)
    return found


def serves(listener: socket.socket, client: socket.socket) -> bool:
    """Whether the connection arrived at this listener."""
    listener.settimeout(30)
    accepted, _ = listener.accept()
    with accepted:
        client.sendall(b"are you there?")
        return accepted.recv(100) == b"are you there?"


def test_a_connection_to_the_router_is_forwarded(lab: Lab) -> None:
    with lab["nas"].listen(80), lab["pi"].listen(8080) as pi, lab["server"].connect((ROUTER, 80)) as client:
        assert serves(pi, client)


def test_a_connection_through_the_router_to_the_same_port_reaches_its_own_host(lab: Lab) -> None:
    with lab["nas"].listen(80) as nas, lab["pi"].listen(8080), lab["server"].connect((NAS, 80)) as client:
        assert serves(nas, client)
        assert client.getpeername() == (NAS, 80)


def test_a_connection_through_the_router_to_who_does_not_listen_is_refused(lab: Lab) -> None:
    with lab["pi"].listen(8080), pytest.raises(ConnectionRefusedError):
        lab["server"].connect((NAS, 80))


def test_a_datagram_through_the_router_to_the_same_port_reaches_its_own_host(lab: Lab) -> None:
    with lab["nas"].udp(53) as nas, lab["pi"].udp(5353, timeout=0.3) as pi, lab["server"].udp() as client:
        client.sendto(b"query", (NAS, 53))
        payload, peer = nas.recvfrom(100)
        assert (payload, peer[0]) == (b"query", "198.51.100.10")
        nas.sendto(b"answer", peer)
        assert client.recvfrom(100) == (b"answer", (NAS, 53))
        with pytest.raises(TimeoutError):
            pi.recv(100)


def test_a_datagram_to_the_router_is_forwarded(lab: Lab) -> None:
    with lab["pi"].udp(5353) as pi, lab["server"].udp() as client:
        client.sendto(b"query", (ROUTER, 53))
        payload, peer = pi.recvfrom(100)
        pi.sendto(payload[::-1], peer)
        assert client.recvfrom(100) == (b"yreuq", (ROUTER, 53))


def test_ipv6_through_the_router_is_left_alone(lab: Lab) -> None:
    with lab["nas"].listen(80) as nas, lab["server"].connect(("2001:db8:10::10", 80)) as client:
        assert serves(nas, client)


def test_a_broadcast_on_the_outside_is_not_forwarded(lab: Lab) -> None:
    with lab["pi"].udp(5353, timeout=0.3) as pi, lab["server"].udp() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"anyone?", ("198.51.100.255", 53))
        with pytest.raises(TimeoutError):
            pi.recv(100)
