"""Quantities: each unit is read as what it says, a bare number never, and the bounds hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.topology.faults import Wrong
from lab.topology.units import parse_delay, parse_percentage, parse_rate, parse_size


@pytest.mark.parametrize(
    ("parse", "text", "meant"),
    [
        (parse_delay, "500us", 500_000),
        (parse_delay, "40ms", 40_000_000),
        (parse_delay, "1.5s", 1_500_000_000),
        (parse_delay, "0ms", 0),
        (parse_rate, "1000bit", 1_000),
        (parse_rate, "512kbit", 512_000),
        (parse_rate, "50mbit", 50_000_000),
        (parse_rate, "2.5gbit", 2_500_000_000),
        (parse_size, "1500B", 1500),
        (parse_size, "64kB", 64_000),
        (parse_size, "256KiB", 262_144),
        (parse_size, "1MB", 1_000_000),
        (parse_size, "1MiB", 1_048_576),
        (parse_percentage, "0.5%", 0.005),
        (parse_percentage, "0%", 0.0),
        (parse_percentage, "100%", 1.0),
    ],
)
def test_a_unit_means_what_it_says(parse: Callable[[object], float], text: str, meant: float) -> None:
    assert parse(text) == pytest.approx(meant)


REFUSED: list[tuple[Callable[[object], float], str, list[object]]] = [
    (parse_delay, "a time with its unit", [40, "40", "-5ms", "61s", "40 ms", "1e3ms", None]),
    (parse_rate, "a rate in bits", [0, "0mbit", "1bit", "50", "50MB", "101gbit", True]),
    (parse_size, "a size with its unit", [1500, "0B", "1500", "65MiB", "10mbit", []]),
    (parse_percentage, "a percentage", [1, 0.5, "0.5", "120%", "-1%", "1 %", {}]),
]


@pytest.mark.parametrize(("parse", "allowed", "values"), REFUSED)
def test_what_is_no_quantity_is_refused_with_what_is_allowed(
    parse: Callable[[object], float], allowed: str, values: list[object]
) -> None:
    for value in values:
        with pytest.raises(Wrong, match=allowed):
            parse(value)
