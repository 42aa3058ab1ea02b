"""Masquerade and port forwards, each seen by two witnesses: the socket at the end and the packets on the wire."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   nas, pi -- home -- router (NAT) -- internet -- server
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"], internet: true}
  home: {prefixes: [192.168.1.0/24, "2001:db8:10::/64"]}
nodes:
  server: {links: {internet: 198.51.100.10}}
  router:
    role: router
    links: {internet: 198.51.100.1, home: 192.168.1.1}
    nat:
      outside: internet
      forwards:
        - {tcp: 443, to: "nas:8443"}
        - {udp: 5353, to: pi}
        - {tcp: 80, to: "192.168.1.20:8080"}
    firewall: {forward: drop, allow: [{tcp: 7000, to: nas}]}
  nas: {links: {home: 192.168.1.10}}
  pi: {links: {home: 192.168.1.20}}
"""
OUTSIDE = "198.51.100.1"
SERVER = "198.51.100.10"


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def accept(server: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    server.settimeout(30)
    accepted, peer = server.accept()
    return accepted, (str(peer[0]).removeprefix("::ffff:"), peer[1])


def sources_of(sniffer: socket.socket, payload: bytes) -> str:
    """The IPv4 source of the first frame that carries the payload (RFC 791: bytes 12 to 15 of the header)."""
    while True:
        frame = sniffer.recv(2000)
        if frame[12:14] == b"\x08\x00" and frame.endswith(payload):
            return str(IPv4Address(frame[26:30]))


def test_a_server_outside_sees_the_routers_address_on_the_socket_and_on_the_wire(lab: Lab) -> None:
    with lab["router"].packet("home") as inside, lab["router"].packet("internet") as outside:
        with lab["server"].listen(7001) as server, lab["nas"].connect((SERVER, 7001)) as client:
            accepted, peer = accept(server)
            with accepted:
                client.sendall(b"who am I?")
                assert accepted.recv(100) == b"who am I?"
        assert peer[0] == OUTSIDE
        assert sources_of(inside, b"who am I?") == "192.168.1.10"
        assert sources_of(outside, b"who am I?") == OUTSIDE


def test_datagrams_are_translated_and_their_answers_come_back(lab: Lab) -> None:
    with lab["server"].udp(7002) as server, lab["pi"].udp() as client:
        client.sendto(b"ping", (SERVER, 7002))
        payload, peer = server.recvfrom(100)
        server.sendto(payload[::-1], peer)
        assert peer[0] == OUTSIDE
        assert client.recvfrom(100) == (b"gnip", (SERVER, 7002))


def test_two_nodes_with_one_source_port_stay_apart_behind_one_address(lab: Lab) -> None:
    with lab["server"].listen(7003) as server:
        nas = lab["nas"].connect((SERVER, 7003), source=("192.168.1.10", 40000))
        pi = lab["pi"].connect((SERVER, 7003), source=("192.168.1.20", 40000))
        with nas, pi:
            peers = []
            for _ in range(2):
                accepted, peer = accept(server)
                accepted.close()
                peers.append(peer)
    assert {address for address, _ in peers} == {OUTSIDE}
    assert len(set(peers)) == 2


def test_the_router_itself_is_not_translated(lab: Lab) -> None:
    with lab["server"].listen(7004) as server, lab["router"].connect((SERVER, 7004), source=("", 41000)):
        accepted, peer = accept(server)
        accepted.close()
    assert peer == (OUTSIDE, 41000)


def test_ipv6_passes_untranslated(lab: Lab) -> None:
    server_address = lab["server"].address(version=6)
    with lab["server"].listen(7005) as server, lab["nas"].connect((server_address, 7005)):
        accepted, peer = accept(server)
        accepted.close()
    assert peer[0] == lab["nas"].address(version=6)


@pytest.mark.parametrize(("port", "node", "to_port"), [(443, "nas", 8443), (80, "pi", 8080)])
def test_a_tcp_forward_leads_inside_and_keeps_the_clients_address(lab: Lab, port: int, node: str, to_port: int) -> None:
    with lab[node].listen(to_port) as listener, lab["router"].packet("home") as inside:
        with lab["server"].connect((OUTSIDE, port)) as client:
            accepted, peer = accept(listener)
            with accepted:
                client.sendall(b"from outside")
                assert accepted.recv(100) == b"from outside"
                assert client.getpeername() == (OUTSIDE, port)
        assert peer[0] == SERVER
        assert sources_of(inside, b"from outside") == SERVER


def test_a_udp_forward_leads_inside_and_its_answer_comes_from_outside(lab: Lab) -> None:
    with lab["pi"].udp(5353) as server, lab["server"].udp() as client:
        client.sendto(b"query", (OUTSIDE, 5353))
        payload, peer = server.recvfrom(100)
        assert (payload, peer[0]) == (b"query", SERVER)
        server.sendto(b"answer", peer)
        assert client.recvfrom(100) == (b"answer", (OUTSIDE, 5353))


def test_a_forward_of_one_protocol_is_none_of_the_other(lab: Lab) -> None:
    with lab["nas"].udp(443) as server, lab["server"].udp() as client:
        server.settimeout(0.2)
        client.sendto(b"?", (OUTSIDE, 443))
        with pytest.raises(TimeoutError):
            server.recv(10)


def test_a_port_without_forward_leads_nowhere(lab: Lab) -> None:
    with lab["nas"].listen(8444), pytest.raises(TimeoutError):
        lab["server"].connect((OUTSIDE, 8444), timeout=0.2)


def test_from_inside_a_forward_is_not_translated(lab: Lab) -> None:
    """Plain forwards have no hairpin: what comes from inside is for the router itself, which listens to nothing."""
    with lab["nas"].listen(8443), pytest.raises(ConnectionRefusedError):
        lab["pi"].connect((OUTSIDE, 443), timeout=30)


def test_the_inside_cannot_be_reached_from_outside_by_its_own_address(lab: Lab) -> None:
    lab["server"].run(["ip", "route", "replace", "192.168.1.0/24", "via", OUTSIDE], check=True)
    try:
        with lab["nas"].listen(8443), pytest.raises(TimeoutError):
            lab["server"].connect(("192.168.1.10", 8443), timeout=0.2)
    finally:
        lab["server"].run(["ip", "route", "del", "192.168.1.0/24"], check=True)
