"""`lab plan`: what `lab up` would do, without doing it."""

from __future__ import annotations

from pathlib import Path

from lab.cli.parser import Parser
from lab.errors import ExitCode


def run(words: list[str]) -> int:
    """Print the plan of a topology."""
    parser = Parser(
        "plan",
        "Show every step that `lab up` would take, in order. Needs no privilege and changes nothing.",
        notes="--json: name, steps (each with its kind under `step`), exactly what the supervisor executes.",
        example="lab plan topologies/homelab.yaml | less",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a topology")
    parser.add_argument("--no-services", action="store_true", help="nodes and links alone")
    parser.add_json()
    options = parser.parse_args(words)
    from lab.plan.build import build
    from lab.topology.load import load_topology

    plan = build(load_topology(options.file), services=not options.no_services)
    if options.json:
        from lab.plan.encoding import to_json

        print(to_json(plan, indent=2))
    else:
        from lab.plan.render import to_text

        print(to_text(plan), end="")
    return ExitCode.OK
