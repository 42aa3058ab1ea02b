"""`lab mesh`: the ways between the members of a mesh, as both ends of each see them."""

from __future__ import annotations

import json
import select
import sys
import time
from typing import TYPE_CHECKING, Any

from lab.cli.parser import Parser
from lab.cli.running_lab import chosen
from lab.cli.style import Style
from lab.cli.table import table
from lab.errors import ExitCode

if TYPE_CHECKING:
    from lab.mesh.paths import MeshPaths, Pair, View

WATCH_INTERVAL = 1.0  # seconds
_COLOUR = {"LAN": "green", "direct": "green", "relayed": "yellow", "none": "dim", "stale": "red"}
_STALE, _NOBODY = "stale", "(nobody has it)"
_UNASKED = "not asked"


def run(words: list[str]) -> int:
    """Show which way the packets of each pair of members take; 1 if a member could not be asked."""
    parser = Parser(
        "mesh",
        "Show the way between each two members of a mesh, asked of both: LAN (an address on a network of both),\n"
        "direct (another address of the peer, or of a NAT before it), relayed (by a third member), none (no tunnel:\n"
        "none was needed yet, or none could be made). Where the ends differ, both are shown, in red. stale: an end\n"
        "sends to an address that no node has (any more), as after a move until the program notices.",
        notes="--json: lab, mesh, driver, members, silent (members that could not be asked: node, why), pairs (each:\n"
        "first, second, way (null unless they agree), agrees (none differs or is stale), since (seconds since the\n"
        "epoch; null if the program does not say), views (each: node, peer, way, endpoint, owner (whose it is; null\n"
        "beside an endpoint: nobody has it, the view is stale), relays, since; or null)).\n"
        "Exit code 1 if a member could not be asked.",
        example="lab mesh tailnet",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the mesh; default: the lab's only one")
    parser.add_lab()
    parser.add_json()
    parser.add_argument("--watch", action="store_true", help="show it again whenever a way changes, until interrupted")
    options = parser.parse_args(words)
    if options.watch and options.json:
        parser.error("either --watch or --json")
    from lab.mesh.ask import mesh_paths
    from lab.realise.lab import Lab

    lab = Lab(chosen(options.lab))
    try:
        paths = mesh_paths(lab, options.name)
        print(json.dumps(_plain(paths), indent=2) if options.json else text_of(paths, Style(sys.stdout)), flush=True)
        while options.watch:
            select.select([], [], [], WATCH_INTERVAL)
            before, paths = paths, mesh_paths(lab, options.name)
            if [pair.views for pair in paths.pairs] != [pair.views for pair in before.pairs]:
                print(f"\n{time.strftime('%H:%M:%S')}\n{text_of(paths, Style(sys.stdout))}", flush=True)
    finally:
        lab.close()
    return ExitCode.FAILED if paths.silent else ExitCode.OK


def text_of(paths: MeshPaths, style: Style) -> str:
    """All ways as a table; what is quiet or wrong below it."""
    quiet = [pair for pair in paths.pairs if pair.way == "none"]
    rows = [row for pair in paths.pairs if pair not in quiet for row in _rows(pair)]
    differing = {row[0] for pair in paths.pairs if pair.differs for row in _rows(pair)}
    stale = [f"{view.node} -> {view.peer}" for pair in paths.pairs for view in pair.views if view and view.is_stale]
    parts = [f"{style.paint(paths.mesh, 'bold')}  {paths.driver}, {len(paths.members)} members of lab {paths.lab}\n"]

    def colour(column: int, word: str) -> str:
        if column == 2 and word in _NOBODY.split():
            return "red"
        return _COLOUR.get(word, "") if column == 1 else ""

    if rows:
        parts.append(table(["PAIR", "WAY", "BY", "SINCE"], rows, style, colour))
    if quiet:
        parts.append(f"no tunnel: {', '.join(f'{pair.first} - {pair.second}' for pair in quiet)}\n")
    if differing:
        parts.append(style.paint(f"the ends differ: {', '.join(sorted(differing))}", "red") + "\n")
    if stale:
        parts.append(style.paint(f"sent to an address that nobody has: {', '.join(sorted(stale))}", "red") + "\n")
    parts += [style.paint(f"{node} could not be asked: {why}", "red") + "\n" for node, why in paths.silent]
    return "\n".join(parts).rstrip("\n")


def _rows(pair: Pair) -> list[list[str]]:
    """One row if both ends name the same way, else one for each end, named `from -> to`."""
    if pair.agrees:
        by = " ".join(dict.fromkeys(filter(None, map(_by, pair.views))))
        return [[f"{pair.first} - {pair.second}", str(pair.way), by or "-", _clock(pair.since)]]
    ends = ((pair.first, pair.second), (pair.second, pair.first))
    return [
        [
            f"{node} -> {peer}",
            _UNASKED if view is None else _STALE if view.is_stale else str(view.way),
            (_by(view) or "-"),
            _clock(None if view is None else view.since),
        ]
        for (node, peer), view in zip(ends, pair.views, strict=True)
    ]


def _by(view: View | None) -> str:
    """The relays, or the address that is sent to and whose it is."""
    if view is None:
        return ""
    if view.relays:
        return " ".join(view.relays)
    whose = _NOBODY if view.is_stale else f"({view.owner})" if view.owner not in (None, view.peer) else ""
    return " ".join(filter(None, (view.endpoint, whose)))


def _clock(since: float | None) -> str:
    return "-" if since is None else time.strftime("%H:%M:%S", time.localtime(since))


def _plain(paths: MeshPaths) -> dict[str, Any]:
    return {
        "lab": paths.lab,
        "mesh": paths.mesh,
        "driver": paths.driver,
        "members": list(paths.members),
        "silent": [{"node": node, "why": why} for node, why in paths.silent],
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "way": pair.way,
                "agrees": pair.agrees,
                "since": pair.since,
                "views": [None if view is None else _plain_view(view) for view in pair.views],
            }
            for pair in paths.pairs
        ],
    }


def _plain_view(view: View) -> dict[str, Any]:
    return {
        "node": view.node,
        "peer": view.peer,
        "way": view.way,
        "endpoint": view.endpoint,
        "owner": view.owner,
        "relays": list(view.relays),
        "since": view.since,
    }
