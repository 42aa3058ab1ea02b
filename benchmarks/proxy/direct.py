"""No proxy at all: the limit of what a proxy could reach on this machine."""

from __future__ import annotations

from benchmarks.proxy.bench_lab import BenchLab, direct
from benchmarks.proxy.doors import Door
from benchmarks.proxy.peer import Peer, Running


class _Direct(Running):
    def at(self, door: Door) -> str:
        return direct(door.backend_port)

    def processes(self) -> list[int]:
        return []

    def processor_seconds(self) -> float:
        return 0.0


def direct_way(bench: BenchLab) -> Running:
    """The kernel's routing in the proxy's node."""
    return _Direct(bench, Peer("direct", "", lambda _folder: []))
