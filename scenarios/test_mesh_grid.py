"""A mesh through every pair of NATs: which pairs become direct and which are relayed, as theory says.

    member -- NAT -- internet (two lighthouses, which relay) -- NAT -- member

Two witnesses: what both ends say, and the packets that the relays receive.
"""

from __future__ import annotations

import signal

import pytest

from lab import Lab, Way, mesh_paths, wait_until
from scenarios.mesh_traffic import ARRIVING, MANY, received, talk, talk_until

pytestmark = pytest.mark.topology("mesh_grid", scope="module")

KINDS = ("symmetric", "port", "restricted", "full")  # the symmetric end first: it is the one that must find a way out
RELAYS = ("vps-a", "vps-b")
APART = {("symmetric", "symmetric"), ("symmetric", "port")}
PAIRS = [(first, second) for number, first in enumerate(KINDS) for second in KINDS[number:]]


def test_the_grid_is_whole() -> None:
    assert len(PAIRS) == 10
    assert set(PAIRS) >= APART


@pytest.mark.parametrize(("first", "second"), [pair for pair in PAIRS if pair not in APART])
def test_a_hole_is_punched_where_one_end_knows_the_others_port(lab: Lab, first: str, second: str) -> None:
    pair = talk_until(lab, first, f"{second}-too", Way.DIRECT)
    assert all(view is not None and view.owner is not None for view in pair.views)
    assert [view.owner.startswith("nat-") for view in pair.views if view and view.owner] == [True, True]
    assert passed_on(lab, first, f"{second}-too", MANY) < MANY / 2  # members report to the relays


@pytest.mark.parametrize(("first", "second"), sorted(APART))
def test_a_relay_is_needed_where_neither_knows(lab: Lab, first: str, second: str) -> None:
    other = f"{second}-too"
    for _ in range(6):  # after 5000 packets nebula has asked the lighthouses again, and tried again
        talk(lab, first, other)
    pair = talk_until(lab, first, other, Way.RELAYED)
    assert all(view is not None and set() < set(view.relays) <= set(RELAYS) for view in pair.views)
    assert passed_on(lab, first, other, MANY) >= 2 * ARRIVING * MANY  # there and back


def test_another_relay_takes_over_when_one_dies(lab: Lab) -> None:
    """The last test, for it takes a lighthouse away."""
    talk(lab, "symmetric", "symmetric-too", 10)
    lab.signal_service("vps-a", "tailnet", signal.SIGTERM)

    def relays() -> list[tuple[str, ...]]:
        lab["symmetric"].run(["ping", "-q", "-f", "-c", "5", "-w", "1", "symmetric-too.tailnet"])
        views = mesh_paths(lab).between("symmetric", "symmetric-too").views
        return [view.relays for view in views if view is not None]

    wait_until(lambda: relays() == [("vps-b",), ("vps-b",)], 90, "both ends use the other relay")
    before = received(lab, "vps-b", "internet")
    talk(lab, "symmetric", "symmetric-too", MANY)
    assert received(lab, "vps-b", "internet") - before >= 2 * ARRIVING * MANY


def passed_on(lab: Lab, first: str, second: str, packets: int) -> int:
    """Packets that reach the relays while two members send each other so many."""
    before = sum(received(lab, relay, "internet") for relay in RELAYS)
    talk(lab, first, second, packets)
    return sum(received(lab, relay, "internet") for relay in RELAYS) - before
