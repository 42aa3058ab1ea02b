"""Ends that fall silent or cannot be reached, in a lab: nothing that no packet tells is waited for for ever.

client -- internet -- home (the proxy) -- lan -- nas
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import DEADLINE, PORTS, accepted, is_reset, own, read
from tests.proxy.running import Proxy, running_in
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24]}
  lan: {prefixes: [192.168.1.0/24, "fd00:1::/64"]}
nodes:
  client: {links: {internet: 198.51.100.66}}
  home: {role: router, links: {internet: 198.51.100.1, lan: [192.168.1.1, "fd00:1::1"]}}
  nas: {links: {lan: [192.168.1.10, "fd00:1::10"]}}
"""
CONFIG = """
[listener.in]
tcp = ["0.0.0.0:8443-8447"]
[[rule]]
ports = [8443]
to = "nas"
[[rule]]
ports = [8444]
to = "nowhere"
[[rule]]
ports = [8445]
to = "silent"
[[rule]]
ports = [8446]
to = "nas6"
[backend.nas6]
targets = ["[fd00:1::10]:9001"]
[[rule]]
ports = [8447]
to = "ejected"
[backend.ejected]
targets = ["192.168.1.10:9001"]
eject = {failures = 1, duration = "10m"}
[backend.nas]
targets = ["192.168.1.10:9001"]
[backend.nowhere]
targets = ["203.0.113.7:9001"]
[backend.silent]
targets = ["192.168.1.10:9009"]
connect_timeout = "400ms"
[timeouts]
keepalive = "1s"
user_timeout = "2s"
"""
CLIENT = "198.51.100.66"
SILENCE = """
table inet silence {
    chain output { type filter hook output priority filter; policy accept; oifname { "internet", "lan" } drop; }
    chain input { type filter hook input priority filter; policy accept; iifname { "internet", "lan" } drop; }
}
"""
REJECTION = """
table inet rejection {
    chain input {
        type filter hook input priority filter; policy accept;
        tcp dport 9001 counter reject with icmpx admin-prohibited;
    }
}
"""


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    lab = module_up(TOPOLOGY)
    lab["home"].run(["ip", "route", "add", "unreachable", "203.0.113.0/24"], check=True)
    return lab


@pytest.fixture(scope="module")
def proxy(lab: Lab, lab_folder: Path) -> Iterator[Proxy]:
    folder = lab_folder / "proxy"
    folder.mkdir()
    with running_in(lab["home"], CONFIG, "127.0.0.1", folder) as found:
        yield found


@contextmanager
def silent(node: Node) -> Iterator[None]:
    """The node says nothing any more, and hears nothing."""
    node.run(["nft", "-f", "-"], input=SILENCE, check=True)
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", "inet", "silence"], check=True)


def coming(lab: Lab, port: int) -> socket.socket:
    """A client by whose endpoint its line is found: none before had it."""
    return lab["client"].connect(("home", port), DEADLINE, source=(CLIENT, next(PORTS)))


@pytest.mark.parametrize("who", ["client", "nas"])
def test_an_end_that_acknowledges_nothing_has_vanished_and_the_other_is_reset(lab: Lab, proxy: Proxy, who: str) -> None:
    with lab["nas"].listen(9001) as server, coming(lab, 8443) as client:
        server.settimeout(DEADLINE)
        with accepted(server) as backend:
            client.sendall(b"there")
            assert read(backend, 5) == b"there"
            name = own(client)
            with silent(lab[who]):
                living = backend if who == "client" else client
                try:
                    living.sendall(b"is anybody there?")
                    assert is_reset(living)
                except (ConnectionResetError, BrokenPipeError):
                    pass  # keep-alive has found it out before
                proxy.ended(name, "peer_vanished")


@contextmanager
def no_way_to_nas(node: Node) -> Iterator[None]:
    """The node that is asked has no route to the NAS any more."""
    node.run(["ip", "route", "add", "unreachable", "192.168.1.10"], check=True)
    try:
        yield
    finally:
        node.run(["ip", "route", "del", "unreachable", "192.168.1.10"], check=True)


@contextmanager
def rejecting(node: Node) -> Iterator[None]:
    """The node's firewall answers each packet by "administratively prohibited"."""
    node.run(["nft", "-f", "-"], input=REJECTION, check=True)
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", "inet", "rejection"], check=True)


@pytest.mark.parametrize("how", ["no-route", "firewall", "firewall-ipv6"])
def test_a_backend_that_the_network_cuts_off_has_vanished_whatever_icmp_says(lab: Lab, proxy: Proxy, how: str) -> None:
    port = 8446 if how == "firewall-ipv6" else 8443
    with lab["nas"].listen(9001) as server, coming(lab, port) as client:
        server.settimeout(DEADLINE)
        with accepted(server) as backend:
            client.sendall(b"there")
            assert read(backend, 5) == b"there"
            name = own(client)
            with no_way_to_nas(lab["home"]) if how == "no-route" else rejecting(lab["nas"]):
                client.sendall(b"is anybody there?")
                assert is_reset(client)
                proxy.ended(name, "peer_vanished")


