"""Programs run in a node that do not read, do not end or leave others behind: the caller has its answer in time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = "nodes: {a: {}, b: {}}"
LIMIT = 1.0  # seconds that a program may take here
TIME_TO_TALK = 5.0  # the same for one that must have begun by then, however busy this machine is
IN_TIME = 100.0  # seconds within which the caller hears that it took longer; where it does not, after LONG
LONG = 300


@pytest.fixture(scope="module")
def shared(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """A lab; after the test, its caller has no more files and threads than before, and the lab no process."""
    before = (own_files(), threading.active_count())
    yield shared
    wait_until(lambda: has_no_more_than(before), 30, f"(files, threads) are {before} again")
    wait_until(lambda: processes(shared) == [], 30, "the lab has no process of the test")


def has_no_more_than(before: tuple[int, int]) -> bool:
    return own_files() <= before[0] and threading.active_count() <= before[1]


def own_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def processes(lab: Lab) -> list[str]:
    """Processes of the lab, but for its first and those that look."""
    said = lab["b"].run(["ps", "-A", "-o", "pid=,comm="]).stdout.splitlines()
    return [line for line in said if line.split()[0] != "1" and line.split()[1] != "ps"]


def assert_times_out(lab: Lab, script: str, text: str | None = None, limit: float = LIMIT) -> str:
    """That a run of the script ends with TimeoutError, and in time; returns what it says."""
    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        lab["a"].run(["sh", "-c", script], timeout=limit, input=text)
    assert limit <= time.monotonic() - began < IN_TIME
    return str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 300_000, 5_000_000])
def test_a_program_that_does_not_read_its_input_is_ended_in_time(lab: Lab, length: int) -> None:
    assert_times_out(lab, f"exec sleep {LONG}", "x" * length)


def test_a_program_whose_child_does_not_read_its_input_is_ended_in_time(lab: Lab) -> None:
    assert_times_out(lab, f"sleep {LONG} & sleep {LONG}", "x" * 300_000)


def test_a_program_that_ignores_signals_is_ended_in_time(lab: Lab) -> None:
    assert_times_out(lab, "trap '' TERM INT HUP PIPE; while :; do sleep 0.1; done", "x" * 300_000)


def test_a_program_that_never_stops_talking_is_ended_in_time_with_its_last_words(lab: Lab) -> None:
    assert "y\\ny\\n" in assert_times_out(lab, "exec yes", limit=TIME_TO_TALK)


def test_what_was_said_in_time_is_told(lab: Lab) -> None:
    assert "on my way" in assert_times_out(lab, f"echo on my way; exec sleep {LONG}", limit=TIME_TO_TALK)


def test_a_program_that_closes_its_streams_and_stays_is_ended_in_time(lab: Lab) -> None:
    assert_times_out(lab, f"exec >&- 2>&- <&-; exec sleep {LONG}")


@pytest.fixture
def escaped(shared: Lab) -> Iterator[None]:
    """Ends what left its program's session, and with it the lab's reach."""
    yield
    shared["b"].run(["pkill", "-KILL", "-x", "sleep"])


@pytest.mark.usefixtures("lab", "escaped")
def test_a_child_in_a_session_of_its_own_that_holds_the_pipes_does_not_hold_up_the_caller(shared: Lab) -> None:
    assert_times_out(shared, f"setsid sleep {LONG} & sleep {LONG}")
    assert_times_out(shared, f"setsid sleep {LONG} & sleep {LONG}", "x" * 300_000)


def test_what_a_program_left_in_the_background_is_ended_with_it(lab: Lab) -> None:
    began = time.monotonic()
    done = lab["a"].run(["sh", "-c", "sleep 300 & echo started; exit 4"], timeout=100)
    assert (done.returncode, done.stdout) == (4, "started\n")
    assert time.monotonic() - began < IN_TIME
    wait_until(lambda: processes(lab) == [], 30, "its children have ended")


def test_what_a_started_program_left_in_the_background_is_ended_with_it(lab: Lab) -> None:
    with lab["a"].start(["sh", "-c", "sleep 300 & sleep 300 & exit 0"]) as process:
        assert process.wait(30) == 0
        wait_until(lambda: processes(lab) == [], 30, "its children have ended")


def test_megabytes_go_both_ways_at_once_unchanged(lab: Lab) -> None:
    text = "".join(f"line {number} äöü €\n" for number in range(400_000))
    assert len(text.encode()) > 8_000_000
    assert lab["a"].run(["cat"], input=text).stdout == text


def test_output_and_errors_and_input_of_megabytes_do_not_wait_for_each_other(lab: Lab) -> None:
    """Whoever reads one stream to its end before the next would wait for ever."""
    text = "x" * 4_000_000
    script = "head -c 4000000 /dev/zero | tr '\\0' e >&2; head -c 4000000 /dev/zero | tr '\\0' o; sha256sum >&2; cat"
    done = lab["a"].run(["sh", "-c", script], input=text)
    assert done.stdout == "o" * 4_000_000
    assert done.stderr == "e" * 4_000_000 + hashlib.sha256(text.encode()).hexdigest() + "  -\n"


def test_output_split_within_a_character_is_put_together(lab: Lab) -> None:
    text = "€" * 1_000_000  # three bytes each: no power of two is a multiple
    assert lab["a"].run(["dd", "bs=1000", "status=none"], input=text).stdout == text


def test_runs_from_many_threads_keep_their_streams_apart(lab: Lab) -> None:
    answers: dict[int, str] = {}

    def run(number: int) -> None:
        answers[number] = lab["a"].run(["cat"], input=f"{number}\n" * 100_000).stdout

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert answers == {number: f"{number}\n" * 100_000 for number in range(6)}


def test_a_program_that_ends_while_it_is_fed_is_no_error(lab: Lab) -> None:
    for size in (1, 65536, 65537, 300_000, 3_000_000):
        done = lab["a"].run(["sh", "-c", "head -c 10; exit 3"], input="x" * size)
        assert (done.returncode, done.stdout) == (3, "x" * min(10, size))


def test_a_pipe_of_the_callers_own_is_left_to_it(lab: Lab) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    with lab["a"].start(["echo", "hello"], stdout=write, stderr=subprocess.DEVNULL) as process:
        os.close(write)
        assert process.wait(30) == 0
    with os.fdopen(read) as output:
        assert output.read() == "hello\n"
