"""An edge whose address no interface has: the provider translates it, one to one, and what leads there leads back."""

from __future__ import annotations

import itertools
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.proxy.ends import accepted, own, read, read_all
from tests.proxy.running import DEADLINE, Proxy, running_in
from tests.proxy.udp_bench import drops, flow_ended, flows
from tests.realise.conftest import Up

TOPOLOGY = """
#   client -- internet -- provider (203.0.113.10 is 10.0.0.5) -- cloud -- edge
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:c::/64"]}
  cloud: {prefixes: [10.0.0.0/24, "fd00::/64"]}
nodes:
  client:
    links: {internet: [198.51.100.7, "2001:db8:c::7"]}
    routes: [{to: default, via: 198.51.100.1}, {to: default, via: "2001:db8:c::1"}]
  provider:
    role: router
    links: {internet: [198.51.100.1, "2001:db8:c::1"], cloud: [10.0.0.1, "fd00::1"]}
  edge:
    links: {cloud: [10.0.0.5, "fd00::5"]}
    routes: [{to: default, via: 10.0.0.1}, {to: default, via: "fd00::1"}]
    hosts: {edge4.example.net: 203.0.113.10, edge6.example.net: "2001:db8:a::10"}
"""
# As AWS does it; `back` counts what the edge itself opens to its own address.
PROVIDER = """
table inet provider {
    counter back {}
    chain before {
        type nat hook prerouting priority dstnat;
        iifname cloud ip daddr 203.0.113.10 counter name back
        iifname cloud ip6 daddr 2001:db8:a::10 counter name back
        ip daddr 203.0.113.10 dnat ip to 10.0.0.5
        ip6 daddr 2001:db8:a::10 dnat ip6 to fd00::5
    }
    chain after {
        type nat hook postrouting priority srcnat;
        ip saddr 10.0.0.5 snat ip to 203.0.113.10
        ip6 saddr fd00::5 snat ip6 to 2001:db8:a::10
    }
}
"""
PUBLIC = {4: "203.0.113.10", 6: "2001:db8:a::10"}
CLIENT = {4: "198.51.100.7", 6: "2001:db8:c::7"}
PORTS = itertools.count(5001)  # of clients, so that each has a line of its own in the log
TURNS = 5
CONFIG = f"""
[listener.in]
tcp = ["10.0.0.5:8404", "[::]:8406", "10.0.0.5:8500"]
udp = ["0.0.0.0:8404", "[fd00::5]:8406", "10.0.0.5:8500"]
[[rule]]
ports = [8404]
to = "four"
[[rule]]
ports = [8406]
to = "six"
[[rule]]
to = "other"
[backend.four]
targets = ["edge4.example.net:$port"]
connect_timeout = "1m"
[backend.six]
targets = ["edge6.example.net:$port"]
connect_timeout = "1m"
[backend.other]
targets = ["edge4.example.net:9001"]
connect_timeout = "1m"
[limits]
connections_per_source = {TURNS}
udp_flows_per_source = {TURNS}
"""
OWN = """
[targets]
own = ["203.0.113.10/32", "2001:db8:a::10/128"]
"""


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    made = module_up(TOPOLOGY)
    made["provider"].run(["nft", "-f", "-"], input=PROVIDER, check=True)
    return made


@contextmanager
def at_edge(lab: Lab, folder: Path, text: str) -> Iterator[Proxy]:
    lab["provider"].run(["nft", "reset", "counter", "inet", "provider", "back"], check=True)
    with running_in(lab["edge"], text, "127.0.0.1", folder) as proxy:
        yield proxy


def came_back(lab: Lab) -> int:
    """Connections and flows that the edge opened to its own address, as the provider counts them."""
    told = lab["provider"].run(["nft", "-j", "list", "counter", "inet", "provider", "back"], check=True).stdout
    (count,) = [one["counter"]["packets"] for one in json.loads(told)["nftables"] if "counter" in one]
    return int(count)


