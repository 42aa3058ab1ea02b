"""A NAT's certificate: what was declared, what was measured, whether they agree, and what the RFCs say. Pure."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How what was measured stands to what was declared."""

    HOLDS = "holds"
    DIFFERS = "differs"
    NOT_MEASURED = "not measured"
    SEEN = "seen"  # nothing was declared


@dataclass(frozen=True, slots=True)
class Row:
    """One property."""

    topic: str
    declared: str | None
    measured: str | None
    verdict: Verdict
    requirement: str  # "4787 REQ-1": number of the RFC, and of its requirement; "" if none speaks of it
    is_met: bool | None  # the requirement; None: not known, or there is none
    why: str = ""  # why it is not measured, or how sure it is


@dataclass(frozen=True, slots=True)
class Certificate:
    """All properties of one router."""

    router: str
    inside: str  # networks between which it was measured
    outside: str
    engine: str | None
    preset: str | None
    rows: tuple[Row, ...]
    failures: tuple[str, ...] = ()  # probes that could not be put

    @property
    def is_measured(self) -> bool:
        """False: nothing passed, and nothing is known."""
        return any(row.measured is not None for row in self.rows)

    @property
    def is_as_declared(self) -> bool:
        """Whether something was measured, and nothing of that differs from what is declared."""
        return self.is_measured and all(row.verdict is not Verdict.DIFFERS for row in self.rows)

    def row(self, topic: str) -> Row:
        """The row of a topic.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.topic == topic:
                return row
        raise KeyError(topic)

    def count(self, verdict: Verdict) -> int:
        return sum(1 for row in self.rows if row.verdict is verdict)

    @property
    def unmet(self) -> tuple[str, ...]:
        """The requirements that are not met."""
        found = {row.requirement for row in self.rows if row.is_met is False}
        return tuple(sorted(found, key=lambda text: [int(part) for part in re.findall("[0-9]+", text)]))

    def plain(self) -> dict[str, Any]:
        """As values for JSON."""
        return asdict(self) | {"as_declared": self.is_as_declared, "unmet": list(self.unmet)}
