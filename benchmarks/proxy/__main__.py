"""Measure, print the table, keep it in reports/baseline/: ``python -m benchmarks.proxy [--quick]``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections import defaultdict

from benchmarks.proxy.bench_lab import BenchLab, bench_lab, descriptors
from benchmarks.proxy.direct import direct_way
from benchmarks.proxy.measures import Measure, Sample, measures
from benchmarks.proxy.peer import Peer, running
from benchmarks.proxy.peers import peers

Samples = dict[str, dict[str, list[Sample]]]


def main() -> int:
    """Measure and report; 1 if a target was missed, 3 if not root."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run: to see that it works, not to quote")
    parser.add_argument("--only", default="", help="measures whose names hold this")
    parser.add_argument("--peers", default="", help="names of peers, divided by a semicolon")
    parser.add_argument("--seconds", type=float, default=0, help="of one load")
    parser.add_argument("--runs", type=int, default=0)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("bench-proxy needs root: transparent proxies do", file=sys.stderr)
        return 3
    runs = arguments.runs or (1 if arguments.quick else 5)
    seconds = arguments.seconds or (1.0 if arguments.quick else 3.0)
    chosen = [one for one in measures(_idle_connections(quick=arguments.quick)) if arguments.only in one.name]
    wanted = [name.strip() for name in arguments.peers.split(";") if name.strip()]
    present = [peer for peer in peers() if peer.is_here and (not wanted or peer.name in wanted)]
    with bench_lab() as bench:
        samples = _sample(bench, present, chosen, runs=runs, seconds=seconds)
    print(json.dumps(_medians(samples), indent=1))
    return 0


def _sample(bench: BenchLab, present: list[Peer], chosen: list[Measure], *, runs: int, seconds: float) -> Samples:
    """Each measure of each peer in turn, so that a change in the machine's speed meets all."""
    samples: Samples = defaultdict(lambda: defaultdict(list))
    for measure in chosen:
        for number in range(runs):
            for peer in present:
                if peer.has(measure.door):
                    with running(bench, peer) as proxy:
                        sample = measure.take(proxy, seconds)
                    samples[measure.name][peer.name].append(sample)
                    _say(f"{measure.name} {number + 1}/{runs} {peer.name}: {_short(sample)}")
            if measure.has_direct:
                sample = measure.take(direct_way(bench), seconds)
                samples[measure.name]["direct"].append(sample)
                _say(f"{measure.name} {number + 1}/{runs} direct: {_short(sample)}")
    return samples


def _idle_connections(*, quick: bool) -> int:
    """Each takes two sockets of the proxy."""
    return 2000 if quick else min(10_000, (descriptors() - 500) // 2)


def _medians(samples: Samples) -> dict[str, dict[str, Sample]]:
    return {
        measure: {
            peer: {key: statistics.median(one[key] for one in found) for key in found[0]}
            for peer, found in by_peer.items()
        }
        for measure, by_peer in samples.items()
    }


def _short(sample: Sample) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in sample.items())


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
