"""The client's endpoint at the backend when ports are scarce: just given up, or all taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy import proxy_protocol as pp
from tests.proxy.ends import DEADLINE, accepted, read, read_all
from tests.proxy.running import Proxy, running_in
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24]}
  lan: {prefixes: [192.168.1.0/24]}
nodes:
  client: {links: {internet: 198.51.100.66}}
  home: {role: router, links: {internet: 198.51.100.1, lan: 192.168.1.1}}
  nas: {links: {lan: 192.168.1.10}}
"""
CLIENT, HOME, NAS = "198.51.100.66", "198.51.100.1", "192.168.1.10"
BACKENDS = {8001: 9001, 8002: 9002, 8004: 9001, 8005: 9002}  # by the port that is asked for
CONFIG = """
[listener.in]
tcp = ["0.0.0.0:8001-8002"]
[listener.spoken-for]
tcp = ["0.0.0.0:8004-8005"]
proxy_header = [{from = "198.51.100.0/24", policy = "require"}]
[transparent]
manage_rules = true
""" + "".join(
    f"""
[[rule]]
ports = [{port}]
to = "b{port}"
[backend.b{port}]
targets = ["{NAS}:{backend}"]
source = "client"
"""
    for port, backend in BACKENDS.items()
)
FEW = 100
FIRST = 50_000


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture(scope="module")
def proxy(lab: Lab, lab_folder: Path) -> Iterator[Proxy]:
    folder = lab_folder / "managed"
    folder.mkdir()
    with running_in(lab["home"], CONFIG, "127.0.0.1", folder) as found:
        yield found


def sysctl(node: Node, name: str, value: str) -> None:
    node.run(["sh", "-ec", f"echo '{value}' > /proc/sys/net/ipv4/{name}"], check=True)


def in_time_wait(node: Node) -> str:
    return node.run(["ss", "-Htan", "state", "time-wait", "dst", f"{NAS}:9001"], check=True).stdout


@pytest.mark.essential
def test_a_client_whose_endpoint_waits_at_the_proxy_may_come_again(lab: Lab, proxy: Proxy) -> None:
    home, client = lab["home"], lab["client"]
    sysctl(client, "tcp_max_tw_buckets", "0")  # so that the client itself forgets it
    with lab["nas"].listen(9001, NAS) as server:
        server.settimeout(DEADLINE)
        for _ in range(3):
            with client.connect((HOME, 8001), DEADLINE, source=(CLIENT, FIRST)) as coming:
                coming.sendall(b"there")
                with accepted(server) as backend:
                    assert read(backend, 5) == b"there"
                    assert backend.getpeername()[0] == CLIENT
                    coming.shutdown(socket.SHUT_WR)  # first, so that it is the proxy who waits
                    assert read_all(backend) == b""
                    backend.sendall(b"back")
                assert read_all(coming) == b"back"
            wait_until(lambda: f"{CLIENT}:{FIRST}" in in_time_wait(home), DEADLINE, "the wait")
    wait_until(lambda: len(proxy.lines_of(f"{CLIENT}:{FIRST}")) == 3, DEADLINE, "the lines")
    lines = proxy.lines_of(f"{CLIENT}:{FIRST}")
    assert [line["close"] for line in lines] == ["client_closed"] * 3
    assert lines[0]["source"] == "client_endpoint"
    assert {line["source"] for line in lines} <= {"client_endpoint", "client_address"}


def test_twice_as_many_connections_as_there_are_ports_go_to_two_backends(lab: Lab, proxy: Proxy) -> None:
    """Also of a client that is spoken for at one endpoint all the time, and so needs ports of the kernel's choice."""
    sysctl(lab["home"], "ip_local_port_range", f"{FIRST} {FIRST + FEW - 1}")
    with ExitStack() as stack:
        servers = {port: stack.enter_context(lab["nas"].listen(port, NAS)) for port in (9001, 9002)}
        for asked in (8004, 8005):
            server = servers[BACKENDS[asked]]
            server.settimeout(DEADLINE)
            ports = set()
            for _ in range(FEW):
                client = lab["client"].connect((HOME, asked), DEADLINE, source=(CLIENT, 0))
                stack.enter_context(client)
                client.sendall(pp.v2((("203.0.113.7", FIRST), (HOME, asked))) + b"there")
                backend = stack.enter_context(accepted(server))
                assert read(backend, 5) == b"there", proxy.said
                assert backend.getpeername()[0] == "203.0.113.7"
                ports.add(backend.getpeername()[1])
            assert len(ports) == FEW
