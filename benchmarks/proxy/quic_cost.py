"""The time in which edgeproxy reads a QUIC hello: the worst of the kept ones, by the crate's own measurement."""

from __future__ import annotations

import re
import subprocess

from benchmarks.proxy.bench_lab import ROOT

_UNITS = {"ns": 1e-3, "µs": 1.0, "ms": 1e3}


def quic_decision_us() -> float:
    """Microseconds."""
    argv = ["cargo", "test", "--release", "--locked", "--quiet", "-p", "edgeproxy", "--test", "hello_cost", "--"]
    argv += ["--ignored", "--nocapture", "a_quic_route_decision"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    found = re.findall(r"QUIC, [^:]+: median ([0-9.]+)(ns|µs|ms)", done.stderr)
    if not found:
        raise RuntimeError(f"hello_cost told no time:\n{done.stdout}{done.stderr}")
    return max(float(value) * _UNITS[unit] for value, unit in found)
