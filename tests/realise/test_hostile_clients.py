"""Clients that go away, never read or cannot be answered: the supervisor keeps nothing of theirs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.realise import message, registry
from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import open_files

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = """
networks: {lan: {prefixes: [192.0.2.0/24]}}
nodes:
  a: {links: {lan: auto}, services: {sleeper: {run: sleep 1000, restart: always}}}
"""
PORT = 5000
CLIENTS = 200

SOCKET: dict[str, Any] = {"ask": "socket", "node": "a", "family": int(socket.AF_INET), "protocol": 0, "options": []}
RUN: dict[str, Any] = {"ask": "run", "node": "a", "environment": {}, "folder": "", "user": ""}
REQUESTS: dict[str, dict[str, Any]] = {
    "stream socket": SOCKET | {"type": int(socket.SOCK_STREAM), "bind": None, "listen": None},
    "listener": SOCKET | {"type": int(socket.SOCK_STREAM), "bind": ["0.0.0.0", PORT], "listen": 5},
    "datagram socket": SOCKET | {"type": int(socket.SOCK_DGRAM), "bind": ["0.0.0.0", PORT], "listen": None},
    "terminal": RUN | {"argv": ["sleep", "1000"], "terminal": [24, 80]},
    "terminal of no program": RUN | {"argv": ["no-such-program"], "terminal": [24, 80]},
    "log": {"ask": "log", "service": "a/sleeper"},
    "file": {"ask": "open", "node": "a", "path": "/etc/hosts"},
    "state": {"ask": "inspect"},
}


@pytest.fixture(scope="module")
def shared(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """A lab that, after the test, answers, holds no more open files than before, and runs nothing but its service."""
    shared.services()
    before = open_files(shared)
    yield shared
    assert shared.services()[0]["state"] == "ready"
    wait_until(lambda: open_files(shared) <= before, 30, f"the supervisor holds {before} open files again")
    wait_until(lambda: len(sleepers(shared)) == 1, 30, "the clients' programs have ended")


def sleepers(lab: Lab) -> list[str]:
    """The lab's processes called `sleep`, as seen from inside."""
    return lab["a"].run(["pgrep", "-x", "sleep"]).stdout.split()


@pytest.mark.parametrize("kind", REQUESTS)
def test_clients_that_ask_and_leave_at_once_leave_nothing(lab: Lab, kind: str) -> None:
    for _ in range(CLIENTS):
        with lab.connection() as channel:
            message.send(channel, REQUESTS[kind])


@pytest.mark.parametrize("kind", REQUESTS)
def test_clients_that_leave_while_they_are_answered_leave_nothing(lab: Lab, kind: str) -> None:
    """Many stay until all have asked, so that requests, answers and ends meet in the supervisor in any order."""
    with ExitStack() as stack:
        for number in range(CLIENTS):
            channel = stack.enter_context(lab.connection())
            message.send(channel, REQUESTS[kind])
            if number % 3 == 0:
                channel.close()


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_client_that_never_reads_is_let_go(lab: Lab, kind: str) -> None:
    with lab.connection() as channel:
        channel.setblocking(False)
        sent = 0

        def refused() -> bool:
            """Whether the supervisor hung up: it takes no more, and not for want of room."""
            nonlocal sent
            try:
                while sent < 100_000:
                    message.send(channel, REQUESTS[kind])
                    sent += 1
            except BlockingIOError:
                lab.services()  # it serves others meanwhile
                return False
            except OSError:
                return True
            return False

        wait_until(refused, 60, "the supervisor has hung up on who never reads")
        assert sent > 0


def test_a_listener_of_a_client_that_went_away_does_not_keep_its_port(lab: Lab) -> None:
    for _ in range(50):
        with lab.connection() as channel:
            message.send(channel, REQUESTS["listener"])
    Lab(lab.name).close()  # who knocked before has been let in
    wait_until(lambda: can_listen(lab), 30, f"port {PORT} can be had")
    assert not lab["a"].is_bound(PORT)


def can_listen(lab: Lab) -> bool:
    with suppress(OSError):
        lab["a"].listen(PORT).close()
        return True
    return False


KILLED = """
import json, os, signal, sys
from lab.realise import message, registry
for request in json.loads(sys.argv[2]):
    message.send(registry.knock(sys.argv[1]), request)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_client_killed_in_the_middle_leaves_nothing(lab: Lab) -> None:
    """The kernel closes for it whatever was on its way."""
    requests = json.dumps(list(REQUESTS.values()))
    for _ in range(5):
        killed = subprocess.run([sys.executable, "-c", KILLED, lab.name, requests], cwd=ROOT, timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL


def test_a_descriptor_of_the_client_does_not_stay_with_the_supervisor(lab: Lab) -> None:
    """The other end of a pipe tells who still holds it."""
    read, write = os.pipe2(os.O_CLOEXEC)
    with lab.connection() as channel, lab.connection() as other:
        message.send(channel, {"ask": "inspect"}, (write, write))
        message.send(other, {"ask": "nothing that exists"}, (write,))
        os.close(write)
        assert message.receive(channel) is not None
        assert message.receive(other) is not None
        os.set_blocking(read, False)
        wait_until(lambda: at_end(read), 30, "nobody holds the pipe")
    os.close(read)


def at_end(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


def test_a_burst_of_connections_is_let_in(lab: Lab) -> None:
    """More at once than wait at the door while the supervisor does something else."""
    found: list[object] = []
    knocking: list[object] = []
    go = threading.Event()

    def knock() -> None:
        go.wait(60)
        knocking.append(None)
        try:
            Lab(lab.name).close()
            found.append(None)
        except (LabError, OSError) as error:
            found.append(error)

    threads = [threading.Thread(target=knock) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    os.kill(registry.supervisor_of(lab._channel), signal.SIGSTOP)
    try:  # no longer than it takes, for who knocks waits some seconds only
        go.set()
        wait_until(lambda: len(knocking) == CLIENTS, 60, "all knock")
    finally:
        os.kill(registry.supervisor_of(lab._channel), signal.SIGCONT)
    for thread in threads:
        thread.join(120)
    assert found == [None] * CLIENTS
