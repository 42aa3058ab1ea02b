"""What has passed through links: counters of linkwire, of queueing disciplines, and of ports for plain links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.plan.link_name import BOTH

Counters = dict[str, dict[str, int]]
"""For egress and ingress, each count since the link's means were put in place."""

# Of a link whose interface the node has deleted.
NOTHING: Counters = {name: {"frames": 0, "bytes": 0} for name in BOTH}

# Of linkwire's counters those of a wire's directions, by the names shown here.
_OF_WIRE = {
    "frames": "frames_in",
    "bytes": "bytes_in",
    "delivered": "frames_out",
    "lost": "dropped_loss",
    "queue_full": "dropped_queue",
    "memory_full": "dropped_memory",
    "no_room": "dropped_no_room",
    "end_down": "dropped_down",
    "refused": "dropped_refused",
    "duplicated": "duplicated",
    "corrupted": "corrupted",
    "reordered": "reordered",
}
_QUANTILES = ("min_ns", "p50_ns", "p99_ns", "max_ns")


def of_wire(reading: Mapping[str, Any]) -> Counters:
    """Counters of a wire as linkwire tells them; its side a is the node's."""
    counters: Counters = {}
    for name, way in zip(BOTH, ("a_to_b", "b_to_a"), strict=True):
        told = reading[way]
        counters[name] = {shown: told[key] for shown, key in _OF_WIRE.items()}
        delay = told["delay"]
        counters[name] |= {"delayed": delay["frames"], "delay_sum_ns": delay["sum_ns"]}
        counters[name] |= {f"delay_{which}": delay[which] or 0 for which in _QUANTILES}
    return counters


def of_ports(text: str) -> dict[str, Counters]:
    """Counters of every interface of /proc/net/dev; what a port receives is what its node sends."""
    found: dict[str, Counters] = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields = [int(number) for number in numbers.split()]
        found[name.strip()] = {
            "egress": {"frames": fields[1], "bytes": fields[0]},
            "ingress": {"frames": fields[9], "bytes": fields[8]},
        }
    return found


def since(now: Counters, before: Counters) -> dict[str, dict[str, Any]]:
    """The difference; a counter that began anew counts from there.

    Where delays are measured, with their mean, and with their quantiles if all are of frames since `before`.
    """
    return {name: _since(now[name], before.get(name, {})) for name in BOTH}


def _since(now: dict[str, int], before: dict[str, int]) -> dict[str, Any]:
    quantiles = {key: now[key] for key in map("delay_{}".format, _QUANTILES) if key in now}
    counted = {key: value for key, value in now.items() if key not in quantiles}
    if any(value < before.get(key, 0) for key, value in counted.items()):
        before = {}
    counts = {key: value - before.get(key, 0) for key, value in counted.items()}
    delayed, total = counts.pop("delayed", 0), counts.pop("delay_sum_ns", 0)
    measured: dict[str, Any] = {**counts, "delay_mean_ms": round(total / delayed / 1e6, 3) if delayed else None}
    for key, value in quantiles.items():
        is_of_these = delayed and not before.get("delayed")
        measured[f"{key.removesuffix('_ns')}_ms"] = round(value / 1e6, 3) if is_of_these else None
    return measured
