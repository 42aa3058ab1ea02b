"""The numbers of all proxies side by side, as Markdown."""

from __future__ import annotations

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
from benchmarks.proxy.results import DIRECT, Results
from benchmarks.proxy.targets import number

_RATES = [
    (BULK_UP, "gbit_s", "bulk up, Gbit/s"),
    (BULK_DOWN, "gbit_s", "bulk down, Gbit/s"),
    (CONNECT, "per_s", "connections a second"),
    (CONNECT_NAME, "per_s", "the same, led by TLS name"),
    (TRANSPARENT, "per_s", "the same, PROXY header in, client's address out"),
    (PING_ONE, "p50_us", "64 bytes and back, one connection, p50, us"),
    (PING_ONE, "p99_us", "the same, p99, us"),
    (PING_MANY, "p50_us", "64 bytes and back, 64 connections, p50, us"),
    (PING_MANY, "p99_us", "the same, p99, us"),
    (PING_PACED, "p50_us", "the same at 20,000 a second in all, p50, us"),
    (PING_PACED, "p99_us", "the same, p99, us"),
    (IDLE, "kib_each", "idle connection, KiB of user space"),
    (IDLE, "mib_after", "all of them and the proxy itself, MiB"),
    (UDP_ONE, "per_s", "1200-byte datagrams echoed a second, one flow"),
    (UDP_MANY, "per_s", "the same, 16 flows"),
    (UDP_JOINED, "per_s", "the same, joined by GSO and GRO"),
    (UDP_JOINED, "gbit_s", "the same, Gbit/s each way"),
    (FLOOD, "per_s", "datagrams a second that arrive of a flood"),
    (FLOOD_JOINED, "per_s", "the same, joined"),
    (CARRIED, "per_s", "datagrams a second that one processor carries, 16 flows, by tens"),
    (CARRIED_SINGLY, "per_s", "the same, 64 flows, one by one"),
]
_COSTS = [
    (BULK_UP, "cpu_s_per_gb", "bulk up, s per GB"),
    (BULK_DOWN, "cpu_s_per_gb", "bulk down, s per GB"),
    (CONNECT, "cpu_s_per_1000", "connections, s per 1,000"),
    (CONNECT_NAME, "cpu_s_per_1000", "the same, led by TLS name"),
    (TRANSPARENT, "cpu_s_per_1000", "the same, PROXY header in, client's address out"),
    (PING_ONE, "cpu_us_each", "64 bytes and back, one connection, us"),
    (PING_MANY, "cpu_us_each", "64 bytes and back, 64 connections, us"),
    (PING_PACED, "cpu_us_each", "the same at 20,000 a second in all, us"),
    (UDP_ONE, "cpu_us_each", "datagram, one flow, us"),
    (UDP_MANY, "cpu_us_each", "datagram, 16 flows, us"),
    (UDP_JOINED, "cpu_us_each", "datagram, joined, us"),
    (CARRIED, "cpu_us_each", "datagram at the highest rate, 16 flows, us"),
    (CARRIED_SINGLY, "cpu_us_each", "the same, 64 flows, us"),
]


def rates(results: Results) -> str:
    return _table(results, _RATES, [*(peer.name for peer in results.peers), DIRECT])


def costs(results: Results) -> str:
    return _table(results, _COSTS, [peer.name for peer in results.peers])


def markdown(rows: list[list[str]]) -> str:
    """A table of cells; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _table(results: Results, kinds: list[tuple[str, str, str]], columns: list[str]) -> str:
    rows = [["what", *columns]]
    for measure, key, words in kinds:
        if measure in results.samples:
            cells = [results.median(measure, column, key) for column in columns]
            rows.append([words, *("-" if cell is None else number(cell) for cell in cells)])
    return markdown(rows)
