"""Measure the lab, print the table, keep it in reports/baseline/: ``python -m benchmarks [--quick]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks import lab_figures, network_figures, wire_figures
from benchmarks.lab_figures import Figure

BASELINE = Path(__file__).parent.parent / "reports" / "baseline"


def main() -> int:
    """Measure and report; 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs: to see that it works, not to quote")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = 3 if arguments.quick else 9
        figures = lab_figures.measure(Path(folder), runs=runs, progress=say)
        figures += network_figures.measure(Path(folder), runs=runs, progress=say)
    if os.geteuid() == 0:
        say("linkwire alone")
        figures += wire_figures.measure(0.5 if arguments.quick else 2.0)
    table = _table(figures)
    print(table)
    if not arguments.quick:
        BASELINE.mkdir(parents=True, exist_ok=True)
        (BASELINE / "lab.md").write_text(f"# The lab, measured by `make bench`\n\n{machine()}\n\n{table}")
        plain = [figure.__dict__ | {"met": figure.met} for figure in figures]
        (BASELINE / "lab.json").write_text(json.dumps({"machine": machine(), "figures": plain}, indent=2) + "\n")
    return 0 if all(figure.met for figure in figures) else 1


def _table(figures: list[Figure]) -> str:
    rows = [("what", "measured", "target", "met")]
    rows += [(figure.what, figure.text, figure.target, "yes" if figure.met else "NO") for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def machine() -> str:
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    return f"Linux {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}, as {user}."


def say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
