"""A backend of datagrams that cannot be reached, however it is told: the next candidate gets them; the log says why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.message
import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.running import DEADLINE, Proxy, running_in
from tests.proxy.udp_bench import drops, flow_ended, heard
from tests.realise.conftest import Up

TOPOLOGY = """
networks:
  inside: {prefixes: [10.0.0.0/24, "fd00::/64"]}
nodes:
  home:
    links: {inside: [10.0.0.1, "fd00::1"]}
    hosts: {nas.lan: 10.0.0.9}
  service:
    links: {inside: [10.0.0.9, "fd00::9"]}
    sysctls: {net.ipv4.icmp_ratelimit: 0, net.ipv6.icmp.ratelimit: 0}
"""
TEXT = """
[listener.in]
udp = ["127.0.0.1:8443"]
[[rule]]
to = "b"
[backend.b]
targets = ["FIRST:9001", "SECOND:9002"]
connect_timeout = "60s"
"""

NAMED = r"""
[listener.in]
udp = ["127.0.0.1:8443"]
[[rule]]
protocols = ["dns"]
server_name = '^(?P<host>[^.]+)\.example\.net$'
to = "chosen"
[backend.chosen]
targets = ["$host.lan:9001"]
allow_suffixes = [".lan"]
connect_timeout = "60s"
eject = {failures = 1, duration = "1h"}
fallback = "spare"
[backend.spare]
targets = ["10.0.0.9:9002"]
"""

# What nft(8) can refuse with; each is another code of ICMP, and another error of the kernel's for whoever has sent.
REFUSALS = (
    [("icmp", word) for word in ("port", "net", "host", "prot")]
    + [("icmp", word) for word in ("net-prohibited", "host-prohibited", "admin-prohibited")]
    + [("icmpv6", word) for word in ("port", "no-route", "addr", "admin-prohibited", "policy-fail", "reject-route")]
)


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@contextmanager
def at_home(lab: Lab, folder: Path, first: str, second: str) -> Iterator[Proxy]:
    """A proxy at home with these two candidates, and a client beside it."""
    with running_in(lab["home"], TEXT.replace("FIRST", first).replace("SECOND", second), "127.0.0.1", folder) as proxy:
        yield proxy


@contextmanager
def filtered(node: Node, hook: str, ports: str, verdict: str) -> Iterator[None]:
    """A firewall of a node that does this to datagrams to these ports."""
    chain = f"type filter hook {hook} priority 0;"
    rules = f"table inet t {{ chain c {{ {chain} udp dport {ports} {verdict}; }}; }}"
    node.run(["nft", rules], check=True)
    try:
        yield
    finally:
        node.run(["nft", "delete table inet t"], check=True)


def is_led_to(lab: Lab, address: str, port: int = 9002, at: int = 8443) -> None:
    with lab["service"].udp(port, address, timeout=DEADLINE) as candidate, lab["home"].udp(timeout=DEADLINE) as client:
        client.sendto(b"?", ("127.0.0.1", at))
        asked, sender = heard(candidate)
        assert asked == b"?"
        candidate.sendto(b"!", sender)
        assert heard(client)[0] == b"!"


def ends_without_one(lab: Lab, proxy: Proxy, reason: str) -> None:
    with lab["home"].udp(0, "127.0.0.1") as client:
        client.sendto(b"?", ("127.0.0.1", 8443))
        flow_ended(proxy, client, reason)


@pytest.mark.parametrize(("protocol", "word"), REFUSALS)
def test_a_candidate_that_icmp_speaks_against_gives_way_to_the_next_whatever_the_code(
    lab: Lab, folder: Path, protocol: str, word: str
) -> None:
    address = "10.0.0.9" if protocol == "icmp" else "fd00::9"
    target = address if protocol == "icmp" else f"[{address}]"
    kind = f"{word}-unreachable" if word in ("port", "net", "host", "prot", "addr") else word
    refusal = f"reject with {protocol} type {kind}"
    with at_home(lab, folder, target, target) as proxy:
        with filtered(lab["service"], "input", "9001", refusal):
            is_led_to(lab, address)
        with filtered(lab["service"], "input", "9001-9002", refusal):
            ends_without_one(lab, proxy, "backend_refused" if word == "port" else "backend_unreachable")
        assert drops(proxy) == {}


def test_a_candidate_whose_host_is_not_there_gives_way_to_the_next(lab: Lab, folder: Path) -> None:
    with at_home(lab, folder, "10.0.0.77", "10.0.0.9"):
        is_led_to(lab, "10.0.0.9")


def test_a_candidate_that_this_hosts_own_firewall_forbids_gives_way_to_the_next(lab: Lab, folder: Path) -> None:
    with at_home(lab, folder, "10.0.0.9", "10.0.0.9"), filtered(lab["home"], "output", "9001", "drop"):
        is_led_to(lab, "10.0.0.9")


def test_a_candidate_that_this_hosts_own_firewall_forbids_is_not_ejected(
    lab: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the candidate that fails; of TCP, which shares its standing, nothing may be forbidden."""
    monkeypatch.setattr(f"{__name__}.TEXT", f'{TEXT}eject = {{failures = 1, duration = "1h"}}\n')
    with at_home(lab, folder, "10.0.0.9", "10.0.0.9"):
        with filtered(lab["home"], "output", "9001", "drop"):
            is_led_to(lab, "10.0.0.9")
        with lab["service"].udp(9002, "10.0.0.9"):
            is_led_to(lab, "10.0.0.9", 9001)


