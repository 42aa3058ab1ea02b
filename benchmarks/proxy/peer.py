"""A proxy that is measured: its programs, its configuration, what it can do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.proxy import processes as proc
from benchmarks.proxy.bench_lab import FOLDER, BenchLab
from benchmarks.proxy.doors import EVERY, INTRODUCED, PROXY_NEAR, Door
from lab import wait_until

_READY = 20.0  # seconds


@dataclass(frozen=True)
class Program:
    """One process to start, and the file that it reads."""

    argv: Sequence[str]
    file: str = ""
    content: str = ""


@dataclass(frozen=True)
class Peer:
    """A proxy. `programs` says what to start, given the folder of its files."""

    name: str
    program: str  # where it is
    programs: Callable[[Path], list[Program]]
    doors: tuple[Door, ...] = EVERY
    is_tuned: bool = False
    is_ours: bool = False
    most_connections: int = 1_000_000  # that it can hold at once
    processes: tuple[str, ...] = field(default=())  # their names in /proc/PID/comm; default: that of the program

    @property
    def is_here(self) -> bool:
        return shutil.which(self.program) is not None

    def has(self, door: Door) -> bool:
        return door in self.doors


class Running:
    """A proxy that runs."""

    def __init__(self, bench: BenchLab, peer: Peer) -> None:
        self.bench, self.peer = bench, peer
        self._names = peer.processes or (Path(peer.program).name,)

    def processor_seconds(self) -> float:
        return proc.processor_seconds(self.processes())

    def memory(self) -> proc.Memory:
        return proc.memory(self.processes())

    def at(self, door: Door) -> str:
        return f"{PROXY_NEAR}:{door.port}"

    def processes(self) -> list[int]:
        return proc.find(self.bench.proxy_network, self._names)


@contextmanager
def running(bench: BenchLab, peer: Peer) -> Iterator[Running]:
    """The proxy in its node until the block ends."""
    folder = FOLDER / peer.name.replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack, (folder / "errors.txt").open("w") as errors:
        for program in peer.programs(folder):
            if program.file:
                (folder / program.file).write_text(program.content)
            stack.enter_context(bench.proxy.start(program.argv, stdout=errors, stderr=errors))
        for door in peer.doors:
            _await(bench, peer, door, folder)
        yield Running(bench, peer)
    wait_until(lambda: not proc.find(bench.proxy_network, peer.processes or (Path(peer.program).name,)), _READY, "gone")


def _await(bench: BenchLab, peer: Peer, door: Door, folder: Path) -> None:
    try:
        bench.proxy.wait_bound(door.port, "udp" if door.is_udp else "tcp", timeout=_READY)
    except TimeoutError as error:
        raise RuntimeError(
            f"{peer.name} does not listen at {door.port}: {(folder / 'errors.txt').read_text()}"
        ) from error


ALL_DOORS = (*EVERY, INTRODUCED)
