"""Trials: what the action did is told, and whatever happens to the child is an outcome."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.host import needs_user_namespace
from lab.host.trial import End, Outcome, Refusal, Stage, begin, run_program, step

pytestmark = [pytest.mark.essential, pytest.mark.single_id]


def run(action: Callable[[], str], *, namespaces: bool, seconds: float = 60) -> Outcome:
    trial = begin(action, namespaces=namespaces, user_namespace=namespaces and needs_user_namespace())
    return trial.outcome(time.monotonic() + seconds)


def die() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def hang() -> str:
    signal.pause()
    return ""


def refuse() -> str:
    with step("open"):
        os.open("/nowhere/at-all", os.O_RDONLY)
    return ""


def refuse_in_words() -> str:
    raise Refusal("not today")


def stumble() -> str:
    raise ValueError("a fault\nof two lines")


both = pytest.mark.parametrize("namespaces", [False, True])


@both
def test_answer(*, namespaces: bool) -> None:
    assert run(lambda: "yes", namespaces=namespaces) == Outcome(End.DONE, Stage.ACTION, 0, "yes")


@both
def test_refusal_names_step_and_errno(*, namespaces: bool) -> None:
    outcome = run(refuse, namespaces=namespaces)
    assert outcome == Outcome(End.REFUSED, Stage.ACTION, errno.ENOENT, "open")
    assert str(outcome) == "open: No such file or directory"


@both
def test_refusal_in_words(*, namespaces: bool) -> None:
    assert run(refuse_in_words, namespaces=namespaces) == Outcome(End.REFUSED, Stage.ACTION, 0, "not today")


@both
def test_fault_in_the_action(*, namespaces: bool) -> None:
    outcome = run(stumble, namespaces=namespaces)
    assert (outcome.end, outcome.text) == (End.DIED, "ValueError: a fault of two lines")


@both
def test_no_answer(*, namespaces: bool) -> None:
    began = time.monotonic()
    outcome = run(hang, namespaces=namespaces, seconds=3)  # by then it hangs, however busy this machine is
    assert (outcome.end, outcome.stage) == (End.NO_ANSWER, Stage.ACTION)
    assert 3 <= time.monotonic() - began < 60


def test_death() -> None:
    outcome = run(die, namespaces=False)
    assert outcome.end is End.DIED
    assert f"signal {int(signal.SIGKILL)}" in outcome.text


def test_the_action_is_alone_in_its_namespaces() -> None:
    def look() -> str:
        return f"{os.getpid()} {[name for _, name in socket.if_nameindex()]} {os.geteuid()}"

    assert run(look, namespaces=True).text == "1 ['lo'] 0"


def test_a_stopped_trial_leaves_no_process() -> None:
    reader, writer = os.pipe()
    before = children()
    trial = begin(hang, namespaces=True, user_namespace=needs_user_namespace())
    os.close(writer)
    trial.stop()
    trial.stop()
    assert os.read(reader, 1) == b""  # every copy of the other end is gone with its process
    os.close(reader)
    assert children() == before


def children() -> set[str]:
    """Of all threads of this process: other tests may have some too (proc_pid_task(5))."""
    return {pid for thread in Path("/proc/self/task").iterdir() for pid in (thread / "children").read_text().split()}


def test_a_program_is_given_its_input_and_time() -> None:
    assert run_program(["sh", "-c", "read word; echo $word >&2; exit 3"], "hello\n") == (3, "hello\n")
    with pytest.raises(Refusal, match="did not end within"):
        run_program(["sleep", "300"])
