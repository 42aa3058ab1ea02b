"""Progress while a lab is built: one live line on a terminal; elsewhere plain lines, and only if it takes a while."""

from __future__ import annotations

import sys
import time
from typing import Self

from lab.cli.style import Style

QUIET_SECONDS = 1.0  # without a terminal, a lab that is ready sooner needs no progress


class LiveLine:
    """Shows phases on standard error; gone without a trace once its ``with`` block ends."""

    def __init__(self, *, silent: bool) -> None:
        """`silent`: show nothing."""
        self._style = Style(sys.stderr)
        self._silent = silent
        self._began = time.monotonic()
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._style.is_terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, phase: str, done: int, total: int, note: str) -> None:
        """A phase, how many of its steps are done, of how many, and what is waited for."""
        if self._silent:
            return
        elapsed = time.monotonic() - self._began
        text = f"{phase} {done}/{total}" + (f", waiting for {note}" if note else "")
        if self._style.is_terminal:
            line = f"{text}  {elapsed:.1f} s"[: self._style.width - 1]
            sys.stderr.write(f"\r{self._style.paint(line, 'cyan')}\033[K")
            sys.stderr.flush()
        elif elapsed > QUIET_SECONDS and text != self._shown:
            print(f"{elapsed:5.1f} s  {text}", file=sys.stderr, flush=True)
        self._shown = text
