"""What edgeproxy shall reach beside its peers, as lines of the table."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.lab_figures import Figure
from benchmarks.proxy.measures import (
    BULK_DOWN,
    BULK_UP,
    CARRIED,
    CARRIED_SINGLY,
    CONNECT,
    CONNECT_NAME,
    FLOOD,
    FLOOD_JOINED,
    IDLE,
    PING_MANY,
    PING_ONE,
    PING_PACED,
    TRANSPARENT,
    UDP_JOINED,
    UDP_MANY,
    UDP_ONE,
)
from benchmarks.proxy.peers import ONE_WORKER
from benchmarks.proxy.results import DIRECT, Results

# Ratios of two runs of one and the same program lie so far apart here: a bound is missed by more than that.
NOISE = 0.03
_USUAL, _TUNED, _ALL = False, True, None


def figures(results: Results) -> Iterator[Figure]:
    """The lines, as far as there are samples for them."""
    for measure in (BULK_UP, BULK_DOWN):
        yield from _beside_best(results, measure, "gbit_s", 1.5, tuned=_USUAL, unit="Gbit/s")
        yield from _beside_best(results, measure, "gbit_s", 1.0, tuned=_TUNED, unit="Gbit/s")
        yield from _beside(results, measure, "gbit_s", DIRECT, "aim 0.9 x", 0, unit="Gbit/s")
    for measure in (CONNECT, CONNECT_NAME):
        yield from _beside_best(results, measure, "per_s", 1.0, tuned=_ALL, unit="a second")
    # Of many that ask again as soon as they are answered, the median and the slowest trade places by the order in which
    # programs that are never out of work take turns. At a pace the proxy's own time counts, and its switches.
    # A proxy of one process has an advantage where processors are shared: it is asked with one worker, too.
    for measure in (PING_ONE, PING_PACED, PING_MANY):
        for key in ("p50_us", "p99_us"):
            for mine in (results.ours, ONE_WORKER):
                yield from _below_best(results, measure, key, 1.0, unit=f"us ({key[:3]})", mine=mine)
    yield from _below_best(results, IDLE, "kib_each", 0.25, unit="KiB a connection")
    for measure in (UDP_JOINED, FLOOD_JOINED):
        yield from _beside_best_nginx(results, measure, ">= 2 x", 2.0)
    # How many come through is bounded by client and backend, who share the processors: DIRECT, the most there can be,
    # and the cost tell what the proxy has to do with it.
    for measure in (UDP_ONE, UDP_MANY, CARRIED, CARRIED_SINGLY):
        yield from _beside_best_nginx(results, measure, ">= 2 x", 2.0)
        yield from _beside(results, measure, "per_s", DIRECT, "-", 0, unit="a second")
        yield from _below_best(results, measure, "cpu_us_each", 1.0, unit="us of a processor each")
    yield from _beside_best_nginx(results, FLOOD, "-", 0)
    for other in ("go-mmproxy", "go-mmproxy, tuned"):
        yield from _beside(results, TRANSPARENT, "per_s", other, ">= 1.5 x", 1.5, unit="a second")


def _beside_best(
    results: Results, measure: str, key: str, least: float, *, tuned: bool | None, unit: str
) -> Iterator[Figure]:
    other = results.best(measure, key, tuned=tuned)
    if other is not None:
        yield from _beside(results, measure, key, other, f">= {least:g} x", least, unit=unit)


def _beside_best_nginx(results: Results, measure: str, target: str, least: float) -> Iterator[Figure]:
    known = [(results.median(measure, name, "per_s") or 0, name) for name in ("nginx", "nginx, tuned")]
    yield from _beside(results, measure, "per_s", max(known)[1], target, least, unit="a second")


def _beside(
    results: Results, measure: str, key: str, other: str, target: str, least: float, *, unit: str
) -> Iterator[Figure]:
    ratio, own, theirs = _compared(results, measure, key, results.ours, other)
    if ratio is not None:
        text = f"{ratio:.2f} x {other} ({own} to {theirs} {unit})"
        yield Figure(measure, text, target, ratio, least * (1 - NOISE), more_is_better=True)


def _below_best(
    results: Results, measure: str, key: str, most: float, *, unit: str, mine: str | None = None
) -> Iterator[Figure]:
    mine = mine or results.ours
    other = results.best(measure, key, tuned=None, more_is_better=False)
    if other is not None:
        ratio, own, theirs = _compared(results, measure, key, mine, other)
        if ratio is not None:
            text = f"{ratio:.2f} x {other} ({own} to {theirs} {unit})"
            what = measure + mine.removeprefix(results.ours)
            yield Figure(what, text, f"<= {most:g} x", ratio, most * (1 + NOISE))


def _compared(results: Results, measure: str, key: str, mine: str, other: str) -> tuple[float | None, str, str]:
    own, theirs = results.median(measure, mine, key), results.median(measure, other, key)
    if own is None or theirs is None:
        return None, "", ""
    return results.ratio(measure, key, mine, other), number(own), number(theirs)


def number(value: float) -> str:
    """Three digits that matter, or all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
