"""Who is refused is told to the kernel's packet filter, which then keeps him from the proxy.

stranger, welcome -- internet -- edge (the proxy)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.realise.lab import Lab
from tests.proxy.ends import DEADLINE, own
from tests.proxy.running import Proxy, running_in

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
nodes:
  stranger: {links: {internet: [198.51.100.66, "2001:db8:1::66"]}}
  welcome: {links: {internet: [198.51.100.67, "2001:db8:1::70"]}}
  edge: {links: {internet: [198.51.100.1, "2001:db8:1::1"]}}
"""
CONFIG = """
deny = ["198.51.100.128/25"]
[listener.in]
tcp = ["198.51.100.1:8443", "[2001:db8:1::1]:8443"]
[[rule]]
to = "nas"
[backend.nas]
targets = ["127.0.0.1:9001"]
"""
# The owner's own: the rules count, and answer with a reset of the kernel's.
RULES = """
add chain inet own in { type filter hook input priority filter; policy accept; }
add rule inet own in ip saddr @edgeproxy_denied4 counter reject with tcp reset
add rule inet own in ip6 saddr @edgeproxy_denied6 counter reject with tcp reset
"""
ADDRESSES = ("198.51.100.1", "2001:db8:1::1")


@pytest.fixture(scope="module")
def lab(lab_folder: Path) -> Iterator[Lab]:
    file = lab_folder / "t.yaml"
    file.write_text(TOPOLOGY)
    with Lab.up(file, name=f"ep-sets-{os.getpid()}") as found:
        yield found


@pytest.fixture
def proxy(lab: Lab, lab_folder: Path) -> Iterator[Proxy]:
    with lab["edge"].listen(9001, "127.0.0.1"), running_in(lab["edge"], CONFIG, "127.0.0.1", lab_folder) as found:
        yield found


def fill(lab: Lab, proxy: Proxy) -> None:
    lab["edge"].run(["nft", "-f", "-"], input=proxy.ask("denied", "--nft", "own"), check=True)


def dropped(lab: Lab) -> list[int]:
    """Packets that each of the owner's rules met."""
    told = json.loads(lab["edge"].run(["nft", "--json", "list", "chain", "inet", "own", "in"], check=True).stdout)
    rules = [one["rule"]["expr"] for one in told["nftables"] if "rule" in one]
    return [part["counter"]["packets"] for expressions in rules for part in expressions if "counter" in part]


def is_served(proxy: Proxy, peer: str) -> None:
    proxy.wait_for(lambda line: line["peer"] == peer and line["target"], f"{peer} is served")


def held(lab: Lab, name: str) -> str:
    return lab["edge"].run(["nft", "list", "set", "inet", "own", name], check=True).stdout


def test_the_kernel_keeps_away_who_is_refused_until_he_is_let_in_again(lab: Lab, proxy: Proxy) -> None:
    refused = ["198.51.100.66", "2001:db8:1::66", "198.51.100.200"]
    proxy.ask("deny", *refused, "2001:db8:1::66/127", "--for", "1h")
    proxy.ask("deny", "203.0.113.7", "--for", "3650d")
    fill(lab, proxy)
    lab["edge"].run(["nft", "-f", "-"], input=RULES, check=True)
    for address in ADDRESSES:
        with pytest.raises(ConnectionRefusedError):
            lab["stranger"].connect((address, 8443), DEADLINE)
        with lab["welcome"].connect((address, 8443), DEADLINE) as client:
            is_served(proxy, own(client))
    assert dropped(lab) == [1, 1]
    peers = {line["peer"].rsplit(":", 1)[0] for line in proxy.lines()}
    assert not peers & {"198.51.100.66", "[2001:db8:1::66]"}, "the proxy never saw him"
    assert "198.51.100.66 timeout 1h" in held(lab, "edgeproxy_denied4")
    assert "198.51.100.128/25" in held(lab, "edgeproxy_denied4"), "what is for ever has no time"
    assert "203.0.113.7 timeout 3650d" in held(lab, "edgeproxy_denied4"), "the longest that there is"
    proxy.ask("undeny", *refused, "2001:db8:1::66/127", "203.0.113.7")
    fill(lab, proxy)
    for address in ADDRESSES:
        with lab["stranger"].connect((address, 8443), DEADLINE) as client:
            is_served(proxy, own(client))
    assert "timeout" not in held(lab, "edgeproxy_denied4").split("elements")[1]
    assert "elements" not in held(lab, "edgeproxy_denied6")