@pytest.mark.parametrize(("word", "then"), [("host", 9002), ("port", 9001)])
def test_a_host_that_clients_choose_the_port_of_is_ejected_when_it_is_gone_and_not_for_closed_ports(
    lab: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch, word: str, then: int
) -> None:
    listens, more = 'udp = ["127.0.0.1:9001", "127.0.0.1:9003"]', 'eject = {failures = 2, duration = "1h"}\n'
    text = TEXT.replace('udp = ["127.0.0.1:8443"]', listens).replace("FIRST:9001", "FIRST:$port") + more
    monkeypatch.setattr(f"{__name__}.TEXT", text)
    with at_home(lab, folder, "10.0.0.9", "10.0.0.9"):
        refusal = f"reject with icmp type {word}-unreachable"
        with filtered(lab["service"], "input", "{ 9001, 9003 }", refusal):
            for at in (9001, 9003):
                is_led_to(lab, "10.0.0.9", at=at)
        with lab["service"].udp({9001: 9002, 9002: 9001}[then], "10.0.0.9"):  # somebody is at either
            is_led_to(lab, "10.0.0.9", then, at=9001)


@pytest.mark.parametrize(("word", "then"), [("host", 9002), ("port", 9001)])
def test_a_host_that_clients_name_rests_when_it_is_gone_and_not_for_closed_ports(
    lab: Lab, folder: Path, word: str, then: int
) -> None:
    asked = dns.message.make_query("nas.example.net", "A").to_wire()
    with ExitStack() as stack:
        proxy = stack.enter_context(running_in(lab["home"], NAMED, "127.0.0.1", folder))
        candidates = {port: stack.enter_context(lab["service"].udp(port, "10.0.0.9")) for port in (9001, 9002)}

        def ask(port: int) -> None:
            with lab["home"].udp(timeout=DEADLINE) as client:
                client.sendto(asked, ("127.0.0.1", 8443))
                candidates[port].settimeout(DEADLINE)
                question, sender = heard(candidates[port])
                assert question == asked
                candidates[port].sendto(b"!", sender)
                assert heard(client)[0] == b"!"

        with filtered(lab["service"], "input", "9001", f"reject with icmp type {word}-unreachable"):
            ask(9002)
        ask(then)
        assert drops(proxy) == {}


def test_a_backend_that_has_answered_may_be_gone_for_a_while(lab: Lab, folder: Path) -> None:
    with (
        at_home(lab, folder, "10.0.0.9", "10.0.0.9") as proxy,
        lab["service"].udp(9001, "10.0.0.9", timeout=DEADLINE) as first,
        lab["home"].udp(timeout=DEADLINE) as client,
    ):
        client.sendto(b"?", ("127.0.0.1", 8443))
        sender = heard(first)[1]
        first.sendto(b"!", sender)
        assert heard(client)[0] == b"!"
        with filtered(lab["service"], "input", "9001", "counter reject with icmp type host-unreachable"):
            client.sendto(b"lost", ("127.0.0.1", 8443))
            wait_until(lambda: _refused(lab) == 1, DEADLINE, "it is refused")
            client.sendto(b"lost too", ("127.0.0.1", 8443))
            wait_until(lambda: _refused(lab) == 2, DEADLINE, "it is refused")
        client.sendto(b"again", ("127.0.0.1", 8443))
        assert heard(first) == (b"again", sender), "the same flow"
        assert drops(proxy) == {}


def _refused(lab: Lab) -> int:
    shown = lab["service"].run(["nft", "list", "table", "inet", "t"], check=True).stdout
    return int(shown.split("counter packets ")[1].split()[0])
