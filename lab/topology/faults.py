"""A fault of a topology file: where it is, what was found, what is allowed, and the name that was perhaps meant."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from lab.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST_SHOWN = 40  # characters of a found value
MOST_COMPARED = 500  # names, as comparing is slow and a file may have thousands of faults


class Wrong(ValueError):  # noqa: N818  # not an error of the program: it becomes a fault
    """A value that cannot be what it should be; turned into a fault by whoever knows its place."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"{found}; {allowed}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One line for the person who edits the file; lines and columns count from 1."""

    file: Path
    line: int
    column: int
    path: str  # "nodes.nas.routes[0].via"
    text: str  # "what was found; what is allowed"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.text}"


def raise_faults(faults: Iterable[Fault], *, first: Path) -> None:
    """Raise TopologyError with every different fault: those of the file `first` first, in the order of its text."""
    ordered = sorted(set(faults), key=lambda f: (f.file != first, str(f.file), f.line, f.column, f.path, f.text))
    if ordered:
        raise TopologyError("\n".join(map(str, ordered)), ordered)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, if one does."""
    from difflib import get_close_matches  # here, as only faulty files need it and its import is dear

    matches = get_close_matches(name.lower()[:100], islice(known, MOST_COMPARED), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a fault's text: "; did you mean 'x'?", or nothing."""
    match = nearest(name, known)
    return f"; did you mean '{match}'?" if match else ""


def listed(names: Iterable[str], *, most: int = 12) -> str:
    """Names for a fault's text: "a, b, c", cut after `most`."""
    every = list(names)
    if not every:
        return "none"
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest} more" if rest > 0 else "")


def shown(value: object) -> str:
    """A value of the file as a fault's text shows it; one line, short."""
    match value:
        case bool():
            return f"the truth value {str(value).lower()}"
        case int():
            return f"the number {value}"
        case str():
            return repr(value if len(value) <= MOST_SHOWN else value[: MOST_SHOWN - 3] + "...")
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case None:
            return "nothing"
        case _:
            return repr(str(value))
