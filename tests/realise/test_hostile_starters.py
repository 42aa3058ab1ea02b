"""Whatever the process that starts a lab has open, blocked or ignored, the lab's programs begin with a clean slate."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.realise.asking import ask, wait_until
from lab.realise.lab import Lab

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

# Signals 32 and 33 are glibc's own (signal(7)): no program may change them, so what a starter left stays.
OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = """
nodes:
  a:
    services:
      first: {run: sleep 1000}
      user: {run: sleep 1000, restart: always, after: [a/first]}
      waited: {run: sleep 1000, ready: {run: ["true"]}}
"""
START = """
from pathlib import Path
from lab.realise.launch import up
up(Path(sys.argv[1]), name=sys.argv[2])
"""
STARTERS = {
    "plain": "import sys",
    "open and inheritable files": """
import os, socket, sys
made = [os.open("/dev/null", os.O_RDWR), os.open("/", os.O_RDONLY), *os.pipe(), *socket.socketpair()]
for number, source in enumerate(made * 4, 10):
    os.dup2(getattr(source, "fileno", lambda: source)(), number, inheritable=True)
""",
    "no standard streams": """
import os, sys
for descriptor in (0, 1, 2):
    os.close(descriptor)
""",
    "no standard input": "import os, sys; os.close(0)",
    "blocked signals": """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
""",
    "ignored signals": """
import signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
""",
    "SIGHUP ignored, SIGTERM blocked": """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
""",
}


@contextmanager
def started_by(code: str, file: Path, name: str) -> Iterator[Lab]:
    """A lab that another process has started and left alone."""
    command = [sys.executable, "-c", code + START, str(file), name]
    try:
        started = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert (started.returncode, started.stderr) == (0, "")
        with Lab(name) as lab:
            yield lab
    finally:
        with suppress(UsageError):
            Lab(name).down()


@pytest.fixture(scope="module", params=STARTERS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("topology") / "t.yaml"
    file.write_text(TOPOLOGY)
    with started_by(STARTERS[request.param], file, f"t-{os.getpid()}-{[*STARTERS].index(request.param)}-s") as found:
        yield found


def open_files(lab: Lab, pid: int) -> dict[str, str]:
    """The descriptors of a process of the lab and what they lead to, seen from inside."""
    script = f"cd /proc/{pid}/fd && for fd in *; do echo $fd $(readlink $fd); done"
    said = lab["a"].run(["sh", "-euc", script], check=True).stdout
    return {fd: target for fd, _, target in (line.partition(" ") for line in said.splitlines()) if target}


def signals(lab: Lab, pid: int) -> dict[str, str]:
    lines = lab["a"].run(["cat", f"/proc/{pid}/status"], check=True).stdout.splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines) if key.startswith("Sig")}


def pids(lab: Lab) -> Iterator[int]:
    """A process of each kind: services, a program with streams, one with a terminal."""
    states = lab.services()
    assert {state["state"] for state in states} == {"ready"}
    yield from (state["pid"] for state in states)
    with lab["a"].start(["sleep", "1000"]) as process:
        yield process.pid
    with lab["a"].start(["sleep", "1000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process.pid
    request = {"ask": "run", "node": "a", "argv": ["sleep", "1000"], "environment": {}, "folder": "", "user": ""}
    with lab.connection() as channel:
        answer, (terminal,) = ask(channel, request | {"terminal": [24, 80]})
        with open(terminal, "rb"):  # noqa: PTH123 - closes it
            yield answer["pid"]


def test_a_program_has_its_three_standard_streams_and_nothing_else(lab: Lab) -> None:
    for pid in pids(lab):
        assert set(open_files(lab, pid)) == {"0", "1", "2"}, open_files(lab, pid)


def test_a_program_blocks_and_ignores_no_signal(lab: Lab) -> None:
    for pid in pids(lab):
        found = signals(lab, pid)
        blocked, ignored = (int(found[field], 16) & ~OF_THE_C_LIBRARY for field in ("SigBlk", "SigIgn"))
        assert (blocked, ignored) == (0, 0), found


def test_a_service_writes_to_its_log_and_reads_nothing(lab: Lab) -> None:
    pid = lab.services()[0]["pid"]
    streams = open_files(lab, pid)
    assert streams["0"] == "/dev/null"
    assert streams["1"] == streams["2"]
    assert streams["1"].endswith(".log")


def test_a_service_started_again_has_three_streams_too(lab: Lab) -> None:
    lab.signal_service("a", "user", 9)

    def again() -> bool:
        (state,) = [state for state in lab.services() if state["service"] == "user"]
        return bool(state["restarts"] and state["pid"])

    wait_until(again, 30, "it runs again")
    (pid,) = [state["pid"] for state in lab.services() if state["service"] == "user"]
    assert set(open_files(lab, pid)) == {"0", "1", "2"}


def test_the_supervisor_has_nothing_of_its_starter(lab: Lab) -> None:
    """Standard streams of the starter would keep a terminal or a pipe of `lab up | ...` open."""
    streams = open_files(lab, 1)
    assert (streams["0"], streams["1"]) == ("/dev/null", "/dev/null")
    assert [target for target in streams.values() if target.startswith("pipe:") or target == "/"] == []
