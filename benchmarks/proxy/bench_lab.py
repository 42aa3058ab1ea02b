"""The lab of the measurements: client, proxy and backend in a row; the proxy's node is a router: direct is a way too.

client 192.0.2.2 ---- 192.0.2.1 proxy 198.51.100.1 ---- 198.51.100.2 backend
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.proxy import processes
from benchmarks.proxy.doors import ANSWER, BACKEND
from lab import Lab, Node

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "target" / "bench-proxy"
LOAD = ROOT / "target" / "proxyload" / "release" / "proxyload"
# Ports of ended connections are used again after a second, and there are sixty thousand: what is measured is the proxy.
_TOPOLOGY = """
networks:
  near: {prefixes: [192.0.2.0/24]}
  far: {prefixes: [198.51.100.0/24]}
nodes:
  client: {links: {near: 192.0.2.2}, sysctls: *load}
  proxy: {role: router, links: {near: 192.0.2.1, far: 198.51.100.1}, sysctls: *load}
  backend: {links: {far: 198.51.100.2}, sysctls: *load}
"""
_SYSCTLS = (
    '{net.ipv4.ip_local_port_range: "10000 65000", net.ipv4.tcp_tw_reuse: 1, net.core.somaxconn: 4096, '
    "net.ipv4.tcp_max_syn_backlog: 8192}"
)
_LONGEST = 120.0  # seconds of one load
_DESCRIPTORS = 100_000
_HELD = subprocess.PIPE


class BenchLab:
    """The running lab."""

    def __init__(self, lab: Lab) -> None:
        self.client, self.proxy, self.backend = lab["client"], lab["proxy"], lab["backend"]
        self.proxy_network = _network(self.proxy)

    def load(self, *words: object, processor: int | None = None) -> dict[str, Any]:
        """Let the client make a load, on one processor if one is given, and return what it says of it."""
        pinned = [] if processor is None else ["taskset", "-c", str(processor)]
        argv = [*pinned, str(LOAD), *(str(word) for word in words)]
        done = self.client.run(argv, timeout=_LONGEST, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @contextmanager
    def on_one_processor(self, of_proxy: Collection[int], processor: int) -> Iterator[None]:
        """The proxy and the backend on one processor.

        A chain of wake-ups takes 40 us on one and 70 us on two of this machine's, and it is the scheduler who chooses.
        """
        moved = [*of_proxy, *processes.find(_network(self.backend), {LOAD.name})]
        allowed = os.sched_getaffinity(0)
        processes.pin(moved, {processor})
        try:
            yield
        finally:
            processes.pin(moved, allowed)

    @contextmanager
    def apart(self, of_proxy: Collection[int]) -> Iterator[int]:
        """The proxy on one processor of its own, the backend on another, which is given for the load too."""
        others = processes.find(_network(self.backend), {LOAD.name})
        allowed = os.sched_getaffinity(0)
        own, rest = max(allowed), min(allowed)
        processes.pin(of_proxy, {own})
        processes.pin(others, {rest})
        try:
            yield rest
        finally:
            processes.pin([*of_proxy, *others], allowed)

    @contextmanager
    def held(self, to: str, count: int) -> Iterator[None]:
        """So many idle connections of the client."""
        argv = [str(LOAD), "idle", "--to", to, "--clients", str(count)]
        with self.client.start(argv, stdin=_HELD, stdout=_HELD, stderr=_HELD) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                assert process.stderr is not None
                raise RuntimeError(f"idle connections to {to}: {process.stderr.read()}")
            yield
            process.stdin.close()
            process.wait(30)


def descriptors() -> int:
    """How many sockets a program may have; not every root may raise that."""
    return min(_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


# Answers of a backend on loopback to clients' addresses are for this host: what each transparent proxy asks for.
_WAY_BACK = (
    "ip rule add pref 1000 from 127.0.0.0/8 iif lo lookup 100",
    "ip route add local 0.0.0.0/0 dev lo table 100",
)


def _network(node: Node) -> str:
    return node.run(["readlink", "/proc/self/ns/net"], check=True).stdout.strip()


@contextmanager
def bench_lab() -> Iterator[BenchLab]:
    """The lab with its backends: one in its own node, one on the loopback of the proxy's."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Programs in the lab take over the bounds of whoever started it; root of a node may not raise them.
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors(), descriptors()))
    file = FOLDER / "lab.yaml"
    file.write_text(_TOPOLOGY.replace("*load", _SYSCTLS))
    with Lab.up(file, name=f"bench-proxy-{os.getpid()}") as lab:
        bench = BenchLab(lab)
        with (
            bench.backend.start([str(LOAD), "serve"]),
            bench.proxy.start([str(LOAD), "serve", "--address", "127.0.0.1"]),
        ):
            bench.backend.wait_bound(ANSWER.backend_port)
            for line in _WAY_BACK:
                bench.proxy.run(line.split(), check=True)
            bench.proxy.wait_bound(ANSWER.backend_port, address="127.0.0.1")
            yield bench


def direct(port: int) -> str:
    return f"{BACKEND}:{port}"
