"""The supervisor's event loop: descriptors, timers and ended children, one thread, nothing else."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import NoReturn


class Timer:
    """A call in the future that can be cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never make the call."""
        self.call = None


class Loop:
    """Waits for events and makes the calls registered for them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._children: dict[int, Callable[[int], None]] = {}
        self._signalled, self._signals = socket.socketpair()
        self._signalled.setblocking(False)
        self._signals.setblocking(False)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.on_readable(self._signals, self._reap)

    def on_readable(self, source: socket.socket, call: Callable[[], None]) -> None:
        """Make the call whenever `source` can be read."""
        self._selector.register(source, selectors.EVENT_READ, call)

    def forget(self, source: socket.socket) -> None:
        """Watch `source` no more."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Make the call once, in so many seconds."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def on_exit(self, pid: int, call: Callable[[int], None]) -> None:
        """Call with the exit code (minus the signal's number if killed) once the child, a group's leader, has ended.

        To be registered by whoever started the child, before the loop goes on: only the loop collects children.
        """
        self._children[pid] = call

    def run(self) -> NoReturn:
        """Serve events for ever."""
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Wait for the next events and make their calls."""
        pause = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, _ in self._selector.select(pause):
            key.data()
        now = time.monotonic()  # what gets due meanwhile has its turn after those who ask
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                call()

    def _reap(self) -> None:
        """Collect every ended child; orphans of the lab end up here too, for this is its process 1."""
        with contextlib.suppress(BlockingIOError):
            while self._signals.recv(4096):
                pass
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            call = self._children.pop(ended.si_pid, None)
            if call is not None:
                # What it left behind in its group ends with it. Before it is collected: then its number is free.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(ended.si_pid, signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            if call is not None:
                call(os.waitstatus_to_exitcode(status))
