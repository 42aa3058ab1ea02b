"""What the processes of a proxy cost: processor time and memory."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Bytes of user space: pages of its own, and all with its share of common ones (proc(5))."""

    anonymous: int
    proportional: int


def find(network: str, names: Collection[str]) -> list[int]:
    """The processes of these names (as in /proc/PID/comm) in a network namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "comm").read_text().strip() in names and str((entry / "ns/net").readlink()) == network:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def processor_seconds(processes: Collection[int]) -> float:
    """Seconds that all threads have run so far, in user space and in the kernel."""
    total = 0
    for process in processes:
        for clock in Path(f"/proc/{process}/task").glob("*/schedstat"):
            total += int(clock.read_text().split()[0])
    return total / 1e9


def pin(processes: Collection[int], processors: Collection[int]) -> None:
    """Let all threads of the processes run on these processors only."""
    for process in processes:
        for task in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), processors)


def memory(processes: Collection[int]) -> Memory:
    anonymous = proportional = 0
    for process in processes:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        anonymous += _kib(rollup, "Pss_Anon")
        proportional += _kib(rollup, "Pss")
    return Memory(anonymous * 1024, proportional * 1024)


def _kib(rollup: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) if found else 0