def rejected(node: Node) -> int:
    """How many packets the node has rejected."""
    listed = node.run(["nft", "list", "table", "inet", "rejection"], check=True).stdout
    return int(listed.partition("counter packets ")[2].split()[0])


def test_what_icmp_says_for_a_while_ends_no_connection_of_which_one_side_has_ended(lab: Lab, lab_folder: Path) -> None:
    folder = lab_folder / "patient"
    folder.mkdir()
    text = (
        '[listener.in]\ntcp = ["0.0.0.0:7443"]\n[[rule]]\nto = "nas"\n[backend.nas]\ntargets = ["192.168.1.10:9001"]\n'
    )
    with ExitStack() as stack:
        proxy = stack.enter_context(running_in(lab["home"], text, "127.0.0.2", folder))
        server = stack.enter_context(lab["nas"].listen(9001))
        client = stack.enter_context(lab["client"].connect(("home", 7443), DEADLINE))
        server.settimeout(DEADLINE)
        backend = stack.enter_context(accepted(server))
        backend.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        with rejecting(lab["nas"]):
            client.sendall(b"later")
            # Sent again and again at twice the distance: the last of these is seconds after the first.
            wait_until(lambda: rejected(lab["nas"]) >= 5, DEADLINE, "the news")
        assert read(backend, 5) == b"later"
        assert own(client) in {line["peer"] for line in proxy.connections()}


def refused_at(lab: Lab, port: int) -> str:
    with lab["client"].socket(bind=(CLIENT, next(PORTS))) as client:
        client.settimeout(DEADLINE)
        name = own(client)
        try:
            client.connect(("198.51.100.1", port))
            assert is_reset(client)
        except ConnectionResetError:
            pass
    return name


def test_a_backend_to_which_no_way_leads_is_unreachable(lab: Lab, proxy: Proxy) -> None:
    proxy.ended(refused_at(lab, 8444), "backend_unreachable")


@contextmanager
def two_ports(node: Node) -> Iterator[None]:
    """The node has two ports for all of its connections to one endpoint (ip_local_port_range, ip(7)).

    They are below those that it usually takes: none of them is left from an earlier connection (TIME_WAIT).
    """
    path = "/proc/sys/net/ipv4/ip_local_port_range"
    before = node.read(path).decode().strip()
    node.run(["sh", "-c", f"echo 20000 20001 > {path}"], check=True)
    try:
        yield
    finally:
        node.run(["sh", "-c", f"echo {before} > {path}"], check=True)


def test_who_finds_no_port_of_this_host_left_meets_an_error_that_is_not_the_backends(lab: Lab, proxy: Proxy) -> None:
    with lab["nas"].listen(9001) as server, ExitStack() as stack:
        server.settimeout(DEADLINE)
        with two_ports(lab["home"]):
            for _ in range(2):
                client = stack.enter_context(coming(lab, 8447))
                client.sendall(b"here")
                assert read(stack.enter_context(accepted(server)), 4) == b"here"
            who = refused_at(lab, 8447)
        line = proxy.ended(who, "io_error")
        assert (line["close_detail"], line["backend"]) == ("address_not_available", "ejected")
        with lab["client"].connect(("home", 8447), DEADLINE), accepted(server):
            ejected = 'edgeproxy_backend_up{backend="ejected",target="192.168.1.10:9001",transport="tcp"}'
            assert proxy.metrics()[ejected] == 1, "it is not to blame"


def test_a_backend_that_answers_no_packet_has_its_time(lab: Lab, proxy: Proxy) -> None:
    with silent(lab["nas"]):
        line = proxy.ended(refused_at(lab, 8445), "backend_timeout")
    assert line["total_us"] >= 400_000
    proxy.ended(refused_at(lab, 8445), "backend_refused")


def test_no_socket_is_left_behind(lab: Lab, proxy: Proxy) -> None:
    """Neither of a client that vanished, nor of a backend, nor of one that nobody answers."""
    with lab["nas"].listen(9001) as server, ExitStack() as stack:
        server.settimeout(DEADLINE)
        for who in ("client", "nas"):
            client = stack.enter_context(coming(lab, 8443))
            backend = stack.enter_context(accepted(server))
            client.sendall(b"there")
            assert read(backend, 5) == b"there"
            assert _established(lab) >= {":8443", ":9001"}
            with silent(lab[who]):
                with suppress(ConnectionResetError, BrokenPipeError):  # keep-alive may have found it out before
                    client.sendall(b"is anybody there?")
                    backend.sendall(b"is anybody there?")
                proxy.ended(own(client), "peer_vanished")
        proxy.ended(refused_at(lab, 8445), "backend_refused")
        wait_until(lambda: not {":8443", ":8445", ":9001"} & _established(lab), DEADLINE, "no socket is left")
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "none is open")


def _established(lab: Lab) -> set[str]:
    """Ports of the proxy's own connections, which those who vanished may not know to be over."""
    listed = lab["home"].run(["ss", "-Htn", "state", "established"], check=True).stdout
    return set(re.findall(r":\d+\b", listed))
