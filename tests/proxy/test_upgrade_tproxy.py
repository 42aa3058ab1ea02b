"""Flows that TPROXY brings, across upgrades: each goes on, from and to the address and port that its client asked for.

client -- outside -- home (the proxy) -- inside -- service
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.proxy.ends import endpoint
from tests.proxy.running import DEADLINE, Proxy, edgeproxy, running_in
from tests.proxy.udp_bench import DIVERT, Address, drops, flows, heard, silent
from tests.proxy.upgrading import Heir, Message
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  outside: {prefixes: [192.0.2.0/24, "2001:db8::/64"]}
  inside: {prefixes: [10.0.0.0/24]}
nodes:
  client:
    links: {outside: [192.0.2.7, "2001:db8::7"]}
    routes: [{to: default, via: 192.0.2.1}, {to: default, via: "2001:db8::1"}]
  home: {role: router, links: {outside: [192.0.2.1, "2001:db8::1"], inside: 10.0.0.1}}
  service: {links: {inside: 10.0.0.9}}
"""
CONFIG = """
workers = 2
[listener.in]
udp = ["0.0.0.0:5000", "[::]:5000"]
arrival = "tproxy"
[[rule]]
to = "b"
[backend.b]
"""
OWN = CONFIG + 'targets = ["10.0.0.9:9001"]\n'
# At loopback of the proxy's own host, who sees the client's endpoint.
AS_CLIENT = (
    CONFIG + 'targets = ["127.0.0.1:9001", "[::1]:9001"]\nsource = "client"\n[transparent]\nmanage_rules = true\n'
)
# Addresses that no host has; the last ports are not those of the listener.
ASKED: list[Address] = [
    ("198.51.100.1", 5000),
    ("198.51.100.2", 5000),
    ("198.51.100.1", 5042),
    ("2001:db8:1::1", 5000),
    ("2001:db8:1::1", 5099),
]


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    lab = module_up(TOPOLOGY)
    lab["home"].run(["sh", "-ec", DIVERT], check=True)
    return lab


class Succession:
    """A proxy in a node, and those that take over from it."""

    def __init__(self, lab: Lab, proxy: Proxy, stack: ExitStack) -> None:
        self.proxy = proxy
        self._home, self._stack = lab["home"], stack
        self._wait_former = proxy.wait
        self._count = 0

    def upgrade(self) -> None:
        """A newer process serves when this returns, and the one before has ended."""
        path = self.proxy.folder / f"stderr.{self._count}"
        stderr = self._stack.enter_context(path.open("w"))
        argv = [edgeproxy(), "run", "-c", str(self.proxy.config), "--take-over"]
        process = self._stack.enter_context(self._home.start(argv, stderr=stderr))
        wait_until(lambda: "edgeproxy: ready" in path.read_text(), DEADLINE, "the upgrade")
        assert self._wait_former(DEADLINE) == 0, self.proxy.said
        self.proxy.pid, self._wait_former = process.pid, process.wait
        self._count += 1


@contextmanager
def succession(lab: Lab, folder: Path, text: str) -> Iterator[Succession]:
    with running_in(lab["home"], text, "127.0.0.1", folder) as proxy, ExitStack() as stack:
        yield Succession(lab, proxy, stack)


@dataclass
class Flow:
    """A client that asks one address; each datagram of it is told from all others."""

    client: socket.socket
    asked: Address
    sent: int = 0
    seen_as: set[Address] = field(default_factory=set)

    @property
    def own(self) -> Address:
        name = self.client.getsockname()
        return name[0], name[1]

    def send(self) -> None:
        self.sent += 1
        self.client.sendto(f"{self.own} {self.sent}".encode(), self.asked)

    def expects(self) -> bytes:
        return f"{self.own} {self.sent}".encode()


@contextmanager
def clients(lab: Lab, asked: list[Address]) -> Iterator[list[Flow]]:
    """Two of each address that is asked for."""
    with ExitStack() as stack:
        made = []
        for to in asked * 2:
            own = "2001:db8::7" if ":" in to[0] else "192.0.2.7"
            client = stack.enter_context(lab["client"].udp(0, own, timeout=DEADLINE))
            made.append(Flow(client, to))
        yield made


def serve(backends: list[socket.socket], flows: list[Flow]) -> None:
    """What the flows have sent last is heard by a backend, once; and its answer by who asked, from whom it asked."""
    by_word = {flow.expects(): flow for flow in flows}
    for backend in backends:
        is_ipv6 = backend.family == socket.AF_INET6
        for _ in [flow for flow in flows if len(backends) == 1 or (":" in flow.asked[0]) == is_ipv6]:
            word, sender = heard(backend)
            by_word[word].seen_as.add(sender)
            backend.sendto(b"to " + word, sender)
    for flow in flows:
        assert heard(flow.client) == (b"to " + flow.expects(), flow.asked)


