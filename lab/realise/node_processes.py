"""The processes of a node or of a service: found, ended, stopped and let go on, all of them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from lab.errors import RealiseError
from lab.realise.place import Place

_LONGEST_END = 5.0  # seconds for the kernel to end what got SIGKILL; stuck in a device it may never
_LONGEST_STOP = 1.0  # seconds for a process to come to a stop; one that waits for a disk stops when it comes back
_STOPPED = "Tt"
_DEAD = "ZX"

Find = Callable[[], set[int]]
"""Gives the living processes that are meant, as of now."""


@dataclass(frozen=True, slots=True)
class _Status:
    """What /proc/PID/stat says (proc(5))."""

    pid: int
    state: str
    parent: int
    session: int


def of_node(place: Place) -> set[int]:
    """Every living process in a node, also one that left for a namespace of its own: a parent tells."""
    wanted = {(kind, os.fstat(place_of).st_ino) for kind, place_of in (("net", place.network), ("mnt", place.mounts))}
    living = list(_living())
    here = {status.pid for status in living if _namespaces(status.pid) & wanted}
    return _with_descendants(here, living)


def of_service(leader: int, before: Collection[int] = ()) -> set[int]:
    """Every living process of a service: its session, what those started, and those of `before` that still live."""
    living = list(_living())
    here = {status.pid for status in living if leader in (status.pid, status.session) or status.pid in before}
    return _with_descendants(here, living)


def send_signal(pids: Collection[int], number: int) -> None:
    """Send a signal to each; who has ended meanwhile needs none."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(find: Find, what: str) -> None:
    """Kill all that `find` gives, until it gives nothing.

    Raises:
        RealiseError: the kernel did not end one in time; `what` names whose it is.
    """
    deadline = time.monotonic() + _LONGEST_END
    while pids := find():
        handles = [handle for pid in pids if (handle := _open(pid)) is not None]
        try:
            for handle in handles:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            _await_ends(handles, deadline)
        finally:
            for handle in handles:
                os.close(handle)
        if time.monotonic() > deadline:
            raise RealiseError(f"{what}: the kernel did not end process {min(pids)} within {_LONGEST_END:g} s")


@dataclass(slots=True)
class Stopped:
    """Processes that were stopped, each known by a descriptor, so that no later one with its number is meant."""

    handles: list[int] = field(default_factory=list)

    def go_on(self) -> None:
        """Let them run again, and forget them."""
        for handle in self.handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            os.close(handle)
        self.handles.clear()


def stop(find: Find) -> Stopped:
    """Stop (SIGSTOP) all that `find` gives and that runs, those too that they start meanwhile."""
    stopped = Stopped()
    seen: set[int] = set()
    deadline = time.monotonic() + _LONGEST_STOP
    while time.monotonic() < deadline:
        states = {pid: status.state for pid in find() if (status := _status(pid)) is not None}
        if not {pid for pid, state in states.items() if state not in _STOPPED + _DEAD}:
            break
        for pid in states.keys() - seen:
            seen.add(pid)
            if states[pid] not in _STOPPED and (handle := _open(pid)) is not None:
                stopped.handles.append(handle)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGSTOP)
    return stopped


def _await_ends(handles: list[int], deadline: float) -> None:
    """Wait until each has ended (pidfd_open(2): it can be read then)."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    left = set(handles)
    while left and (seconds := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(seconds * 1000):
            poll.unregister(handle)
            left.discard(handle)


def _living() -> Iterator[_Status]:
    """Every process of the lab but the supervisor and those that only wait to be collected."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - of a thousand nodes
        if name.isdigit() and name != "1" and (status := _status(int(name))) is not None and status.state not in _DEAD:
            yield status


def _status(pid: int) -> _Status | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            fields = file.read().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Status(pid, fields[0], int(fields[1]), int(fields[3]))


def _namespaces(pid: int) -> set[tuple[str, int]]:
    found = set()
    for kind in ("net", "mnt"):
        with contextlib.suppress(OSError):  # it has ended, or hides behind rights that its parent has not
            found.add((kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino))  # noqa: PTH116
    return found


def _with_descendants(found: set[int], living: list[_Status]) -> set[int]:
    children: dict[int, list[int]] = {}
    for status in living:
        children.setdefault(status.parent, []).append(status.pid)
    edge = list(found)
    while edge:
        for child in children.get(edge.pop(), ()):
            if child not in found:
                found.add(child)
                edge.append(child)
    return found


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
