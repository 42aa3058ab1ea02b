"""Links, faults and moves that cannot be asked for, and programs that hang: an error in time, and all is as before."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.errors import LabError, UsageError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import Up

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
networks: {lan: {prefixes: [192.0.2.0/24]}}
nodes:
  a: {links: {lan: auto}}
  b: {links: {lan: auto}}
"""
LONGEST_WAIT = 100.0  # seconds; what hangs would do so for twenty minutes
STATE = {"link": "a:lan", "asked": {"egress": "", "ingress": ""}, "state": "up", "backend": "none"}


@pytest.fixture(scope="module")
def shared(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """A lab that is, after the test, as it was declared."""
    yield shared
    assert shared.fault.in_force() == []
    assert {(each["state"], each["backend"]) for each in shared.link("lan").show()} == {("up", "none")}
    assert shared["a"].run(["ping", "-c1", "-w20", shared["b"].address()]).returncode == 0


def link(**message: Any) -> dict[str, Any]:
    return {"ask": "link", "name": "lan"} | message


def fault(kind: Any, targets: Any, seconds: Any = None) -> dict[str, Any]:
    return {"ask": "fault", "kind": kind, "targets": targets, "seconds": seconds}


@pytest.mark.parametrize(
    "request_",
    [
        {"ask": "link"},
        link(do="show", name=["lan"]),
        link(do=["show"]),
        link(do="set"),
        link(do="set", words=7),
        link(do="set", words="delay=99999999999999999999s"),
        link(do="set", words="loss=nan%"),
        link(do="set", words="delay=1ms", backend=["netem"]),
        link(do="set", words="delay=1ms", **{"from": 7}),
        link(do="set", words="x" * 1_000_000),
        link(do="set", words="", preset=["dsl"]),
        link(do="carrier"),
        link(do="flap", down=1, up=2, times=3),
        link(do="flap", down="1ms", up="1ms", times=1e3),
        link(do="restore", states=7),
        link(do="restore", states=[7]),
        link(do="restore", states=[STATE | {"link": "lan"}]),
        link(do="restore", states=[STATE | {"backend": "zz"}]),
        link(do="restore", states=[STATE, STATE | {"link": "b:lan", "asked": {"egress": "delay=1ms", "ingress": "z"}}]),
        {"ask": "fault"},
        fault(["kill"], ["a"]),
        fault("kill", ["a", "b"]),
        fault("kill", []),
        fault("kill", [["a"]]),
        fault("kill", ["a"], "5"),
        fault("kill", ["a"], float("nan")),
        fault("kill", ["a"], float("inf")),
        fault("kill", ["a"], []),
        fault("partition", ["a"]),
        fault("partition", ["a", {}]),
        fault("change-address", ["a", "x", "y"]),
        fault("flush-nat", []),
        {"ask": "heal"},
        {"ask": "heal", "fault": [1]},
        {"ask": "recovery", "await": 7},
        {"ask": "recovery", "await": [[1]]},
        {"ask": "move", "node": ["a"], "network": {}, "leaving": 7},
        {"ask": "move", "node": "a", "network": "lan", "leaving": None},
    ],
)
def test_what_cannot_be_asked_for_is_refused(lab: Lab, request_: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        lab.ask(request_)


def test_a_tc_that_hangs_in_a_node_does_not_hold_up_the_lab(lab: Lab) -> None:
    """A node may put anything in the place of its programs; the supervisor waits for it no longer than it may take."""
    program = shutil.which("tc", path="/usr/sbin:/sbin:/usr/bin")
    assert program is not None
    hide = f"printf '#!/bin/sh\\nsleep 1234\\n' > /tmp/slow; chmod 755 /tmp/slow; mount --bind /tmp/slow {program}"
    lab["a"].run(["sh", "-c", hide], check=True)
    started = time.monotonic()
    with pytest.raises(LabError, match="did not end within"):
        lab.link("a:lan").impair(rate="10mbit")
    assert time.monotonic() - started < LONGEST_WAIT
    lab["a"].run(["umount", program], check=True)
    wait_until(lambda: lab["b"].run(["pgrep", "-f", "sleep 1234"]).stdout == "", 30, "what hung has been ended")
