"""Time commands and calls: several runs, the median of them, never a single one."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Wall seconds of several runs."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def __str__(self) -> str:
        """The median, and how far the runs lay apart."""
        return f"{words(self.median)} ({words(min(self.runs))} to {words(max(self.runs))}, n={len(self.runs)})"


def time_calls(call: Callable[[], object], runs: int, *, after: Callable[[], object] | None = None) -> Timing:
    """Time a call several times after one that does not count; `after` runs untimed after each."""
    found = []
    for _ in range(runs + 1):
        found.append(_time(call))
        if after is not None:
            after()
    return Timing(tuple(found[1:]))


def time_in_turn(a: Callable[[], object], b: Callable[[], object], runs: int) -> tuple[Timing, Timing]:
    """Time two calls in turn, so that a change in the machine's speed meets both; the first pair does not count."""
    pairs = [(_time(a), _time(b)) for _ in range(runs + 1)][1:]
    return Timing(tuple(one for one, _ in pairs)), Timing(tuple(other for _, other in pairs))


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run(argv: Sequence[str]) -> None:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the text holds what it said.
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def words(value: float) -> str:
    """Seconds as a person reads them."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.1f} ms" if value >= 0.0005 else f"{value * 1e6:.0f} us"
