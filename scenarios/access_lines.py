"""What the edgeproxies of a lab write of a connection: one line at the edge, one at home, joined by an id."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lab import Lab, wait_until

EDGES = ("vps-a", "vps-b")
PATIENCE = 60.0  # seconds; a line is written when its connection has ended

Line = dict[str, Any]


@dataclass(frozen=True)
class Joined:
    """The two lines of one connection."""

    edge: Line
    home: Line


def lines(lab: Lab, node: str, **wanted: object) -> list[Line]:
    """Of a node's edgeproxy, those that hold all that is wanted; the last may be on its way into the log."""
    service = "edge" if node in EDGES else "home"
    logged = lab[node].log(service).splitlines(keepends=True)
    written = (json.loads(line) for line in logged if line.startswith("{") and line.endswith("\n"))
    return [line for line in written if all(line.get(key) == value for key, value in wanted.items())]


def the_line(lab: Lab, node: str, **wanted: object) -> Line:
    """The only one, once it is written."""
    wait_until(lambda: lines(lab, node, **wanted), PATIENCE, f"{node} writes a line with {wanted}")
    (line,) = lines(lab, node, **wanted)
    return line


def at_an_edge(lab: Lab, **wanted: object) -> Line:
    """The only line at whichever edge."""

    def found() -> list[Line]:
        return [line for edge in EDGES for line in lines(lab, edge, **wanted)]

    wait_until(found, PATIENCE, f"an edge writes a line with {wanted}")
    (line,) = found()
    return line


def joined(lab: Lab, host: str, **wanted: object) -> Joined:
    """The edge's line with all that is wanted, and the line of the home host that bears its id."""
    edge = at_an_edge(lab, **wanted)
    return Joined(edge, the_line(lab, host, unique_id=edge["unique_id"]))


def endpoint(address: str, port: int | str) -> str:
    """As the lines have it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
