"""A log is bounded: a service may write for ever, and neither memory nor the lab suffers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

LONGEST = 16 << 20  # bytes, of a log that has been looked at
KEPT = 4 << 20


def topology(**services: dict[str, Any]) -> dict[str, Any]:
    return {
        "networks": {"lan": {"prefixes": ["192.0.2.0/24"]}},
        "nodes": {"a": {"links": {"lan": "auto"}, "services": services}, "b": {"links": {"lan": "auto"}}},
    }


def size(lab: Lab, service: str) -> int:
    with lab.open_log("a", service) as file:
        return os.fstat(file.fileno()).st_blocks * 512  # what it takes of memory; its length stays


def test_of_forty_megabytes_the_end_is_kept(up: Callable[..., Lab]) -> None:
    script = "head -c 40000000 /dev/zero | tr '\\0' x | fold -w 80; echo; echo the end; exec sleep 1000"
    lab = up(topology(web={"run": ["sh", "-c", script]}))
    lab["a"].wait_log("web", "the end", timeout=100)
    wait_until(lambda: size(lab, "web") <= LONGEST, 60, "the log is cut")
    log = lab["a"].log("web")
    assert KEPT <= len(log) <= LONGEST
    assert log.startswith("\n... older lines were cut, for the log had passed 16 MiB\n")
    assert log.endswith("\nthe end\n")


def test_a_log_that_was_cut_goes_on(up: Callable[..., Lab]) -> None:
    script = (
        "head -c 20000000 /dev/zero | tr '\\0' x; while [ ! -e more ]; do sleep 0.01; done; echo more; exec sleep 1000"
    )
    lab = up(topology(web={"run": ["sh", "-c", script]}))
    lab["a"].wait_log("web", "older lines were cut", timeout=60)
    lab["a"].run(["touch", "/run/lab/services/web/more"], check=True)
    lab["a"].wait_log("web", "more", timeout=60)
    assert lab["a"].log("web").endswith("xxxmore\n")


@pytest.mark.alone  # it measures time, and the flood takes the memory that it is left
def test_a_flood_leaves_the_lab_answering(up: Callable[..., Lab]) -> None:
    """A service that writes as fast as it can, for as long as the test looks."""
    lab = up(topology(flood={"run": "yes"}, other={"run": ["sh", "-c", "while sleep 0.05; do echo alive; done"]}))
    slowest = 0.0
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        began = time.monotonic()
        lab.services()
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 5
    assert {s["service"]: s["state"] for s in lab.services()} == {"flood": "ready", "other": "ready"}
    before = lab["a"].log("other").count("alive")
    wait_until(lambda: lab["a"].log("other").count("alive") > before, 30, "the other service writes on")
    # How long it gets between two looks is for the machine to say, but not after three seconds of flood.
    wait_until(lambda: size(lab, "flood") < 8 * LONGEST, 30, "the flood's log is cut")


def test_a_program_that_floods_its_reader_waits_for_it(up: Callable[..., Lab]) -> None:
    lab = up(topology())
    with lab["a"].start(["yes"], stdout=subprocess.PIPE) as flood:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "y\n"
        assert lab["b"].run(["echo", "alive"]).stdout == "alive\n"
