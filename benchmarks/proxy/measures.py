"""What is measured: each a load on one door of a proxy, with what it cost the proxy's processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.proxy.bench_lab import ROOT, direct
from benchmarks.proxy.doors import (
    ANSWER,
    COUNTED,
    ECHO,
    INTRODUCED,
    PREREAD,
    SINK,
    SOURCE,
    SUNK_PORT,
    UDP_ECHO,
    UDP_ECHO_JOINED,
    Door,
)
from benchmarks.proxy.peer import Running

BULK_UP, BULK_DOWN = "bulk up", "bulk down"
CONNECT, CONNECT_NAME = "connect", "connect, TLS name"
PING_ONE, PING_MANY = "ping, 1 connection", "ping, 64 connections"
PING_PACED = "ping, 64 connections, paced"
IDLE = "idle"
UDP_ONE, UDP_MANY, UDP_JOINED = "UDP echo, 1 flow", "UDP echo, 16 flows", "UDP echo, joined"
FLOOD, FLOOD_JOINED = "UDP flood", "UDP flood, joined"
CARRIED, CARRIED_SINGLY = "UDP carried, 16 flows", "UDP carried, 64 flows, singly"
TRANSPARENT = "introduced and transparent"

_PACE = 20_000  # questions a second: about a quarter of what two processors can do for client, proxy and backend
_SILENCE = 8.0  # seconds after which a connection is called idle
Sample = dict[str, float]
HELLO = ROOT / "proxy" / "tests" / "vectors" / "client_hello" / "curl_openssl.bin"
# Each run's clients are of a network of their own: their endpoints are not those of connections that have just ended.
_networks = (f"203.{number}.0.0" for number in itertools.cycle(range(256)))


@dataclass(frozen=True)
class Measure:
    """One load, and the numbers that are taken from it."""

    name: str
    door: Door
    take: Callable[[Running, float], Sample]
    has_direct: bool = True
    connections: int = 64


def _bulk(door: Door, way: str) -> Callable[[Running, float], Sample]:
    def take(proxy: Running, seconds: float) -> Sample:
        before = proxy.processor_seconds()
        words = ("bulk", "--to", proxy.at(door), "--count", direct(SUNK_PORT), "--seconds", seconds, "--way", way)
        found = proxy.bench.load(*words)
        used = proxy.processor_seconds() - before
        return {"gbit_s": found["gbit_s"], "cpu_s_per_gb": used / (found["bytes"] / 1e9)}

    return take


def _connect(door: Door, *more: object) -> Callable[[Running, float], Sample]:
    def take(proxy: Running, seconds: float) -> Sample:
        before = proxy.processor_seconds()
        found = proxy.bench.load("connect", "--to", proxy.at(door), "--seconds", seconds, "--clients", 64, *more)
        used = proxy.processor_seconds() - before
        failed = found["failed"] / max(1, found["done"] + found["failed"])
        return {
            "per_s": found["per_s"],
            "p99_us": found["p99_us"],
            "cpu_s_per_1000": used / max(1, found["done"]) * 1000,
            "failed": failed,
        }

    return take


def _introduced(proxy: Running, seconds: float) -> Sample:
    return _connect(INTRODUCED, "--introduce", next(_networks))(proxy, seconds)


def _ping(clients: int, *more: object) -> Callable[[Running, float], Sample]:
    def take(proxy: Running, seconds: float) -> Sample:
        words = ("ping", "--to", proxy.at(ECHO), "--seconds", seconds, "--clients", clients, *more)
        before = proxy.processor_seconds()
        if clients == 1:
            with proxy.bench.on_one_processor(proxy.processes(), 0):
                found = proxy.bench.load(*words, processor=0)
        else:
            found = proxy.bench.load(*words)
        used = proxy.processor_seconds() - before
        cost = used / 1.1 / found["done"] * 1e6  # the load's first tenth is not counted, and is paid
        return {"per_s": found["per_s"], "p50_us": found["p50_us"], "p99_us": found["p99_us"], "cpu_us_each": cost}

    return take


def idle(count: int) -> Callable[[Running, float], Sample]:
    def take(proxy: Running, _seconds: float) -> Sample:
        before = proxy.memory()
        with proxy.bench.held(proxy.at(ECHO), count):
            time.sleep(_SILENCE)
            after = proxy.memory()
        return {
            "kib_each": (after.anonymous - before.anonymous) / count / 1024,
            "mib_before": before.proportional / 2**20,
            "mib_after": after.proportional / 2**20,
        }

    return take


def _udp(door: Door, flows: int, *more: object) -> Callable[[Running, float], Sample]:
    def take(proxy: Running, seconds: float) -> Sample:
        before = proxy.processor_seconds()
        words = ("udp", "--to", proxy.at(door), "--seconds", seconds, "--flows", flows, "--window", 64, *more)
        found = proxy.bench.load(*words)
        used = proxy.processor_seconds() - before
        lost = found["lost"] / max(1, found["came"])
        # There and back are two.
        cost = used / 1.1 / max(1, 2 * found["came"]) * 1e6
        return {"per_s": found["per_s"], "gbit_s": found["gbit_s"], "lost": lost, "cpu_us_each": cost}

    return take


def _flood(*more: object) -> Callable[[Running, float], Sample]:
    def take(proxy: Running, seconds: float) -> Sample:
        before = proxy.processor_seconds()
        words = (
            "flood",
            "--to",
            proxy.at(COUNTED),
            "--count",
            direct(COUNTED.backend_port),
            "--seconds",
            seconds,
            *more,
        )
        found = proxy.bench.load(*words)
        used = proxy.processor_seconds() - before
        return {
            "per_s": found["per_s"],
            "gbit_s": found["gbit_s"],
            "cpu_us_each": used / 1.1 / max(1, found["came"]) * 1e6,
        }

    return take


# Datagrams a second between which the highest rate is looked for, and by how many steps: to one fortieth.
_SLOWEST, _FASTEST, _STEPS = 4_000, 1_000_000, 8
_TRIES = 2  # of a step, for a pause of the machine's is not the proxy's
_LOST = 0.01  # of the datagrams, at the highest rate that counts as carried
_KEPT = 0.95  # of the rate, below which it is the sender who cannot


def _carried(flows: int, burst: int) -> Callable[[Running, float], Sample]:
    """The highest rate at which one processor carries datagrams that come anyway, and what one costs then."""

    def take(proxy: Running, seconds: float) -> Sample:
        most = {"per_s": 0.0, "cpu_us_each": float("inf")}
        low, high = float(_SLOWEST), float(_FASTEST)
        with proxy.bench.apart(proxy.processes()) as processor:
            for _ in range(_STEPS):
                rate = (low * high) ** 0.5
                words = ("--flows", flows, "--burst", burst, "--rate", rate, "--seconds", max(0.5, seconds / 4))
                tries = (_carry(proxy, processor, rate, words) for _ in range(_TRIES))
                found = next((one for one in tries if one), None)
                low, high, most = (rate, high, found) if found else (low, rate, most)
        return most

    return take


def _carry(proxy: Running, processor: int, rate: float, words: tuple[object, ...]) -> Sample | None:
    """What it took; none if it was too much."""
    before = proxy.processor_seconds()
    where = ("--to", proxy.at(COUNTED), "--count", direct(COUNTED.backend_port))
    found = proxy.bench.load("carry", *where, *words, processor=processor)
    used = proxy.processor_seconds() - before
    if found["lost"] > _LOST * (found["came"] + found["lost"]) or found["per_s"] < _KEPT * rate:
        return None
    return {"per_s": found["per_s"], "cpu_us_each": used / found["came"] * 1e6}


def measures(idle_connections: int) -> list[Measure]:
    return [
        Measure(BULK_UP, SINK, _bulk(SINK, "up")),
        Measure(BULK_DOWN, SOURCE, _bulk(SOURCE, "down")),
        Measure(CONNECT, ANSWER, _connect(ANSWER)),
        Measure(CONNECT_NAME, PREREAD, _connect(PREREAD, "--payload", HELLO), has_direct=False),
        Measure(PING_ONE, ECHO, _ping(1)),
        Measure(PING_MANY, ECHO, _ping(64)),
        Measure(PING_PACED, ECHO, _ping(64, "--rate", _PACE)),
        Measure(IDLE, ECHO, idle(idle_connections), has_direct=False, connections=idle_connections),
        Measure(UDP_ONE, UDP_ECHO, _udp(UDP_ECHO, 1)),
        Measure(UDP_MANY, UDP_ECHO, _udp(UDP_ECHO, 16)),
        Measure(UDP_JOINED, UDP_ECHO_JOINED, _udp(UDP_ECHO_JOINED, 16, "--joined")),
        Measure(FLOOD, COUNTED, _flood()),
        Measure(FLOOD_JOINED, COUNTED, _flood("--joined")),
        Measure(CARRIED, COUNTED, _carried(16, 10)),
        Measure(CARRIED_SINGLY, COUNTED, _carried(64, 1)),
        Measure(TRANSPARENT, INTRODUCED, _introduced, has_direct=False),
    ]
