"""Links changed again and again, and many at once: nothing is left over, and nobody else waits for long."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.realise import registry
from lab.realise.asking import ask, wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import Up

pytestmark = [
    pytest.mark.essential,
    pytest.mark.single_id,
    pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="this host gives no TAP"),
]

TOPOLOGY = """
networks:
  lan: {prefixes: [10.1.0.0/24]}
  cafe: {prefixes: [10.2.0.0/24]}
nodes:
  r: {role: router, links: {lan: auto, cafe: auto}}
  a: {links: {lan: auto}, services: {sleeper: {run: sleep 1000}}}
  b: {links: {lan: auto}, count: 40}
"""
CYCLES = 12  # each of five kinds of change; 50 leave nothing either
REST = 1.0  # seconds that are looked at for what is held at all times
LONGEST_WAIT = 0.6  # seconds that a question waits while 41 wires are taken out, which takes the kernel one or two
TRIES = 8  # at a quick answer; who waits for the wires waits too long each time


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


def held(lab: Lab) -> tuple[int, int, int]:
    """The supervisor's open files, the fabric's interfaces, the lab's processes."""
    supervisor = registry.supervisor_of(lab._channel)
    lab.link("lan")  # it looks at the fabric's ports, and stays there
    interfaces = len(Path(f"/proc/{supervisor}/net/dev").read_text().splitlines())
    processes = len(lab["b-1"].run(["ps", "-e"]).stdout.splitlines())
    return len(list(Path(f"/proc/{supervisor}/fd").iterdir())), interfaces, processes


def least(lab: Lab) -> tuple[int, ...]:
    """The least of each number held within `REST`: every question, `held`'s own too, holds a file for a moment."""
    end = time.monotonic() + REST
    seen = [held(lab)]
    while time.monotonic() < end:
        seen.append(held(lab))
    return tuple(min(each) for each in zip(*seen, strict=True))


def at_rest(lab: Lab) -> tuple[int, ...]:
    """What is held once that is the same twice in turn: no interface goes and no service starts any more."""
    seen = [least(lab)]

    def is_at_rest() -> bool:
        seen.append(least(lab))
        return seen[-1] == seen[-2]

    wait_until(is_at_rest, 60, "the lab is at rest")
    return seen[-1]


def test_cycles_of_every_kind_leave_nothing(lab: Lab) -> None:
    def cycles(count: int) -> None:
        for number in range(count):
            lab.link("a:lan").impair(delay=f"{number % 5 + 1}ms")
            lab.link("a:lan").clear()
            with lab.link("a:lan").impaired(rate="10mbit"), lab.fault.kill("a", seconds=60):
                pass
            with lab.fault.pause("a"), lab.link("a:lan").cut():
                lab.link("a:lan").impair(delay="1ms")
            with lab.fault.partition("a", "b-1"):
                lab.move("a", "cafe")
                lab.move("a", "lan")
            lab.heal()

    cycles(2)
    before = at_rest(lab)
    cycles(CYCLES)

    def nothing_is_over() -> bool:
        return all(now <= then for now, then in zip(held(lab), before, strict=True))

    wait_until(nothing_is_over, 60, f"no more open files, interfaces and processes than {before}")
    assert lab["a"].run(["ping", "-c1", "-w20", lab["b-1"].address()]).returncode == 0


@pytest.mark.alone  # it measures how long a question waits
@pytest.mark.parametrize("end", [lambda lab: lab.link("lan").clear(), lambda lab: lab.heal()], ids=["clear", "heal"])
def test_whoever_asks_while_many_links_are_cleared_is_answered(lab: Lab, end: Callable[[Lab], None]) -> None:
    longest: list[float] = []
    while len(longest) < TRIES and min(longest, default=LONGEST_WAIT) >= LONGEST_WAIT:
        longest.append(longest_wait(lab, end))
    assert min(longest) < LONGEST_WAIT, longest


def longest_wait(lab: Lab, end: Callable[[Lab], None]) -> float:
    """Of questions asked one after the other while the wires of all links are taken out."""
    before = held(lab)
    lab.link("lan").impair(delay="1ms")
    waits: list[float] = []
    done = threading.Event()

    def watch() -> None:
        with lab.connection() as channel:
            while not done.is_set():
                started = time.monotonic()
                ask(channel, {"ask": "faults"})
                waits.append(time.monotonic() - started)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        end(lab)
        assert lab["a"].run(["ping", "-c1", "-w20", lab["b-1"].address()]).returncode == 0
        wait_until(lambda: held(lab)[1] <= before[1], 60, f"the fabric has {before[1]} interfaces again")
    finally:
        done.set()
        watcher.join()
    return max(waits)


def test_links_that_were_just_cleared_can_be_impaired_again_at_once(lab: Lab) -> None:
    """Some by what was to be deleted, some by what is made anew; each way works as asked."""
    for _ in range(3):
        lab.link("lan").impair(delay="30ms")
        lab.link("lan").clear()
    lab.link("a:lan").impair(delay="30ms")
    started = time.monotonic()
    assert lab["a"].run(["ping", "-c1", "-w20", lab["b-1"].address()]).returncode == 0
    assert time.monotonic() - started > 0.06
    assert lab.link("a:lan").show()[0]["measured"]["egress"]["frames"] > 0
    lab.heal()


def test_a_node_that_deletes_its_interface_does_not_spoil_the_links_of_others(up: Up) -> None:
    with up(TOPOLOGY.replace("count: 40", "count: 2")) as lab:
        lab.link("lan").impair(delay="1ms")
        lab["b-2"].run(["ip", "link", "delete", "lan"], check=True)
        assert {each["link"] for each in lab.link("lan").show()} >= {"a:lan", "b-1:lan", "b-2:lan"}
        with pytest.raises(LabError, match="b-2:lan"):
            lab.link("b-2:lan").clear()
        lab.link("a:lan").clear()
        lab.link("b-1:lan").clear()
        assert lab["a"].run(["ping", "-c1", "-w20", lab["b-1"].address()]).returncode == 0
