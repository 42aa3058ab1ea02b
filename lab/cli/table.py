"""Tables for people: aligned columns that fit the width, by breaking cells between their words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from lab.cli.style import Style

_GAP = "  "
_SHORTEST_PATH = 12  # characters

Painter = Callable[[int, str], str]
"""Given the number of a column and a word of a cell, the colour of the word ("" for none)."""


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Style,
    painter: Painter | None = None,
    *,
    path: int | None = None,
) -> str:
    """The rows under their titles, one string with newlines. The words of a cell stay whole where they fit at all.

    `path`: the number of a column with paths. They are never broken: on a terminal that is too narrow they lose their
    middle, before any other cell gives way; elsewhere such a table is as wide as it is.
    """
    cells = [
        [[_printable(cell)] if column == path else cell.split() for column, cell in enumerate(row)] for row in rows
    ]
    widths = _fit(titles, cells, style.width if style.is_terminal or path is None else sys.maxsize, path)
    if path is not None:
        for row in cells:
            row[path] = [_without_middle(row[path][0], widths[path], style.ellipsis)]
    lines = [
        _GAP.join(style.paint(f"{title:{width}}", "bold") for title, width in zip(titles, widths, strict=True)).rstrip()
    ]
    for row in cells:
        broken = [_broken(words, width) for words, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, broken))):
            parts = []
            for column, (cell, width) in enumerate(zip(broken, widths, strict=True)):
                words = cell[number] if number < len(cell) else []
                painted = " ".join(style.paint(word, painter(column, word) if painter else "") for word in words)
                parts.append(painted + " " * (width - len(" ".join(words))))
            lines.append(_GAP.join(parts).rstrip())
    return "\n".join(lines) + "\n"


def _fit(titles: Sequence[str], cells: list[list[list[str]]], width: int, path: int | None) -> list[int]:
    """Widths of the columns: that of their content, but paths, then the widest give way until the table fits."""
    columns = range(len(titles))
    widths = [max([len(titles[c]), *(len(" ".join(row[c])) for row in cells)]) for c in columns]
    least = [max([len(titles[c]), *(len(word) for row in cells for word in row[c])]) for c in columns]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    if path is not None and excess > 0:
        least[path] = min(least[path], max(len(titles[path]), _SHORTEST_PATH))
        widths[path] = max(least[path], widths[path] - excess)
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        loose = [c for c in columns if widths[c] > least[c]]
        if not loose:
            break
        widths[max(loose, key=lambda c: widths[c])] -= 1
    return widths


def _broken(words: list[str], width: int) -> list[list[str]]:
    """The words of a cell in lines of at most `width` characters."""
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and len(" ".join([*lines[-1], word])) > width:
            lines.append([])
        lines[-1].append(word)
    return lines


def _printable(path: str) -> str:
    """A path as one line; the name of a file may hold any byte."""
    return "".join(character if character.isprintable() else "?" for character in path)


def _without_middle(path: str, width: int, ellipsis: str) -> str:
    if len(path) <= width:
        return path
    head = (width - 1) // 2
    return f"{path[:head]}{ellipsis}{path[len(path) - (width - 1 - head) :]}"
