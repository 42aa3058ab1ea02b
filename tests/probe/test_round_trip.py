"""Round trips of one link: they take what the link takes, by either version of IP, and silence is no error."""

from __future__ import annotations

import math

import pytest

from lab.probe.round_trip import measure_round_trips
from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import Up, module_up

__all__ = ["module_up"]  # a fixture is found by its name

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
networks:
  old: {prefixes: [192.0.2.0/24]}
  new: {prefixes: ["2001:db8::/64"]}
  empty: {prefixes: [198.51.100.0/24]}
  guarded: {prefixes: [203.0.113.0/24]}
nodes:
  a: {links: {old: {delay: 20ms, egress: {duplicate: 50%}}, new: auto, empty: auto, guarded: auto}}
  b: {links: {old: auto, new: {only: ipv6, delay: 10ms}}}
  fortress: {role: router, links: {guarded: auto}, firewall: {input: drop}}
"""


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


def test_who_answers_no_pings_asks_itself(lab: Lab) -> None:
    """As a home router does on its cable: the round trip is the same, and the link is well."""
    found = measure_round_trips(lab, "a", "guarded", 4)
    assert found is not None
    assert (found["by"], found["to"]) == ("fortress", "a")
    assert found["answered"] > 0
    back = measure_round_trips(lab, "fortress", "guarded", 4)
    assert back is not None
    assert (back["by"], back["to"]) == ("fortress", "a")


@pytest.mark.parametrize(("network", "least"), [("old", 40.0), ("new", 20.0)])
def test_a_round_trip_takes_what_its_link_takes(lab: Lab, network: str, least: float) -> None:
    shortest = math.inf

    def is_short_enough() -> bool:
        """One of many, for a busy machine lengthens most."""
        nonlocal shortest
        found = measure_round_trips(lab, "a", network, 8)
        assert found is not None
        assert (found["to"], found["asked"], found["answered"]) == ("b", 8, 8)  # copies do not count
        assert least <= found["min_ms"] <= found["mean_ms"] <= found["max_ms"]
        shortest = min(shortest, found["min_ms"])
        return bool(shortest < least + 20)

    wait_until(is_short_enough, 60, "a round trip takes what its link takes")


def test_silence_is_counted_not_raised(lab: Lab) -> None:
    with lab.link("a:old").impaired(loss="100%"):
        found = measure_round_trips(lab, "b", "old", 2)
    assert found == {"by": "b", "to": "a", "asked": 2, "answered": 0, "min_ms": None, "mean_ms": None, "max_ms": None}


def test_without_a_neighbour_there_is_nobody_to_ask(lab: Lab) -> None:
    assert measure_round_trips(lab, "a", "empty") is None