@pytest.mark.essential
@pytest.mark.parametrize("source", ["own", "client"])
def test_flows_of_tproxy_keep_their_way_through_upgrades(lab: Lab, folder: Path, source: str) -> None:
    with ExitStack() as stack:
        if source == "own":
            backends = [lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE)]
        else:
            backends = [lab["home"].udp(9001, address, timeout=DEADLINE) for address in ("127.0.0.1", "::1")]
        for backend in backends:
            stack.enter_context(backend)
        upgrades = stack.enter_context(succession(lab, folder, OWN if source == "own" else AS_CLIENT))
        proxy, all_flows = upgrades.proxy, stack.enter_context(clients(lab, ASKED))
        for flow in all_flows:
            flow.send()
        serve(backends, all_flows)
        for _ in range(3):
            for flow in all_flows:
                flow.send()  # waits in the socket of whoever is there
            upgrades.upgrade()
            serve(backends, all_flows)
            for flow in all_flows:
                flow.send()
            serve(backends, all_flows)
            assert flows(proxy) == len(all_flows)
        with clients(lab, ASKED) as later:
            for flow in later:
                flow.send()
            serve(backends, later)
        assert [len(flow.seen_as) for flow in all_flows] == [1] * len(all_flows)
        if source == "client":
            assert all(flow.seen_as == {flow.own} for flow in all_flows)
        assert all(silent(end) for end in [*backends, *(flow.client for flow in all_flows)]), "nothing comes twice"
        assert drops(proxy) == {}
        told = {line["peer"]: line for line in proxy.connections()}
        for flow in all_flows:
            line = told[endpoint(flow.own)]
            assert line["original_dst"] == endpoint(flow.asked)
            assert line["bytes_in"] == sum(len(f"{flow.own} {number}") for number in range(1, flow.sent + 1))
        assert proxy.lines() == [], "none of them has ended"


def test_no_datagram_of_tproxy_is_lost_or_doubled_while_the_sockets_change_hands(lab: Lab, folder: Path) -> None:
    window, asked = 10, ("198.51.100.1", 5042)
    with (
        lab["service"].udp(9001, "10.0.0.9", timeout=0.05) as backend,
        lab["client"].udp(0, "192.0.2.7", timeout=DEADLINE) as client,
        succession(lab, folder, OWN) as upgrades,
    ):
        enough, through = threading.Event(), threading.Event()
        senders: set[Address] = set()

        def echo() -> None:
            while not through.is_set():
                with suppress(TimeoutError):
                    word, sender = backend.recvfrom(99)
                    senders.add(sender)
                    backend.sendto(word, sender)

        def speak() -> None:
            sent = came = 0
            try:
                while not enough.is_set() or came < sent:
                    while not enough.is_set() and sent < came + window:
                        client.sendto(str(sent).encode(), asked)
                        sent += 1
                    if came < sent:
                        assert heard(client) == (str(came).encode(), asked)
                        came += 1
            finally:
                through.set()

        threads = [threading.Thread(target=echo), threading.Thread(target=speak)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                upgrades.upgrade()
        finally:
            enough.set()
            for thread in threads:
                thread.join()
        assert (len(senders), drops(upgrades.proxy)) == (1, {})


@pytest.mark.parametrize("stage", ["taken", "given"])
def test_a_new_process_that_fails_leaves_the_flows_of_tproxy_to_the_old_one(lab: Lab, folder: Path, stage: str) -> None:
    with (
        lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE) as backend,
        succession(lab, folder, OWN) as upgrades,
        clients(lab, ASKED) as all_flows,
    ):
        proxy = upgrades.proxy
        for flow in all_flows:
            flow.send()
        serve([backend], all_flows)
        heir = Heir(proxy)
        offer = heir.hear_until("offer_ends")
        heir.say({"taken": {"endpoints": _endpoints(offer), "admin_socket": True}})
        if stage == "given":
            given = heir.hear_until("over")
            assert sum(len(message["flows"]) for message in given if isinstance(message, dict)) == len(all_flows)
            for flow in all_flows:
                flow.send()  # nobody receives it yet
        heir.close()
        wait_until(lambda: "did not take over" in proxy.said, DEADLINE, "word of it")
        if stage == "given":
            serve([backend], all_flows)
        for flow in all_flows:
            flow.send()
        serve([backend], all_flows)
        upgrades.upgrade()
        for flow in all_flows:
            flow.send()
        serve([backend], all_flows)
        assert [len(flow.seen_as) for flow in all_flows] == [1] * len(all_flows)
        assert flows(proxy) == len(all_flows)


def _endpoints(offer: list[Message]) -> list[Message]:
    return [message["sockets"]["endpoint"] for message in offer if isinstance(message, dict) and "sockets" in message]
