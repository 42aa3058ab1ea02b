"""Quantities with written units -> numbers in one unit; a bare number is never a quantity."""

from __future__ import annotations

import re

from lab.topology.faults import Wrong, shown

_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|min)\Z")
LONGEST = 3600.0  # seconds


def parse_duration(value: object) -> float:
    """Seconds of "500ms", "10s", "1.5min". Raises Wrong."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0.0 < seconds <= LONGEST:
        raise Wrong(shown(value), "a duration with its unit, as 500ms, 10s or 1min, above 0 and up to 60min")
    return seconds
