"""`lab link`: what is asked of links, what has been measured, and live changes: delay, loss, rate, cuts."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from lab.cli.link_table import link_details, link_table
from lab.cli.parser import Parser
from lab.cli.running_lab import chosen, connect
from lab.cli.style import Style
from lab.errors import ExitCode, UsageError
from lab.realise.asking import ask
from lab.realise.message import Message

ACTIONS = ("show", "set", "clear", "down", "up", "flap", "reset")
_DOWN, _UP = "1s", "5s"  # of a flap for which nothing else is asked
_NOTES = """\
NAME is NODE:NETWORK, or a network for all of its links (of a cable, set impairs the link of its first end).
actions:
  show     asked and measured (the default; --probe measures round trips now)
  set      change what is named, for frames from now on: delay=40ms jitter=5ms distribution=normal loss=1%
           loss=p=1%,r=30% reorder=1% duplicate=1% corrupt=0.1% rate=50mbit queue=256KiB preset=dsl; rate=none
  clear    leave every frame alone
  down up  take the node's carrier and give it back
  flap     down and up by itself: --down 1s --up 5s --times 3
  reset    as the topology declares it and up; without NAME all links
A failed change leaves all as it was. --json: a list of links, each with link, node, network, interface, state,
asked, declared, backend, problem, since, pending, measured (counted since `since`), with --probe round_trips."""


def run(words: list[str]) -> int:
    """Show links or change them."""
    options = _parse(words)
    with connect(options.lab) as channel:
        links: list[Message] = ask(channel, {"ask": "link", **_request(options)})[0]["links"]
        if options.probe:
            round_trips = _round_trips(links, options.lab)
            counted = ask(channel, {"ask": "link", "do": "show", "name": options.name})[0]["links"]
            links = [link | {"round_trips": round_trips.get(link["link"])} for link in counted]
    if options.json:
        print(json.dumps(links, indent=2))
    elif options.name is None or len(links) != 1 or options.action != "show":
        print(link_table(links, Style(sys.stdout)), end="")
    else:
        print(link_details(links[0], Style(sys.stdout)), end="")
    cut = [link for link in links if link["state"] == "cut"]
    return ExitCode.FAILED if cut and options.action != "show" else ExitCode.OK


def _parse(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        "link",
        "Show the links of a running lab, or change them while it runs.",
        notes=_NOTES,
        example="lab link access set delay=40ms loss=1% --from isp\nlab link nas:home down",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="a link; default: show all")
    parser.add_argument("action", metavar="ACTION", nargs="?", default="show", help=", ".join(ACTIONS))
    parser.add_argument("words", metavar="WORD", nargs="*", help="of set: what to change, as delay=40ms")
    parser.add_argument("--from", dest="sender", metavar="NODE", help="of set, clear: only what this node sends")
    parser.add_argument("--backend", metavar="MEANS", help="of set: netem, tbf or linkwire instead of the best one")
    parser.add_argument("--down", metavar="TIME", help="of flap: how long it is down (1s)")
    parser.add_argument("--up", metavar="TIME", help="of flap: how long it is up between (5s)")
    parser.add_argument("--times", type=int, metavar="N", help="of flap: how often (1)")
    parser.add_argument("--probe", action="store_true", help="of show: ask the link with echo requests, too")
    parser.add_lab()
    parser.add_json()
    options = parser.parse_intermixed_args(words)
    if options.name in ACTIONS and options.action == "show":  # `lab link reset`: actions that all links have
        options.name, options.action = None, options.name
    if options.action not in ACTIONS:
        parser.error(f"no action {options.action!r}; allowed: {', '.join(ACTIONS)}")
    if options.name is None and options.action not in ("show", "reset"):
        parser.error(f"{options.action} which link? `lab link` lists them")
    if options.words and options.action != "set":
        parser.error(f"{options.action} takes no words; `set` does")
    for option, value, actions in (
        ("--probe", options.probe or None, ("show",)),
        ("--from", options.sender, ("set", "clear")),
        ("--backend", options.backend, ("set",)),
        ("--down", options.down, ("flap",)),
        ("--up", options.up, ("flap",)),
        ("--times", options.times, ("flap",)),
    ):
        if value is not None and options.action not in actions:
            parser.error(f"{option} has no meaning with {options.action}; it has with {' and '.join(actions)}")
    return options


def _request(options: argparse.Namespace) -> Message:
    match options.action:
        case "set":
            preset, others = _without_preset(options.words)
            changes = {"words": " ".join(others), "preset": preset, "backend": options.backend}
            return {"do": "set", "name": options.name, "from": options.sender, **changes}
        case "clear":
            return {"do": "clear", "name": options.name, "from": options.sender}
        case "down" | "up" as way:
            return {"do": "carrier", "name": options.name, "up": way == "up"}
        case "flap":
            return {
                "do": "flap",
                "name": options.name,
                "down": _DOWN if options.down is None else options.down,
                "up": _UP if options.up is None else options.up,
                "times": 1 if options.times is None else options.times,
            }
        case action:
            return {"do": action, "name": options.name}


def _without_preset(words: list[str]) -> tuple[str | None, list[str]]:
    presets = [word.removeprefix("preset=") for word in words if word.startswith("preset=")]
    if len(presets) > 1:
        raise UsageError(f"{len(presets)} presets; one at most")
    return (presets[0] if presets else None), [word for word in words if not word.startswith("preset=")]


def _round_trips(links: list[Message], given: str | None) -> dict[str, Any]:
    from lab.probe.round_trip import measure_round_trips
    from lab.realise.lab import Lab

    lab = Lab(chosen(given))
    try:
        return {link["link"]: measure_round_trips(lab, link["node"], link["network"]) for link in links}
    finally:
        lab.close()
