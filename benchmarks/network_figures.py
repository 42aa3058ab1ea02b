"""The figures of links, NATs and meshes in a running lab."""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.lab_figures import LAB, Figure
from benchmarks.stopwatch import Timing, run, time_calls
from benchmarks.topologies import HOMELAB, NAT_GRID
from lab import Lab

_PORT = 5201
_SECONDS = 1.0  # of each transfer
_PAIR = """
networks: {{inside: {{prefixes: [10.0.0.0/24]}}, outside: {{prefixes: [198.51.100.0/24]}}}}
nodes:
  a: {{links: {{inside: auto}}}}
  r: {{role: router, links: {{inside: 10.0.0.1, outside: auto}}, nat: {{outside: outside, {nat}}}}}
  b: {{links: {{outside: auto}}}}
"""


def measure(folder: Path, *, runs: int, progress: Callable[[str], None]) -> list[Figure]:
    """All figures, each the median of `runs`."""
    figures = []
    for part in (_cut, _throughput, _grid, _mesh):
        progress(part.__doc__ or part.__name__)
        figures += part(folder, runs)
    return figures


def _cut(folder: Path, runs: int) -> list[Figure]:
    """a link is cut"""
    with Lab.up(_file(folder, "cut", "preset: home_router"), name=f"bench-{os.getpid()}") as lab:
        link = lab.link("a:inside")
        carrier = "/sys/class/net/inside/carrier"

        def cut() -> None:
            link.down()
            if lab["a"].read(carrier).strip() != b"0":
                raise RuntimeError("the link was cut, and its node still sees a carrier")

        cuts = time_calls(cut, runs * 5, after=link.up)
        lab.link("b:outside").impair(delay="1ms")
        sets = time_calls(lambda: lab.link("b:outside").impair(delay="2ms"), runs * 5)
    return [
        Figure("a link cut, until its node sees no carrier", str(cuts), "<= 5 ms", cuts.median, 0.005),
        Figure("a link's delay changed", str(sets), "-", 0, 0),
    ]


def _throughput(folder: Path, runs: int) -> list[Figure]:
    """one TCP stream through a router, by each means in turn"""
    rates: dict[str, list[float]] = {"kernel": [], "natbox": [], "linkwire": []}
    with (
        Lab.up(_file(folder, "kernel", "preset: home_router"), name=f"bench-k-{os.getpid()}") as kernel,
        Lab.up(_file(folder, "natbox", "filtering: endpoint_independent"), name=f"bench-n-{os.getpid()}") as natbox,
        Lab.up(_file(folder, "wire", "preset: home_router"), name=f"bench-w-{os.getpid()}") as wire,
    ):
        wire.link("a:inside").impair(delay="10us")
        for _ in range(runs):
            for name, lab in (("kernel", kernel), ("natbox", natbox), ("linkwire", wire)):
                rates[name].append(_transfer(lab))
    plain, by_natbox, by_wire = (statistics.median(rates[name]) for name in ("kernel", "natbox", "linkwire"))
    return [
        Figure("TCP through a NAT by the kernel", f"{plain:.1f} Gbit/s", "-", 0, 0),
        Figure("TCP through a NAT by natbox", f"{by_natbox:.2f} Gbit/s, {by_natbox / plain:.2f} of it", "-", 0, 0),
        Figure(
            "TCP through the kernel's NAT and a wire of linkwire",
            f"{by_wire:.1f} Gbit/s, {by_wire / plain:.2f} of it",
            ">= 2 Gbit/s",
            by_wire,
            2,
            more_is_better=True,
        ),
    ]


def _grid(_folder: Path, runs: int) -> list[Figure]:
    """the grid of NATs, certified"""
    name = f"bench-grid-{os.getpid()}"
    ready = time_calls(
        lambda: run([LAB, "up", str(NAT_GRID), "--name", name, "--quiet"]), 1, after=lambda: run([LAB, "down", name])
    )
    run([LAB, "up", str(NAT_GRID), "--name", name, "--quiet"])
    try:
        certified = time_calls(lambda: run([LAB, "nat", "--lab", name]), max(2, runs // 3))
    finally:
        run([LAB, "down", name])
    return [
        Figure("nat_grid.yaml up", str(ready), "-", 0, 0),
        Figure("nat_grid.yaml certified by `lab nat`", str(certified), "<= 60 s", certified.median, 60),
    ]


def _mesh(_folder: Path, runs: int) -> list[Figure]:
    """the homelab with its mesh"""
    name = f"bench-{os.getpid()}"
    ready: Timing = time_calls(
        lambda: run([LAB, "up", str(HOMELAB), "--name", name, "--quiet"]), runs, after=lambda: run([LAB, "down", name])
    )
    return [Figure("homelab.yaml up, its mesh and services ready", str(ready), "<= 3 s", ready.median, 3.0)]


def _file(folder: Path, name: str, nat: str) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(_PAIR.format(nat=nat))
    return file


def _transfer(lab: Lab) -> float:
    """Gbit/s from `a` to `b` for a while, as `b` receives them."""
    with lab["b"].listen(_PORT) as door, lab["a"].connect(("b", _PORT)) as sender:
        receiver, _ = door.accept()
        with receiver:
            sending = threading.Thread(target=_send, args=(sender,))
            began = time.perf_counter()
            sending.start()
            received, room = 0, bytearray(1 << 20)
            while count := receiver.recv_into(room):
                received += count
            sending.join()
            return received * 8 / (time.perf_counter() - began) / 1e9


def _send(sender: socket.socket) -> None:
    end, piece = time.perf_counter() + _SECONDS, bytes(1 << 20)
    while time.perf_counter() < end:
        sender.sendall(piece)
    sender.shutdown(socket.SHUT_WR)
