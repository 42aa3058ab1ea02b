"""Ends that fall silent or cannot be reached, in a lab: nothing that no packet tells is waited for for ever.

client -- internet -- home (the proxy) -- lan -- nas
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import DEADLINE, accepted, is_reset, own, read
from tests.proxy.running import Proxy, running_in

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24]}
  lan: {prefixes: [192.168.1.0/24]}
nodes:
  client: {links: {internet: 198.51.100.66}}
  home: {role: router, links: {internet: 198.51.100.1, lan: 192.168.1.1}}
  nas: {links: {lan: 192.168.1.10}}
"""
CONFIG = """
[listener.in]
tcp = ["0.0.0.0:8443-8445"]
[[rule]]
ports = [8443]
to = "nas"
[[rule]]
ports = [8444]
to = "nowhere"
[[rule]]
ports = [8445]
to = "silent"
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
SILENCE = """
table inet silence {
    chain output { type filter hook output priority filter; policy accept; oifname { "internet", "lan" } drop; }
    chain input { type filter hook input priority filter; policy accept; iifname { "internet", "lan" } drop; }
}
"""


@pytest.fixture(scope="module")
def lab(lab_folder: Path) -> Iterator[Lab]:
    file = lab_folder / "t.yaml"
    file.write_text(TOPOLOGY)
    with Lab.up(file, name=f"ep-gone-{os.getpid()}") as found:
        found["home"].run(["ip", "route", "add", "unreachable", "203.0.113.0/24"], check=True)
        yield found


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


@pytest.mark.parametrize("who", ["client", "nas"])
def test_an_end_that_acknowledges_nothing_has_vanished_and_the_other_is_reset(lab: Lab, proxy: Proxy, who: str) -> None:
    with lab["nas"].listen(9001) as server, lab["client"].connect(("home", 8443), DEADLINE) as client:
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


def refused_at(lab: Lab, port: int) -> str:
    with lab["client"].socket(bind=("198.51.100.66", 0)) as client:
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


def test_a_backend_that_answers_no_packet_has_its_time(lab: Lab, proxy: Proxy) -> None:
    with silent(lab["nas"]):
        line = proxy.ended(refused_at(lab, 8445), "backend_timeout")
    assert line["total_us"] >= 400_000
    proxy.ended(refused_at(lab, 8445), "backend_refused")


def test_no_socket_is_left_behind(lab: Lab, proxy: Proxy) -> None:
    """Every connection of the tests before is gone at the proxy."""
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "none is open")
    wait_until(lambda: not {":8443", ":9001"} & _established_ports(lab), DEADLINE, "no socket is left")


def _established_ports(lab: Lab) -> set[str]:
    listed = lab["home"].run(["ss", "-Htn", "state", "established"], check=True).stdout
    return set(re.findall(r":\d+\b", listed))
