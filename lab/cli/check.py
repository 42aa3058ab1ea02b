"""`lab check`: every fault of topology files, without any privilege."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.failure import plain_fault
from lab.cli.parser import Parser
from lab.errors import ExitCode, TopologyError

if TYPE_CHECKING:
    from lab.topology.model import Topology


def run(words: list[str]) -> int:
    """Check each file; 2 if any has faults."""
    parser = Parser(
        "check",
        "Read topology files and name all their faults, each with file, line and column. Needs no privilege.",
        notes="--json: a list with, for each file: file, ok, name, nodes, networks, services (counts),\n"
        "faults (each: file, line, column, path, text). Exit code 2 if a file has faults.",
        example="lab check topologies/homelab.yaml",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a topology")
    parser.add_json(may_fail=False)  # what it finds is its answer
    options = parser.parse_args(words)
    results = [_check(file, say=not options.json) for file in options.files]
    if options.json:
        import json

        print(json.dumps(results, indent=2))
    return ExitCode.OK if all(result["ok"] for result in results) else ExitCode.WRONG_INPUT


def _check(file: Path, *, say: bool) -> dict[str, Any]:
    from lab.topology.load import load_topology

    try:
        topology = load_topology(file)
    except TopologyError as error:
        if say:
            sys.stdout.flush()
            print(error, file=sys.stderr)
        return {"file": str(file), "ok": False, "faults": [plain_fault(fault) for fault in error.faults]}
    counts = _counts(topology)
    if say:
        print(f"ok: {topology.name}: {', '.join(_counted(count, word) for word, count in counts.items())}")
    return {"file": str(file), "ok": True, "name": topology.name, **counts, "faults": []}


def _counts(topology: Topology) -> dict[str, int]:
    return {
        "nodes": len(topology.nodes),
        "networks": len(topology.networks),
        "services": sum(len(node.services) for node in topology.nodes),
    }


def _counted(count: int, plural: str) -> str:
    return f"{count} {plural if count != 1 else plural.removesuffix('s')}"
