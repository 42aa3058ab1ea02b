"""The figures of the lab itself: how fast it comes up, answers, checks; how much memory a node holds."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import lab_memory
from benchmarks.stopwatch import Timing, run, time_calls, time_in_turn, words
from benchmarks.topologies import HOMELAB, HOMELAB_SSH, hosts_on_a_switch
from lab import Lab
from lab.realise import registry

LAB = str(Path(sys.executable).parent / "lab")
NAME = f"bench-{os.getpid()}"
MANY = 1000
SOME = 100
FEW = 10


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    text: str
    target: str
    value: float
    limit: float
    more_is_better: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.more_is_better else self.value <= self.limit


def measure(folder: Path, *, runs: int, progress: Callable[[str], None]) -> list[Figure]:
    """All figures, each the median of `runs`."""
    figures = []
    for part in (_homelab, _hundred, _thousand, _commands):
        progress(part.__doc__ or part.__name__)
        figures += part(folder, runs)
    return figures


def _homelab(_folder: Path, runs: int) -> list[Figure]:
    """the homelab by ssh -R, with and without services"""
    ready = _time_up(HOMELAB_SSH, runs)
    links = _time_up(HOMELAB_SSH, runs, "--no-services")
    return [
        Figure("homelab_ssh.yaml up, all services ready", str(ready), "<= 2 s", ready.median, 2.0),
        Figure("homelab_ssh.yaml up, links only", str(links), "<= 0.5 s", links.median, 0.5),
    ]


def _hundred(folder: Path, runs: int) -> list[Figure]:
    """a hundred hosts on one switch, beside mininet"""
    file = str(hosts_on_a_switch(SOME, folder))

    def ours() -> None:
        run([LAB, "up", file, "--name", NAME, "--quiet"])
        run([LAB, "down", NAME])

    if shutil.which("mn") is None or os.geteuid() != 0:
        mine = time_calls(ours, runs)
        return [Figure("100 hosts, up and down", f"{mine}; no mininet to compare (root, apt)", "8 x", 0, 8)]
    # Mininet works in the host's own network namespace; here it gets one to itself.
    theirs = ["unshare", "--net", "--mount", "mn", "--topo", f"single,{SOME}", "--switch", "lxbr"]
    mine, mininet = time_in_turn(ours, lambda: run([*theirs, "--controller", "none", "--test", "none"]), runs)
    ratio = statistics.median(b / a for a, b in zip(mine.runs, mininet.runs, strict=True))
    return [
        Figure("100 hosts on a switch, up and down", str(mine), "-", 0, 0),
        Figure("the same by mininet (mn --topo single,100 --switch lxbr)", str(mininet), "-", 0, 0),
        Figure("faster than mininet by", f"{ratio:.1f} x", ">= 8 x, aim 15 x", ratio, 8, more_is_better=True),
    ]


def _thousand(folder: Path, runs: int) -> list[Figure]:
    """a thousand hosts on one switch, and what they hold"""
    file = hosts_on_a_switch(MANY, folder)
    many = _time_up(file, max(2, runs // 3))
    some = _time_up(hosts_on_a_switch(SOME, folder), runs)
    growth = (many.median / MANY) / (some.median / SOME)
    memory = (_memory(file) - _memory(hosts_on_a_switch(FEW, folder))) / (MANY - FEW) / 1024
    return [
        Figure("1,000 hosts on a switch, up", str(many), "<= 15 s", many.median, 15.0),
        Figure("time a host, of 1,000 to of 100", f"{growth:.2f} x", "<= 1.2 x (linear)", growth, 1.2),
        Figure("user-space memory of an idle node", f"{memory:.1f} KiB", "< 300 KiB", memory, 300),
    ]


def _commands(_folder: Path, runs: int) -> list[Figure]:
    """commands and sockets on a running lab"""
    run([LAB, "up", str(HOMELAB), "--name", NAME, "--quiet"])
    lab = Lab(NAME)
    try:
        execute = time_calls(lambda: run([LAB, "exec", "--lab", NAME, "nas", "--", "true"]), runs * 3)
        phone = lab["phone"]
        opened = time_calls(lambda: phone.socket().close(), runs * 100)
    finally:
        lab.down()
    check = time_calls(lambda: run([LAB, "check", str(HOMELAB)]), runs * 3)
    return [
        Figure("lab exec NODE -- true", str(execute), "<= 60 ms", execute.median, 0.060),
        Figure("a socket of a node, from Python", str(opened), "<= 1 ms", opened.median, 0.001),
        Figure("lab check homelab.yaml", str(check), "<= 150 ms", check.median, 0.150),
        *_exec_beside_ip(runs, execute),
    ]


def _exec_beside_ip(runs: int, execute: Timing) -> list[Figure]:
    """What iproute2 takes for the same, as a measure of what is possible."""
    if os.geteuid() != 0:
        return []
    # Mounted over, for `ip netns` leaves names in the host's /run.
    setup = "mount -t tmpfs none /run && ip netns add bench"
    script = f"{setup} && for i in $(seq {runs * 3}); do ip netns exec bench true; done"
    alone = time_calls(lambda: subprocess.run(["unshare", "-n", "-m", "sh", "-c", script], check=True), 1)
    each = alone.median / (runs * 3)
    return [Figure("lab exec beside `ip netns exec`", f"{execute.median / each:.1f} x of {words(each)}", "-", 0, 0)]


def _time_up(file: Path, runs: int, *options: str) -> Timing:
    return time_calls(
        lambda: run([LAB, "up", str(file), "--name", NAME, "--quiet", *options]),
        runs,
        after=lambda: run([LAB, "down", NAME]),
    )


def _memory(file: Path) -> int:
    run([LAB, "up", str(file), "--name", NAME, "--quiet"])
    channel = registry.knock(NAME)
    try:
        return lab_memory(registry.supervisor_of(channel))
    finally:
        channel.close()
        run([LAB, "down", NAME])
