"""How a row comes to its verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.certify.certificate import Row, Verdict

Declared = Mapping[str, Any]
"""The facts of a router's NAT, as `lab.plan.nat.declared` writes them; empty: nothing is declared."""

NOTHING_ARRIVED = "what was sent did not arrive"


def compared(
    topic: str,
    declared: object,
    measured: object,
    requirement: str = "",
    *,
    is_met: bool | None = None,
    why: str = "",
    agrees: bool | None = None,
) -> Row:
    """A row; `agrees` where equality of the words does not decide, `measured` None where nothing was.

    `is_met` speaks of what was measured, so it counts only where something was.
    """
    if measured is None:
        return Row(topic, _text(declared), None, Verdict.NOT_MEASURED, requirement, None, why or NOTHING_ARRIVED)
    if declared is None:
        verdict = Verdict.SEEN
    else:
        same = _text(declared) == _text(measured) if agrees is None else agrees
        verdict = Verdict.HOLDS if same else Verdict.DIFFERS
    return Row(topic, _text(declared), _text(measured), verdict, requirement, is_met, why)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
