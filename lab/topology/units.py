"""Quantities with written units -> numbers in one unit; a bare number is never a quantity."""

from __future__ import annotations

import re

from lab.topology.faults import Wrong, shown

_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|min)\Z")
LONGEST = 3600.0  # seconds
_NANOSECONDS = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DELAY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s)\Z")
LONGEST_DELAY = 60 * 1_000_000_000  # nanoseconds
_BITS = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}
_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(bit|kbit|mbit|gbit)\Z")
SLOWEST, FASTEST = 1_000, 100_000_000_000  # bit/s
_BYTES = {"B": 1, "kB": 1_000, "KiB": 1 << 10, "MB": 1_000_000, "MiB": 1 << 20}
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(B|kB|KiB|MB|MiB)\Z")
LARGEST = 64 << 20  # bytes
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%\Z")
_LIFETIME = re.compile(r"([0-9]{1,6})(s|min|h)\Z")
LONGEST_LIFETIME = 864000.0  # seconds


def parse_duration(value: object) -> float:
    """Seconds of "500ms", "10s", "1.5min". Raises Wrong."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0.0 < seconds <= LONGEST:
        raise Wrong(shown(value), "a duration with its unit, as 500ms, 10s or 1min, above 0 and up to 60min")
    return seconds


def parse_delay(value: object) -> int:
    """Nanoseconds of "500us", "40ms", "1.5s"; 0 too. Raises Wrong."""
    nanoseconds = _quantity(_DELAY, _NANOSECONDS, value)
    if nanoseconds is None or nanoseconds > LONGEST_DELAY:
        raise Wrong(shown(value), "a time with its unit, as 500us, 40ms or 1.5s, from 0 to 60s")
    return nanoseconds


def parse_rate(value: object) -> int:
    """Bit/s of "512kbit", "50mbit", "2.5gbit". Raises Wrong."""
    rate = _quantity(_RATE, _BITS, value)
    if rate is None or not SLOWEST <= rate <= FASTEST:
        raise Wrong(shown(value), "a rate in bits a second, as 512kbit, 50mbit or 2.5gbit, from 1kbit to 100gbit")
    return rate


def parse_size(value: object) -> int:
    """Bytes of "1500B", "64kB", "256KiB", "1MiB". Raises Wrong."""
    size = _quantity(_SIZE, _BYTES, value)
    if size is None or not 0 < size <= LARGEST:
        raise Wrong(shown(value), "a size with its unit, as 1500B, 64kB, 256KiB or 1MiB, above 0 and up to 64MiB")
    return size


def parse_percentage(value: object) -> float:
    """The share, 0 to 1, of "0.5%". Raises Wrong."""
    match = _PERCENTAGE.match(value) if isinstance(value, str) else None
    share = round(float(match[1]) / 100, 12) if match else -1.0
    if not 0.0 <= share <= 1.0:
        raise Wrong(shown(value), "a percentage, as 0.5% or 100%, from 0% to 100%")
    return share


def _quantity(pattern: re.Pattern[str], units: dict[str, int], value: object) -> int | None:
    match = pattern.match(value) if isinstance(value, str) else None
    return round(float(match[1]) * units[match[2]]) if match else None


def parse_lifetime(value: object) -> float:
    """Whole seconds of "30s", "5min", "2h": how long something may be idle. Raises Wrong."""
    match = _LIFETIME.match(value) if isinstance(value, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 1.0 <= seconds <= LONGEST_LIFETIME:
        raise Wrong(shown(value), "a whole number with its unit, as 30s, 5min or 2h, from 1s to 240h")
    return seconds
