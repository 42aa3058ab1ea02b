"""How late the machine is: what a busy one has not done yet looks like silence, and silence is an answer to probes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

_EVERY: Final = 0.01  # seconds
_ON_TIME: Final = 0.02  # seconds late, at most
_AT_ONCE: Final = 2  # of those that wait for a turn
_MOST_PUT_OFF: Final = 5  # times on end that a late stroke lets nobody begin; then more may, or it takes too long
_PUT_OFF_AT_ONCE: Final = 8
_REMEMBERED: Final = 4096  # times late


class LateError(Exception):
    """The machine was too late for what was asked to be an answer; to be asked again."""


class Lateness:
    """A clock of the running loop that is to strike all the time, and remembers how late it did.

    At each stroke a few of those that wait may begin: what many begin in one turn makes that turn long.
    """

    def __init__(self) -> None:
        """Strike from here on."""
        self._loop = asyncio.get_running_loop()
        self._found: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._put_off = 0
        self._due = self._loop.time() + _EVERY
        self._handle = self._loop.call_at(self._due, self._strike)

    def close(self) -> None:
        """Strike no longer."""
        self._handle.cancel()

    def since(self, began: float) -> float:
        """The most seconds on end that the loop was late after this time (of `time.monotonic`)."""
        now = self._loop.time()
        found = [(self._due, now), *((due, struck) for due, struck in self._found if struck >= began)]
        return max(0.0, *(struck - max(due, began) for due, struck in found))

    async def turn(self) -> None:
        """Wait for a moment at which the loop is not late and few others begin."""
        mine = self._loop.create_future()
        self._waiting.append(mine)
        await mine

    def _strike(self) -> None:
        now = self._loop.time()
        is_late = now - self._due > _ON_TIME
        if is_late:
            self._found.append((self._due, now))
        self._put_off = self._put_off + 1 if is_late else 0
        if not is_late:
            self._begin(_AT_ONCE)
        elif self._put_off % _MOST_PUT_OFF == 0:
            self._begin(_PUT_OFF_AT_ONCE)
        self._due = now + _EVERY
        self._handle = self._loop.call_at(self._due, self._strike)

    def _begin(self, number: int) -> None:
        while number and self._waiting:
            one = self._waiting.popleft()
            if not one.done():  # as when who waits was cancelled
                one.set_result(None)
                number -= 1
