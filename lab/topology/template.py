"""Text with `{{ dotted.path }}` -> text; nothing but paths, no logic.

A substituter of its own, as importing jinja2 costs 47 ms of the 150 ms that checking a topology may take.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_OPENING = re.compile(r"\{\{(?:[ \t]*([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)[ \t]*\}\})?")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A path that leads nowhere: the segment that is not known, and what may stand there instead."""

    segment: str
    before: str  # the path that leads to it: "nodes.nas.address"
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TemplateFault:
    """What is wrong at `offset` of the text; `unknown` is None if it is no path at all."""

    offset: int
    written: str
    unknown: Unknown | None


def render(text: str, look_up: Callable[[list[str]], str | Unknown]) -> tuple[str, list[TemplateFault]]:
    """The text with every fact in its place, and all faults; a faulty place stays as written."""
    if "{{" not in text:
        return text, []
    faults: list[TemplateFault] = []

    def replace(match: re.Match[str]) -> str:
        path = match[1]
        if path is None:
            faults.append(TemplateFault(match.start(), text[match.start() :].split("\n", 1)[0][:30], None))
            return match[0]
        fact = look_up(path.split("."))
        if isinstance(fact, Unknown):
            faults.append(TemplateFault(match.start(), path, fact))
            return match[0]
        return fact

    return _OPENING.sub(replace, text), faults


def line_column(text: str, offset: int) -> tuple[int, int]:
    """Where an offset stands, both counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


def unknown(segment: str, before: Iterable[str], known: Iterable[str]) -> Unknown:
    """An `Unknown` from parts."""
    return Unknown(segment, ".".join(before), tuple(known))
