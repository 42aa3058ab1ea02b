"""`lab up`: make a topology real, show the way there, then what there is."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cli.live_line import LiveLine
from lab.cli.node_table import node_table
from lab.cli.parser import Parser
from lab.cli.running_lab import inspect
from lab.cli.service_health import troubles
from lab.cli.style import Style
from lab.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from lab.realise.message import Message


def run(words: list[str]) -> int:
    """Bring a lab up."""
    parser = Parser(
        "up",
        "Make a topology real and wait until its services are ready. The lab lives on, whatever becomes of this\n"
        "terminal, until `lab down`. If anything fails, or at Ctrl-C, nothing of it is left.",
        notes="--json: name, file, ready_ms, supervisor (process id), networks, nodes (name, role, interfaces,\n"
        "services, forwards, nat), meshes, states (node, service, state, pid in the lab, exit_code, restarts),\n"
        "link_troubles (wires that ended by themselves), started (seconds since the epoch).",
        example="lab up topologies/homelab.yaml\nlab exec phone -- curl https://git.nas.example.net/",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a topology")
    parser.add_argument("--name", metavar="NAME", help="a name of its own, to have the topology up more than once")
    parser.add_argument("--no-services", action="store_true", help="nodes and links alone")
    parser.add_argument("--keep", action="store_true", help="if a service does not get ready, leave the lab to look at")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing unless it fails")
    parser.add_json()
    options = parser.parse_args(words)
    name, milliseconds = _up(options)
    if options.quiet and not options.json:
        return ExitCode.OK
    lab = inspect(name)
    if options.json:
        import json

        print(json.dumps(lab | {"ready_ms": round(milliseconds, 1)}, indent=2))
    else:
        _tell(lab, milliseconds)
    return ExitCode.OK


def _up(options: Namespace) -> tuple[str, float]:
    """The name of the lab that is up, and after how many milliseconds."""
    if options.name is not None:
        _require_lab_name(options.name)
    from lab.realise.launch import up

    began = time.monotonic()
    try:
        with LiveLine(silent=options.quiet) as line:
            name = up(
                options.file,
                name=options.name,
                services=not options.no_services,
                keep_failed=options.keep,
                progress=line.show,
            )
    except KeyboardInterrupt:
        print("interrupted; nothing of it is left", file=sys.stderr)
        raise
    return name, (time.monotonic() - began) * 1000


def _require_lab_name(name: str) -> None:
    from lab.topology import names
    from lab.topology.faults import Wrong

    try:
        names.LAB.check(name)
    except Wrong as wrong:
        raise UsageError(f"--name {wrong}") from wrong


def _tell(lab: Message, milliseconds: float) -> None:
    name, style = lab["name"], Style(sys.stdout)
    print(node_table(lab, style))
    print(style.paint(f"{name} is ready in {milliseconds:.0f} ms", "bold", "green"))
    for trouble in troubles(lab):
        print(style.paint(f"but {trouble}", "red"))
    hints = [("lab reach", "who can reach what"), (f"lab down {name}", "end it")]
    for node in sorted(lab["nodes"], key=lambda node: node["role"] != "host")[:1]:
        what = f"a command in a node; `lab shell {node['name']}` opens a shell"
        hints.insert(0, (f"lab exec {node['name']} -- ip address", what))
    for command, what in hints:
        print(f"  {command:36}  {style.paint(what, 'dim')}")
