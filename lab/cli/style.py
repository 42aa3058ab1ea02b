"""Colour, width and signs for a person: colour only on a terminal and unless NO_COLOR is set (no-color.org)."""

from __future__ import annotations

import os
from typing import IO

WIDTH_WITHOUT_TERMINAL = 120  # characters

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


class Style:
    """Paints words for one stream, or leaves them as they are."""

    def __init__(self, stream: IO[str]) -> None:
        """Decide once whether this stream gets colour, how wide it is, and what it can show."""
        self.is_terminal = stream.isatty()
        self.paints = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.ellipsis = _ellipsis(stream)
        self.width = _width(stream) if self.is_terminal else WIDTH_WITHOUT_TERMINAL

    def paint(self, text: str, *colours: str) -> str:
        """The text in these colours (`bold`, `dim`, `red`...), if the stream gets any."""
        codes = ";".join(_CODES[colour] for colour in colours if colour)
        if not self.paints or not codes or not text:
            return text
        return f"\033[{codes}m{text}\033[0m"


def _width(stream: IO[str]) -> int:
    try:
        return max(20, int(os.environ["COLUMNS"]))
    except (KeyError, ValueError):
        pass
    try:
        return max(20, os.get_terminal_size(stream.fileno()).columns or 80)
    except OSError:
        return 80


def _ellipsis(stream: IO[str]) -> str:
    try:
        "…".encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "~"
    return "…"
