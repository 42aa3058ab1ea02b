"""What a firewall lets in by IPv6 is certified as well, beside what the topology says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab.certify import inbound, probing
from lab.certify.bench import Bench
from lab.certify.certificate import Verdict
from lab.certify.certify import certify_nat
from lab.certify.seen import Seen
from lab.realise.lab import Lab

pytestmark = pytest.mark.alone

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  lan1: {prefixes: [192.168.1.0/24, "2001:db8:a::/64"]}
  lan2: {prefixes: [192.168.2.0/24, "2001:db8:b::/64"]}
  lan3: {prefixes: [192.168.3.0/24, "2001:db8:c::/64"]}
nodes:
  usual: {role: router, links: {internet: auto, lan1: auto}, nat: {outside: internet}}
  simple: {role: router, links: {internet: auto, lan2: auto}, nat: {outside: internet}, firewall: {ipv6: rfc6092}}
  open: {role: router, links: {internet: auto, lan3: auto}, nat: {outside: internet}, firewall: {ipv6: open}}
"""
CLOSED, OPEN = ("address_and_port_dependent", "nothing passes"), ("endpoint_independent", "passes")


def test_ipv6_is_let_in_as_declared_or_differs(module_up: Callable[..., Lab]) -> None:
    lab = module_up(TOPOLOGY)
    assert measured(lab) == {
        "usual": (*CLOSED, {Verdict.HOLDS}),
        "simple": (*CLOSED, {Verdict.HOLDS}),
        "open": (*OPEN, {Verdict.HOLDS}),
    }
    let_in = ["nft", "insert", "rule", "inet", "lab", "forward", "meta", "nfproto", "ipv6", "accept"]
    lab["usual"].run(let_in, check=True)
    lab["open"].run([*let_in[:-1], "ct", "state", "new", "iifname", "internet", "drop"], check=True)
    assert measured(lab) == {
        "usual": (*OPEN, {Verdict.DIFFERS}),
        "simple": (*CLOSED, {Verdict.HOLDS}),
        "open": (*CLOSED, {Verdict.DIFFERS}),
    }


def test_it_can_be_asked_again_at_once(module_up: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the machine was late."""
    found: list[dict[str, str]] = []

    async def twice(bench: Bench, *_: Any) -> Seen:
        found.extend([await inbound.ipv6(bench), await inbound.ipv6(bench)])
        return Seen()

    monkeypatch.setattr(probing, "_everything", twice)
    certify_nat(module_up(TOPOLOGY), ["usual"])
    assert found[0] == found[1]
    assert found[0]["filtering"] == CLOSED[0]


def measured(lab: Lab) -> dict[str, tuple[str | None, str | None, set[Verdict]]]:
    found = {}
    for each in certify_nat(lab, patience=0.1):
        rows = [each.row(topic) for topic in ("IPv6 filtering", "IPv6 that nobody asked for")]
        found[each.router] = (rows[0].measured, rows[1].measured, {row.verdict for row in rows})
    return found
