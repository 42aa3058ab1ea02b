"""`lab up`: make a topology real, show the way there, then what there is."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lab.cli.live_line import LiveLine
from lab.cli.node_table import node_table
from lab.cli.parser import Parser
from lab.cli.running_lab import inspect
from lab.cli.style import Style
from lab.errors import ExitCode


def run(words: list[str]) -> int:
    """Bring a lab up."""
    parser = Parser(
        "up",
        "Make a topology real and wait until its services are ready. The lab lives on, whatever becomes of this\n"
        "terminal, until `lab down`. If anything fails, or at Ctrl-C, nothing of it is left.",
        notes="--json: name, file, ready_ms, supervisor (process id), networks, nodes (name, role, interfaces,\n"
        "services), states (node, service, state, pid, exit_code, restarts), started (seconds since the epoch).",
        example="lab up topologies/homelab.yaml\nlab exec phone -- curl -sk https://nas.example.net",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a topology")
    parser.add_argument("--name", metavar="NAME", help="a name of its own, to have the topology up more than once")
    parser.add_argument("--no-services", action="store_true", help="nodes and links alone")
    parser.add_argument("--keep", action="store_true", help="if a service does not get ready, leave the lab to look at")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing unless it fails")
    parser.add_json()
    options = parser.parse_args(words)
    from lab.realise.launch import up

    began = time.monotonic()
    with LiveLine(silent=options.quiet) as line:
        name = up(
            options.file,
            name=options.name,
            services=not options.no_services,
            keep_failed=options.keep,
            progress=line.show,
        )
    milliseconds = (time.monotonic() - began) * 1000
    if options.json:
        import json

        print(json.dumps(inspect(name) | {"ready_ms": round(milliseconds, 1)}, indent=2))
    elif not options.quiet:
        _tell(name, milliseconds)
    return ExitCode.OK


def _tell(name: str, milliseconds: float) -> None:
    lab, style = inspect(name), Style(sys.stdout)
    print(node_table(lab, style))
    print(style.paint(f"{name} is ready in {milliseconds:.0f} ms", "bold", "green"))
    node = next((node["name"] for node in lab["nodes"] if node["role"] == "host"), lab["nodes"][0]["name"])
    hints = (
        (f"lab exec {node} -- ip address", f"a command in a node; `lab shell {node}` opens a shell"),
        ("lab reach", "who can reach what"),
        (f"lab down {name}", "end it"),
    )
    for command, what in hints:
        print(f"  {command:36}  {style.paint(what, 'dim')}")
