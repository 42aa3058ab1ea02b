"""`lab graph`: a topology as a picture."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.cli.parser import Parser
from lab.cli.running_lab import inspect
from lab.errors import ExitCode


def run(words: list[str]) -> int:
    """Draw a file's topology, or that of a running lab."""
    parser = Parser(
        "graph",
        "Draw a topology: SVG, good enough to print, or Mermaid text for Markdown.",
        notes="Without FILE the file of the running lab is drawn.",
        example="lab graph topologies/homelab.yaml -o homelab.svg",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="a topology")
    parser.add_lab()
    parser.add_argument(
        "-o", "--output", metavar="PICTURE", type=Path, help="a file ending in .svg or .mmd; default: standard output"
    )
    parser.add_argument("--mermaid", action="store_true", help="Mermaid text, whatever the ending")
    options = parser.parse_args(words)
    if options.file is not None and options.lab is not None:
        parser.error("either FILE or --lab")
    ending = options.output.suffix.lower() if options.output is not None else ""
    if options.output is not None and not options.mermaid and ending not in (".svg", ".mmd"):
        parser.error(f"-o: {str(options.output)!r} ends in neither .svg nor .mmd")
    from lab.draw import to_mermaid, to_svg
    from lab.topology.load import load_topology

    file = options.file if options.file is not None else Path(inspect(options.lab)["file"])
    topology = load_topology(file)
    text = to_mermaid(topology) if options.mermaid or ending == ".mmd" else to_svg(topology)
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")
    return ExitCode.OK
