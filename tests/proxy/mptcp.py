"""A lab for Multipath TCP between an edge and a home with two lines, and what its tests ask the kernel.

client -- access -- edge == fibre, lte == home
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import DEADLINE, PORTS, accepted, read
from tests.proxy.running import Proxy, running_in

IPPROTO_MPTCP = 262  # linux/in.h
DISABLED = (
    "mptcp: this kernel makes no sockets of MPTCP (net.mptcp.enabled is 0): all goes by plain TCP; it takes "
    "`sysctl -w net.mptcp.enabled=1`, and a restart"
)
TOPOLOGY = """
networks:
  access: {prefixes: [198.51.100.0/24]}
  fibre: {prefixes: [10.1.0.0/24]}
  lte: {prefixes: [10.2.0.0/24]}
nodes:
  client: {links: {access: 198.51.100.66}}
  edge: {links: {access: 198.51.100.1, fibre: 10.1.0.1, lte: 10.2.0.1}}
  home: {links: {fibre: 10.1.0.2, lte: 10.2.0.2}}
"""
EDGE = """
[listener.in]
tcp = ["0.0.0.0:8443"]
[[rule]]
to = "home"
[backend.home]
targets = ["10.1.0.2:4443"]
send_proxy = "v2"
send_proxy_with = ["unique_id"]
mptcp = true
"""
HOME = """
[listener.in]
tcp = ["0.0.0.0:4443"]
mptcp = true
proxy_header = [{from = "10.1.0.0/24", policy = "optional"}]
[[rule]]
to = "out"
[backend.out]
targets = ["127.0.0.1:9001"]
"""
# Where data that nobody acknowledges ends a connection soon: of MPTCP that is not so, of which a note tells.
TIMES = """
[timeouts]
keepalive = "1s"
user_timeout = "2s"
"""
ASKED = "mptcp = true\n"
BY = 'edgeproxy_mptcp_connections_total{{peer="{}",protocol="{}"}}'
FLAG = "net.mptcp.enabled"


def _has_mptcp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError:
        return False
    return True


needs_mptcp = pytest.mark.skipif(not _has_mptcp(), reason="the kernel makes no sockets of MPTCP")


def connections(node: Node, to: str) -> int:
    """Open connections by MPTCP of a node to this endpoint, or to any."""
    words = ["dst", to] if to else []
    return len(node.run(["ss", "-MnH", "state", "established", *words], check=True).stdout.splitlines())


def tell_ways(lab: Lab) -> None:
    """What a host with two lines, and an edge before it, tell their kernels."""
    lab["home"].run(["ip", "mptcp", "endpoint", "add", "10.2.0.2", "dev", "lte", "signal"], check=True)
    lab["edge"].run(["ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2"], check=True)


@contextmanager
def both(lab: Lab, folder: Path, edge: str = EDGE, home: str = HOME) -> Iterator[tuple[Proxy, Proxy]]:
    """The proxies of edge and home."""
    folders = [folder / "edge", folder / "home"]
    for made in folders:
        made.mkdir()
    with (
        running_in(lab["home"], home, "127.0.0.1", folders[1]) as at_home,
        running_in(lab["edge"], edge, "127.0.0.1", folders[0]) as at_edge,
    ):
        yield at_edge, at_home


def serving(lab: Lab) -> socket.socket:
    """Home's backend."""
    server = lab["home"].listen(9001)
    server.settimeout(DEADLINE)
    return server


def coming(lab: Lab) -> socket.socket:
    """A client by whose endpoint its line is found: none before had it."""
    client = lab["client"].connect(("198.51.100.1", 8443), DEADLINE, source=("198.51.100.66", next(PORTS)))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


@contextmanager
def joined(lab: Lab, server: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and its backend, between whom a byte has passed each way."""
    with coming(lab) as client, accepted(server) as backend:
        exchange(client, backend)
        yield client, backend


def exchange(client: socket.socket, backend: socket.socket) -> None:
    client.sendall(b"there")
    assert read(backend, 5) == b"there"
    backend.sendall(b"back")
    assert read(client, 4) == b"back"


def ways(node: Node, to: str) -> int:
    """Open TCP connections of the node to this address, ways of MPTCP among them."""
    return len(node.run(["ss", "-tnH", "state", "established", "dst", to], check=True).stdout.splitlines())


def counted(proxy: Proxy, peer: str, protocol: str) -> int:
    return int(proxy.metrics()[BY.format(peer, protocol)])
