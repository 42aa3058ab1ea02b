"""A backend that sees clients and bans one: that one is refused, and the candidate stays for all others.

banned, welcome -- internet -- home (the proxy) -- lan -- nas, whose way to the internet leads by home
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.realise.lab import Lab
from tests.proxy.ends import DEADLINE, own
from tests.proxy.running import Proxy, running_in

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24]}
  lan: {prefixes: [192.168.1.0/24]}
nodes:
  banned: {links: {internet: 198.51.100.66}}
  welcome: {links: {internet: 198.51.100.67}}
  home: {role: router, links: {internet: 198.51.100.1, lan: 192.168.1.1}}
  nas: {links: {lan: 192.168.1.10}}
"""
CONFIG = """
[listener.in]
tcp = ["198.51.100.1:8443"]
[[rule]]
to = "nas"
[backend.nas]
targets = ["192.168.1.10:9001", "192.168.1.10:9002"]
source = "client"
eject = {failures = 1, duration = "1h"}
[transparent]
manage_rules = true
"""
BAN = """
table inet ban {
    chain input {
        type filter hook input priority filter; policy accept;
        ip saddr 198.51.100.66 tcp dport 9001 reject with tcp reset;
    }
}
"""


@pytest.fixture(scope="module")
def lab(lab_folder: Path) -> Iterator[Lab]:
    file = lab_folder / "t.yaml"
    file.write_text(TOPOLOGY)
    with Lab.up(file, name=f"ep-ban-{os.getpid()}") as found:
        found["nas"].run(["nft", "-f", "-"], input=BAN, check=True)
        yield found


@pytest.fixture
def proxy(lab: Lab, lab_folder: Path) -> Iterator[Proxy]:
    with running_in(lab["home"], CONFIG, "127.0.0.1", lab_folder) as found:
        yield found


def led_to(lab: Lab, proxy: Proxy, who: str, *open_ports: int) -> int:
    """The port of the candidate to which a client is led, of those where somebody is."""
    with ExitStack() as stack:
        for port in open_ports:
            stack.enter_context(lab["nas"].listen(port, "192.168.1.10"))
        client = stack.enter_context(lab[who].connect(("198.51.100.1", 8443), DEADLINE))
        line = proxy.wait_for(lambda line: line["peer"] == own(client) and line["target"], "its target")
        return int(line["target"].rsplit(":", 1)[1])


def test_a_candidate_that_bans_one_client_is_not_ejected(lab: Lab, proxy: Proxy) -> None:
    for _ in range(3):
        assert led_to(lab, proxy, "banned", 9001, 9002) == 9002
    assert led_to(lab, proxy, "welcome", 9001, 9002) == 9001
    assert led_to(lab, proxy, "banned", 9002) == 9002
    assert led_to(lab, proxy, "welcome", 9002) == 9002, "nobody else is let in either"
    assert led_to(lab, proxy, "welcome", 9001, 9002) == 9002, "so it rests"