def of_public(proxy: Proxy, version: int) -> Counter[str]:
    """How connections ended that came from the edge's own address."""
    begin = f"[{PUBLIC[6]}]:" if version == 6 else f"{PUBLIC[4]}:"
    return Counter(line["close"] for line in proxy.lines() if line["peer"].startswith(begin))


def wait_told(proxy: Proxy, version: int) -> None:
    """The proxy suspects, and says once, that its own address leads back."""
    told = f"as many come from {PUBLIC[version]} as one source may"
    wait_until(lambda: proxy.said.count(told) == 1, DEADLINE, "the suspicion")


def asked(lab: Lab, port: int, version: int) -> str:
    """A client that connects, speaks and sees the end: where it came from."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with lab["client"].socket(family, bind=(CLIENT[version], next(PORTS))) as client:
        client.settimeout(DEADLINE)
        who = own(client)
        with suppress(ConnectionError):  # who is refused at once may see it while connecting
            client.connect((PUBLIC[version], port))
            client.sendall(b"?")
            assert read_all(client) == b""
        return who


@pytest.mark.essential
@pytest.mark.parametrize("version", [4, 6])
def test_one_client_comes_again_and_again_unless_the_file_says_what_leads_here(
    lab: Lab, folder: Path, version: int
) -> None:
    port = 8400 + version
    with at_edge(lab, folder, CONFIG) as proxy:
        proxy.line(asked(lab, port, version))
        wait_until(lambda: of_public(proxy, version).total() == TURNS + 1, DEADLINE, "all have come and gone")
        assert of_public(proxy, version)["over_limit_source"] == 1, "the bound of one source ends it"
        assert came_back(lab) == TURNS + 1
        wait_told(proxy, version)
        proxy.reload(CONFIG + OWN)
        proxy.ended(asked(lab, port, version), "self_loop")
        assert of_public(proxy, version).total() == came_back(lab) == TURNS + 1, "no more"


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_comes_again_and_again_unless_the_file_says_what_leads_here(
    lab: Lab, folder: Path, version: int
) -> None:
    to = (PUBLIC[version], 8400 + version)
    with at_edge(lab, folder, CONFIG) as proxy:
        with lab["client"].udp(0, CLIENT[version]) as client:
            client.sendto(b"?", to)
            wait_until(lambda: drops(proxy) == {"flow_limit": 1}, DEADLINE, "the bound of one source ends it")
            assert flows(proxy) == came_back(lab) == TURNS + 1, "of which the last one was not let in"
            wait_told(proxy, version)
        proxy.reload(CONFIG + OWN)
        with lab["client"].udp(0, CLIENT[version]) as client:
            client.sendto(b"?", to)
            flow_ended(proxy, client, "self_loop")
        assert came_back(lab) == TURNS + 1, "no more"
        assert drops(proxy)["flow_limit"] == 1


def test_another_port_of_the_own_address_is_no_circle(lab: Lab, folder: Path) -> None:
    with at_edge(lab, folder, CONFIG + OWN), lab["edge"].listen(9001, "10.0.0.5") as server:
        server.settimeout(DEADLINE)
        with lab["client"].connect((PUBLIC[4], 8500), DEADLINE) as client:
            client.sendall(b"?")
            with accepted(server) as backend:
                assert (backend.getpeername()[0], read(backend, 1)) == (PUBLIC[4], b"?")
        assert came_back(lab) == 1


def test_a_client_that_comes_by_the_own_address_is_seen_as_any_other(lab: Lab, folder: Path) -> None:
    text = CONFIG.replace('"edge4.example.net:$port"]', '"127.0.0.1:9001"]\nsource = "client"') + OWN
    text += "[transparent]\nmanage_rules = true\n"
    with at_edge(lab, folder, text), lab["edge"].listen(9001, "127.0.0.1") as server:
        server.settimeout(DEADLINE)
        with lab["edge"].connect((PUBLIC[4], 8404), DEADLINE) as client:
            client.sendall(b"?")
            with accepted(server) as backend:
                assert (backend.getpeername()[0], read(backend, 1)) == (PUBLIC[4], b"?")
                backend.sendall(b"!")
                assert client.recv(1) == b"!", "no socket here has that endpoint as its own, so answers find the proxy"
