"""Progress while one waits: a live line on a terminal; elsewhere plain lines, and only if it takes a while."""

from __future__ import annotations

import signal
import sys
import time
from typing import Self

from lab.cli.style import Style

TICK = 0.08  # seconds between two drawings of the live line
PLAIN_TICK = 1.0  # seconds between two plain lines; what is done sooner needs none


class LiveLine:
    """Shows on standard error what it was last told; on a terminal gone without a trace once its ``with`` block ends.

    Only for the main thread: a timer's signal draws, so a wait in the kernel does not stop the clock (setitimer(2)).
    """

    def __init__(self, *, silent: bool) -> None:
        """`silent`: show nothing."""
        self._style = Style(sys.stderr)
        self._silent = silent
        self._began = time.monotonic()
        self._text = ""
        self._drawn = ""

    def __enter__(self) -> Self:
        if not self._silent:
            tick = TICK if self._style.is_terminal else PLAIN_TICK
            signal.signal(signal.SIGALRM, lambda *_: self._draw())
            signal.setitimer(signal.ITIMER_REAL, tick, tick)
        return self

    def __exit__(self, *_: object) -> None:
        if self._silent:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if self._drawn and self._style.is_terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, phase: str, done: int, total: int, note: str) -> None:
        """A phase, how many of its steps are done, of how many, and what is waited for."""
        self.say(f"{phase} {done}/{total}" + (f", waiting for {note}" if note else ""))

    def say(self, text: str) -> None:
        """What there is to show, in words of its own."""
        self._text = text

    def _draw(self) -> None:
        elapsed = time.monotonic() - self._began
        if self._style.is_terminal:
            line = f"{self._text}  {elapsed:.1f} s".lstrip()[: self._style.width - 1]
            sys.stderr.write(f"\r{self._style.paint(line, 'cyan')}\033[K")
            sys.stderr.flush()
        elif self._text not in ("", self._drawn):  # at first there is nothing to tell
            print(f"{elapsed:5.1f} s  {self._text}", file=sys.stderr, flush=True)
        self._drawn = self._text or " "
