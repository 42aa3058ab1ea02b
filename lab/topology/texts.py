"""Texts of services, rendered: files beside the topology file, inline texts, words of commands."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lab.topology.faults import Fault, Wrong, did_you_mean, listed, shown
from lab.topology.source import spelled
from lab.topology.template import TemplateFault, line_column, render
from lab.topology.text_file import read_text

if TYPE_CHECKING:
    from lab.topology.facts import Facts
    from lab.topology.source import At

_ALLOWED = "a text file, its path relative to the topology file"
MOST_NEIGHBOURS = 1000  # files of a folder among which a similar name is sought


class Texts:
    """Every file read once, every fault noted where the text stands."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._read: dict[Path, str | Wrong] = {}

    def render(self, text: str, facts: Facts, at: At) -> str:
        """A text of the topology file."""
        rendered, found = render(text, facts.look_up)
        for fault in found:
            line, column = line_column(text, fault.offset)
            where = f", line {line} column {column} of the text" if "\n" in text else ""
            self._faults.append(at.fault(f"{_found(fault)}{where}", _allowed(fault)))
        return rendered

    def file(self, written: str, facts: Facts, at: At) -> str | None:
        """A file, by its path relative to the topology file; None if it cannot be read."""
        path = at.source.file.parent / written
        if path not in self._read:
            try:
                self._read[path] = read_text(path, allowed=_ALLOWED, if_larger="up to 1 MiB")
            except Wrong as wrong:
                self._read[path] = wrong
        text = self._read[path]
        if isinstance(text, Wrong):
            near = did_you_mean(path.name, _neighbours(path))
            self._faults.append(at.fault(f"{shown(written)}: {text}{near}"))
            return None
        rendered, found = render(text, facts.look_up)
        for fault in found:
            line, column = line_column(text, fault.offset)
            said = f"{_found(fault)}; {_allowed(fault)}"
            self._faults.append(Fault(path, line, column, spelled(at.path), said))
        return rendered


def _found(fault: TemplateFault) -> str:
    if fault.unknown is None:
        return f"{shown(fault.written)} is no fact"
    if not fault.unknown.segment:
        return f"'{fault.written}' is no fact but holds some"
    return f"no fact '{fault.written}'"


def _allowed(fault: TemplateFault) -> str:
    if fault.unknown is None:
        return "{{ dotted.path }}, as {{ node.address.home }}"
    if not fault.unknown.known and fault.unknown.before:
        return f"{fault.unknown.before} has nothing below it"
    after = f"after {fault.unknown.before}: " if fault.unknown.before else "facts: "
    return after + listed(fault.unknown.known) + did_you_mean(fault.unknown.segment, fault.unknown.known)


def _neighbours(path: Path) -> list[str]:
    """The names that a missing file might have been meant to be."""
    try:
        found = sorted(entry.name for entry in islice(path.parent.iterdir(), MOST_NEIGHBOURS))
    except (OSError, ValueError):
        return []
    return [] if path.name in found else found
