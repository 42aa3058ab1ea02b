"""Counters of links: counted since the last change, never negative, quantiles only of frames that came since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.realise.link_counters import of_ports, of_wire, since

DEV = """Inter-|   Receive                            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:    0    0    0    0    0     0          0         0        0    0    0    0    0     0       0          0
 port1: 1000   10    0    0    0     0          0         0     2000   20    0    0    0     0       0          0
"""


def direction(frames: int, delay: Mapping[str, int | None]) -> dict[str, Any]:
    drops = ("loss", "queue", "memory", "no_room", "down", "refused")
    return {
        "frames_in": frames,
        "bytes_in": frames * 100,
        "frames_out": frames,
        "duplicated": 0,
        "corrupted": 0,
        **{f"dropped_{cause}": number for number, cause in enumerate(drops)},
        "reordered": 0,
        "delay": delay,
    }


def test_what_a_port_receives_is_what_its_node_sends() -> None:
    counters = of_ports(DEV)["port1"]
    assert counters == {"egress": {"frames": 10, "bytes": 1000}, "ingress": {"frames": 20, "bytes": 2000}}
    assert since(counters, {})["egress"] == {"frames": 10, "bytes": 1000, "delay_mean_ms": None}


def test_a_wire_counts_since_the_change_and_knows_its_delays() -> None:
    nothing = {"frames": 0, "sum_ns": 0, "min_ns": None, "max_ns": None, "p50_ns": None, "p99_ns": None}
    some = {"frames": 4, "sum_ns": 8_000_000, "min_ns": 1, "max_ns": 4_000_000, "p50_ns": 2_000_000, "p99_ns": 3}
    new = of_wire({"a_to_b": direction(0, nothing), "b_to_a": direction(0, nothing)})
    used = of_wire({"a_to_b": direction(4, some), "b_to_a": direction(9, nothing)})
    measured = since(used, new)
    assert measured["egress"]["frames"] == 4
    assert (measured["egress"]["delay_mean_ms"], measured["egress"]["delay_p50_ms"]) == (2.0, 2.0)
    assert measured["ingress"]["frames"] == 9
    assert measured["ingress"]["delay_mean_ms"] is measured["ingress"]["delay_p50_ms"] is None
    later = since(used, used)["egress"]
    assert (later["frames"], later["delay_mean_ms"], later["delay_p50_ms"]) == (0, None, None)


def test_a_counter_that_began_anew_counts_from_there() -> None:
    few = {"egress": {"frames": 3}, "ingress": {"frames": 1}}
    many = {"egress": {"frames": 30}, "ingress": {"frames": 1}}
    assert since(few, many)["egress"]["frames"] == 3
    assert since(few, many)["ingress"]["frames"] == 0
