"""On a machine that is late a certificate says less, never what is not so."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

import pytest

from lab.certify import probing
from lab.certify.bench import Bench, Side
from lab.certify.certificate import Certificate, Verdict
from lab.certify.certify import certify_nat
from lab.certify.ear import holds, token
from lab.certify.lateness import LateError, Lateness
from lab.certify.packet import Packet
from lab.certify.seen import Seen
from lab.realise.lab import Lab

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24]}
  home: {prefixes: [192.168.1.0/24]}
  den: {prefixes: [192.168.2.0/24]}
nodes:
  kernel:
    role: router
    links: {internet: auto, home: auto}
    nat: &nat {outside: internet, timers: {udp: 1s, tcp_established: 1s, tcp_transitory: 1s, icmp: 1s}}
  natbox:
    role: router
    links: {internet: auto, den: auto}
    nat: {<<: *nat, mapping: address_dependent, filtering: address_dependent}
"""
BLOCKED = 1.1  # seconds, longer than the timers
LATE_AFTER = range(100, 220, 20)  # packets: ports are sampled before


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def test_a_blocked_loop_is_late() -> None:
    async def late() -> tuple[float, float, float]:
        with closing(Lateness()) as lateness:
            began = time.monotonic()
            block(0.2)
            at_once = lateness.since(began)
            for _ in range(3):
                await lateness.turn()
            return at_once, lateness.since(began), lateness.since(time.monotonic())

    at_once, afterwards, later = asyncio.run(late())
    assert at_once > 0.1
    assert afterwards > 0.1
    assert later < afterwards


@pytest.mark.alone
@pytest.mark.parametrize("router", ["kernel", "natbox"])
def test_a_machine_that_is_late_between_two_packets_of_a_probe_makes_nothing_differ(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, router: str
) -> None:
    """Mappings end in that time."""
    say = Side.say
    numbers = itertools.count(1)

    def say_and_block(side: Side, packet: Packet) -> None:
        say(side, packet)
        if next(numbers) in LATE_AFTER:
            block(BLOCKED)

    monkeypatch.setattr(Side, "say", say_and_block)
    (found,) = certify_nat(lab, [router], patience=1.4)
    assert differing(found) == []
    assert {row.measured for row in found.rows} & {"fails", "lost", "ends"} == set()
    assert next(numbers) > LATE_AFTER[-1]


@pytest.mark.alone
def test_silence_counts_only_while_packets_pass(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_is_said(bench: Bench) -> object:
        return await bench.carried(lambda: None, bench.ears[0], holds(token()), 1)

    async def nothing_passes(bench: Bench) -> object:
        with lab.link("kernel:internet").cut():
            return await bench.hear(bench.ears[0], holds(token()), 0.01)

    assert seen_by(nothing_is_said, lab, monkeypatch) == [None]
    (error,) = seen_by(nothing_passes, lab, monkeypatch)
    assert isinstance(error, LateError)


@pytest.mark.alone
def test_what_comes_after_the_wait_is_heard(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def long_way(bench: Bench) -> object:
        payload = token()
        near = bench.inside()
        with lab.link("kernel:internet").impaired(delay="250ms"):
            send = lambda: near.send(payload, bench.peers[0])  # noqa: E731
            heard = await bench.carried(send, bench.ears[0], holds(payload), 1)
        return heard and heard.data == payload

    assert seen_by(long_way, lab, monkeypatch) == [True]


def seen_by(
    asking: Callable[[Bench], Coroutine[Any, Any, object]], lab: Lab, patch: pytest.MonkeyPatch
) -> list[object]:
    """What it returns or raises, in the place of all probes of the kernel's NAT."""
    found: list[object] = []

    async def instead(bench: Bench, *_: Any) -> Seen:
        try:
            found.append(await asking(bench))
        except LateError as error:
            found.append(error)
        return Seen()

    patch.setattr(probing, "_everything", instead)
    certify_nat(lab, ["kernel"])
    return found


def differing(certificate: Certificate) -> list[str]:
    found = (row for row in certificate.rows if row.verdict is Verdict.DIFFERS)
    return [f"{row.topic}: {row.declared}, but {row.measured}" for row in found]


def block(seconds: float) -> None:
    """As a busy machine does: no turn of the loop meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
