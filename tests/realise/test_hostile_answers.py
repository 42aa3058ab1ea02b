"""An answer belongs to its request: after a signal in the middle of one, and on both sides of a fork."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = "nodes: {a: {}, b: {}}"
MOMENTS = 400  # interruptions, from the first microsecond of a request to well after its end
WATCH = 60.0  # seconds; an answer that went astray would be waited for for ever


class InterruptedAsk(Exception):  # noqa: N818 - raised as KeyboardInterrupt is
    """What the signal handler of the test raises."""


def interrupted(call: Callable[[], None], seconds: float) -> bool:
    """Whether the call was interrupted by a signal once so much time had passed; it may also end before."""
    armed = True

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise InterruptedAsk

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        call()
        armed = False
    except InterruptedAsk:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


def close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def own_descriptors() -> set[int]:
    """But for the one by which they are read."""
    return {int(path.name) for path in list(Path("/proc/self/fd").iterdir()) if path.is_symlink()}


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Whoever is interrupted between a descriptor's arrival and its first use has lost its number.

    It would be open until the end of all tests, which may count or limit what this process has.
    """
    before = own_descriptors()
    try:
        yield
    finally:
        close(list(own_descriptors() - before))


SOCKET: dict[str, Any] = {"ask": "socket", "node": "a", "family": 2, "type": 1, "protocol": 0}
REQUESTS: dict[str, dict[str, Any]] = {
    "inspect": {"ask": "inspect"},
    "socket": SOCKET | {"options": [], "bind": None, "listen": None},
    "open": {"ask": "open", "node": "a", "path": "/etc/hosts"},
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_an_interrupted_request_does_not_leave_its_answer_to_the_next(lab: Lab, kind: str) -> None:
    assert threading.current_thread() is threading.main_thread()  # signals are for this one
    interruptions = 0
    longest = 3 * usual_time(lab, kind)
    with nothing_left_open():
        for moment in range(MOMENTS):
            after = 1e-6 + longest * moment / MOMENTS
            interruptions += interrupted(lambda: close(lab.ask(dict(REQUESTS[kind]))[1]), after)
            lost = interrupted(lambda port=20000 + moment: assert_answers_are_right(lab, port), WATCH)  # type: ignore[misc]
            assert not lost, f"no answer after an interruption {after * 1e6:.0f} us into a request"
    assert interruptions > MOMENTS / 20, "the test did not do what it is about"


def usual_time(lab: Lab, kind: str) -> float:
    """Seconds that such a request takes here and now."""

    def time_one() -> float:
        began = time.monotonic()
        close(lab.ask(dict(REQUESTS[kind]))[1])
        return time.monotonic() - began

    return statistics.median(time_one() for _ in range(51))


def assert_answers_are_right(lab: Lab, port: int) -> None:
    with lab["a"].listen(port) as listening:
        assert listening.getsockname()[1] == port
        assert lab["a"].is_bound(port)
        assert not lab["b"].is_bound(port)


def test_threads_that_ask_at_once_get_their_own_answers(lab: Lab) -> None:
    wrong: list[object] = []

    def ask_often(first: int) -> None:
        for port in range(first, first + 100):
            with lab["a"].listen(port) as listening:
                if listening.getsockname()[1] != port:
                    wrong.append((port, listening.getsockname()))

    threads = [threading.Thread(target=ask_often, args=(30000 + 100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert wrong == []


# Asks 500 times on each side of a fork, through the handle that both have.
FORKING = """
import os, signal, sys
from lab.realise.lab import Lab
signal.alarm(180)  # ends who waits for an answer that another has taken
lab = Lab(sys.argv[1])
child = os.fork()
first = 20000 if child else 30000
wrong = 0
for port in range(first, first + 500):
    with lab["a"].listen(port) as listening:
        wrong += listening.getsockname()[1] != port
    if port % 100 == 0:
        name = "a" if child else "b"
        wrong += lab[name].run(["hostname"]).stdout != name + "\\n"
if child == 0:
    os._exit(1 if wrong else 0)
_, status = os.waitpid(child, 0)
print(wrong, os.waitstatus_to_exitcode(status))
lab.services()
lab.close()
"""


def test_after_a_fork_both_sides_get_their_own_answers(lab: Lab) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", FORKING, lab.name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0 0\n", "", 0)


HOLDING = """
import os, sys
from lab.realise.lab import Lab
lab = Lab(sys.argv[1])
child = os.fork()
if child == 0:
    lab.services()
    os._exit(0)
_, status = os.waitpid(child, 0)
print(status, len(lab.services()))
"""


def test_the_end_of_a_forked_child_does_not_end_its_parents_handle(lab: Lab) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLDING, lab.name], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0 0\n", "", 0)
