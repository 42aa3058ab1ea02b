"""Quantities of links as a person writes them: the inverse of `lab.topology.units`, exact."""

from __future__ import annotations


def duration_text(nanoseconds: float) -> str:
    """Nanoseconds as "40ms", "500us", "1.5s"."""
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if nanoseconds >= size:
            return f"{_plain(nanoseconds / size, 6 if unit == 'ms' else 9)}{unit}"
    return f"{_plain(nanoseconds / 1e3, 3)}us" if nanoseconds else "0ms"


def rate_text(rate: float) -> str:
    """Bit/s as "50mbit"."""
    for unit, size in (("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)):
        if rate >= size:
            return f"{_plain(rate / size, 9)}{unit}"
    return f"{_plain(rate, 0)}bit"


def size_text(size: int) -> str:
    """Bytes as "256KiB"."""
    for unit, whole in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size % whole == 0 and size:
            return f"{size // whole}{unit}"
    return f"{size}B"


def share_text(share: float) -> str:
    """A share as "0.5%"."""
    return f"{_plain(share * 100, 9)}%"


def _plain(number: float, decimals: int) -> str:
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
