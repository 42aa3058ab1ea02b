"""Measure, print the tables, keep them in reports/baseline/: ``python -m benchmarks.proxy [--quick]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.__main__ import BASELINE, machine, say
from benchmarks.lab_figures import Figure
from benchmarks.proxy import tables
from benchmarks.proxy.bench_lab import BenchLab, bench_lab, descriptors
from benchmarks.proxy.direct import direct_way
from benchmarks.proxy.measures import IDLE, Measure, Sample, measures
from benchmarks.proxy.peer import running
from benchmarks.proxy.peers import peers
from benchmarks.proxy.plot import plot
from benchmarks.proxy.quic_cost import quic_decision_us
from benchmarks.proxy.reload import RELOADS, reload_losses
from benchmarks.proxy.results import DIRECT, Results
from benchmarks.proxy.targets import figures


def main() -> int:
    """Measure and report; 1 if a target was missed, 3 if not root."""
    arguments = _arguments()
    if os.geteuid() != 0:
        print("bench-proxy needs root: transparent proxies do", file=sys.stderr)
        return 3
    wanted = [name.strip() for name in arguments.peers.split(";") if name.strip()]
    known = [peer for peer in peers() if not wanted or peer.name in wanted]
    results = Results([peer for peer in known if peer.is_here])
    absent = [peer.name for peer in known if not peer.is_here]
    idle = _idle_connections(quick=arguments.quick)
    chosen = [one for one in measures(idle) if arguments.only in one.name]
    with bench_lab() as bench:
        _sample(bench, results, chosen, runs=arguments.runs, seconds=arguments.seconds)
        found = list(figures(results))
        if arguments.only in "reload":
            found += _reload_figures(bench, results, 5 if arguments.quick else RELOADS)
    if not arguments.quick:
        say("a QUIC hello read")
        cost = quic_decision_us()
        found.append(Figure("QUIC route decision", f"{cost:.1f} us of a processor", "<= 50 us", cost, 50))
    text = _text(results, found, absent, idle)
    print(text)
    if not arguments.quick and not arguments.only and not wanted:
        _keep(results, found, text, BASELINE)
    return 0 if all(figure.met for figure in found) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run: to see that it works, not to quote")
    parser.add_argument("--only", default="", help="measures whose names hold this; nothing is kept")
    parser.add_argument("--peers", default="", help="names of peers, divided by a semicolon; nothing is kept")
    parser.add_argument("--seconds", type=float, help="of one load (3; quick: 1)")
    parser.add_argument("--runs", type=int, help="of each measure (5; quick: 1)")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs or (1 if arguments.quick else 5)
    arguments.seconds = arguments.seconds or (1.0 if arguments.quick else 3.0)
    return arguments


def _sample(bench: BenchLab, results: Results, chosen: list[Measure], *, runs: int, seconds: float) -> None:
    """Each measure of each peer in turn, so that a change in the machine's speed meets all."""
    for measure in chosen:
        for number in range(1 if measure.name == IDLE else runs):
            for peer in results.peers:
                if peer.has(measure.door) and measure.connections <= peer.most_connections:
                    with running(bench, peer) as proxy:
                        _take(results, measure, peer.name, measure.take(proxy, seconds), number)
            if measure.has_direct:
                _take(results, measure, DIRECT, measure.take(direct_way(bench), seconds), number)


def _take(results: Results, measure: Measure, peer: str, sample: Sample, number: int) -> None:
    results.add(measure.name, peer, sample)
    told = ", ".join(f"{key} {value:.4g}" for key, value in sample.items())
    say(f"{measure.name} {number + 1} {peer}: {told}")


def _reload_figures(bench: BenchLab, results: Results, reloads: int) -> Iterator[Figure]:
    for peer in results.peers:
        if peer.name in (results.ours, "nginx"):
            say(f"{reloads} reloads of {peer.name}")
            lost = reload_losses(bench, peer, reloads)
            text = (
                f"{lost['kept connections']:g} kept and {lost['new connections']:g} new connections, "
                f"{lost['flows']:g} flows, {lost['datagrams']:g} of {lost['of datagrams']:,.0f} datagrams lost"
            )
            total = lost["kept connections"] + lost["new connections"] + max(0.0, lost["flows"])
            target = "no connection, no flow" if peer.is_ours else "-"
            yield Figure(f"{reloads} reloads under load, {peer.name}", text, target, total if peer.is_ours else 0, 0)


def _idle_connections(*, quick: bool) -> int:
    """Each takes two sockets of the proxy."""
    return 2000 if quick else min(10_000, (descriptors() - 1_000) // 2)


def _text(results: Results, found: list[Figure], absent: list[str], idle: int) -> str:
    rows = [["what", "edgeproxy", "target", "met"]]
    rows += [[one.what, one.text, one.target, "yes" if one.met else "NO"] for one in found]
    parts = [
        "# edgeproxy beside its peers, measured by `make bench-proxy`\n",
        f"{machine()} {idle:,} idle connections.\n",
    ]
    parts += [tables.markdown(rows), "## All numbers\n", tables.rates(results)]
    parts += ["## What it costs: processor time of the proxy's processes\n", tables.costs(results)]
    failed = [line for peer in results.peers for line in _failures(results, peer.name)]
    if failed:
        parts.append("Connections that failed: " + "; ".join(failed) + ".\n")
    if absent:
        parts.append(f"Not here, and so not measured: {', '.join(absent)}.\n")
    return "\n".join(parts)


def _failures(results: Results, peer: str) -> Iterator[str]:
    for measure in results.samples:
        failed = results.median(measure, peer, "failed")
        if failed:
            yield f"{failed:.1%} of {peer}'s ({measure})"


def _keep(results: Results, found: list[Figure], text: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "proxy.md").write_text(text)
    (folder / "proxy.svg").write_text(plot(results))
    plain = [figure.__dict__ | {"met": figure.met} for figure in found]
    whole = {"machine": machine(), "figures": plain, "medians": results.medians()}
    (folder / "proxy.json").write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
