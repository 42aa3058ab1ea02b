"""ICMP errors through natbox: who asked learns who complains and about what (RFC 5508)."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address

import pytest

from lab import wait_until
from lab.realise.lab import Lab
from tests.nat.conftest import EAST, NARROW_MTU, OUTSIDE, Translate

FAR = "203.0.113.10"
HOP = "198.51.100.30"
# linux/in.h, linux/errqueue.h
IP_RECVERR, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 11, 10, 2, 14
MSG_ERRQUEUE = 0x2000
TIME_EXCEEDED, UNREACHABLE = 11, 3
ERROR_LEN = 16  # struct sock_extended_err, which the offender's sockaddr_in follows

pytestmark = pytest.mark.essential


def told(client: socket.socket) -> tuple[int, str, tuple[str, int]] | None:
    """Type of the error that the socket was told, who complains, and to whom the packet was sent; None if none yet."""
    client.setblocking(False)
    try:
        _, ancillary, _, destination = client.recvmsg(2000, 500, MSG_ERRQUEUE)
    except BlockingIOError:
        return None
    ((_, _, error),) = ancillary
    return error[5], str(IPv4Address(error[ERROR_LEN + 4 : ERROR_LEN + 8])), destination


def wait_told(client: socket.socket) -> tuple[int, str, tuple[str, int]]:
    found: list[tuple[int, str, tuple[str, int]]] = []

    def is_told() -> bool:
        if (error := told(client)) is not None:
            found.append(error)
        return bool(found)

    wait_until(is_told, 30, "the error")
    return found[0]


@pytest.mark.parametrize(
    ("ttl", "destination", "kind", "complainer"),
    [
        (1, (FAR, 9), TIME_EXCEEDED, "192.168.1.1"),
        (2, (FAR, 9), TIME_EXCEEDED, HOP),
        (64, (EAST, 9), UNREACHABLE, EAST),
    ],
)
def test_each_hop_of_a_path_is_seen(
    lab: Lab, natbox: Translate, ttl: int, destination: tuple[str, int], kind: int, complainer: str
) -> None:
    with natbox(), lab["alice"].udp(4000) as client:
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        client.sendto(b"?", destination)
        assert wait_told(client) == (kind, complainer, destination)


def test_the_mtu_of_a_path_is_learnt_by_udp_and_tcp(lab: Lab, natbox: Translate) -> None:
    lab["alice"].run(["ip", "route", "flush", "cache"], check=True)
    with natbox(), lab["far"].listen(80) as listener, lab["alice"].connect((FAR, 80)) as client:
        connection, _ = listener.accept()
        with connection:
            client.sendall(bytes(100_000))
            left = 100_000
            while left:
                left -= len(connection.recv(left))
            assert client.getsockopt(socket.IPPROTO_IP, IP_MTU) == NARROW_MTU


def test_an_eater_makes_a_black_hole(lab: Lab, natbox: Translate) -> None:
    lab["alice"].run(["ip", "route", "flush", "cache"], check=True)
    with natbox(icmp_errors=False) as nat, lab["far"].udp(9) as far, lab["alice"].udp(4000) as client:
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        client.sendto(bytes(1400), (FAR, 9))
        wait_until(lambda: nat.table()["counters"]["dropped"] == {"icmp_eaten": 1}, 30, "hop's complaint")
        client.sendto(bytes(1400), (FAR, 9))  # else EMSGSIZE
        client.sendto(b"short", (FAR, 9))
        assert far.recv(2000) == b"short"
        assert told(client) is None
    # The router's own complaints are eaten too.
    with natbox(icmp_errors=False), lab["east"].udp(9) as east, lab["alice"].udp(4000) as client:
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        client.sendto(b"?", (EAST, 9))
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
        client.sendto(b"in order", (EAST, 9))
        assert east.recv(100) == b"in order"
        assert told(client) is None


def test_those_outside_are_told_by_the_outside_address(lab: Lab, natbox: Translate) -> None:
    """Alice refuses a datagram that was let in; east hears of it as if the router had no such port."""
    with natbox(filtering="endpoint_independent") as nat, lab["east"].udp(7000) as server:
        with lab["alice"].udp(4000) as client:
            client.sendto(b"?", (EAST, 7000))
            _, mapped = server.recvfrom(100)
        wait_until(lambda: not lab["alice"].is_bound(4000, "udp"), 30, "alice listens no more")
        server.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        server.sendto(b"too late", mapped)
        assert wait_told(server) == (UNREACHABLE, OUTSIDE, mapped)
        assert nat.table()["counters"]["dropped"] == {}


def test_those_of_hairpins_come_back_too(lab: Lab, natbox: Translate) -> None:
    with natbox(filtering="endpoint_independent", hairpin="external_source"), lab["east"].udp(7000) as server:
        with lab["alice"].udp(4000) as alice:
            alice.sendto(b"?", (EAST, 7000))
            _, mapped = server.recvfrom(100)
        wait_until(lambda: not lab["alice"].is_bound(4000, "udp"), 30, "alice listens no more")
        with lab["bob"].udp() as bob:
            bob.connect(mapped)
            bob.send(b"too late")
            wait_until(lambda: bob.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED, 30, "refusal")
