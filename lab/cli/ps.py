"""`lab ps`: the running labs of this user, also those that do not answer yet."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from typing import Any

from lab.cli.parser import Parser
from lab.cli.service_health import health
from lab.cli.style import Style
from lab.cli.table import table
from lab.errors import ExitCode, UsageError
from lab.realise import registry
from lab.realise.message import Message, receive, send

DEADLINE = 0.5  # seconds for all labs to answer; one that is being built does not until it is

_COLOUR = {"ready": "green", "starting": "yellow", "degraded": "red"}


def run(words: list[str]) -> int:
    """List labs."""
    parser = Parser(
        "ps",
        "List the running labs of this user.",
        notes="--json: a list with, for each lab: name, state (starting, ready, degraded: a service failed, ended,\n"
        "or starts again and again; without a ready check it may end with exit code 0 and counts as done),\n"
        "nodes, services_ready (ready or done), services, started (seconds since the epoch),\n"
        "supervisor (process id), file; null where a lab that is still starting has not said.",
        example="lab ps",
    )
    parser.add_argument("--lab", metavar="NAME", help="only this one; default: all, whatever $HOMELAB_LAB says")
    parser.add_json()
    options = parser.parse_args(words)
    if options.lab is not None and options.lab not in registry.names():
        registry.knock(options.lab).close()  # which says that there is none, and what runs
    labs = [lab for lab in running_labs() if options.lab in (None, lab["name"])]
    if options.json:
        print(json.dumps(labs, indent=2))
        return ExitCode.OK
    if not labs:
        print("no lab is running; `lab up TOPOLOGY` starts one")
        return ExitCode.OK
    rows = [
        [
            lab["name"],
            lab["state"],
            _shown(lab["nodes"]),
            "-" if lab["services"] is None else f"{lab['services_ready']}/{lab['services']}",
            "-" if lab["started"] is None else _since(lab["started"]),
            _shown(lab["supervisor"]),
            "-" if lab["file"] is None else _short_path(lab["file"]),
        ]
        for lab in labs
    ]
    titles = ["LAB", "STATE", "NODES", "SERVICES", "UP SINCE", "PID", "FILE"]
    print(table(titles, rows, Style(sys.stdout), _colour, path=titles.index("FILE")), end="")
    return ExitCode.OK


def _colour(column: int, word: str) -> str:
    return _COLOUR.get(word, "") if column == 1 else ""


def running_labs() -> list[dict[str, Any]]:
    """What each lab says of itself, all asked at once, none waited for longer than `DEADLINE`."""
    found: dict[str, dict[str, Any]] = {}
    asked: dict[int, tuple[str, socket.socket]] = {}
    poll = select.poll()
    for name in registry.names():
        found[name] = _silent(name, None)
        try:
            channel = registry.knock(name, DEADLINE)
            found[name] = _silent(name, registry.supervisor_of(channel))
            send(channel, {"ask": "inspect"})
        except (UsageError, OSError):
            continue  # its door is not open yet
        asked[channel.fileno()] = name, channel
        poll.register(channel, select.POLLIN)
    deadline = time.monotonic() + DEADLINE
    # What has come is read however late it is here; who is silent is not waited for again.
    while asked and (answered := poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
        for descriptor, _ in answered:
            name, channel = asked.pop(descriptor)
            poll.unregister(descriptor)
            with channel:
                found[name] = _heard(name, found[name], channel)
    for _, channel in asked.values():
        channel.close()
    still_there = set(registry.names())
    return [lab for name, lab in found.items() if name in still_there]


def _heard(name: str, silent: dict[str, Any], channel: socket.socket) -> dict[str, Any]:
    try:
        received = receive(channel)
    except OSError:
        return silent
    return silent if received is None else _told(name, silent["supervisor"], received[0])


def _silent(name: str, supervisor: int | None) -> dict[str, Any]:
    unknown = dict.fromkeys(("nodes", "services_ready", "services", "started"))
    return {"name": name, "state": "starting", **unknown, "supervisor": supervisor, "file": None}


def _told(name: str, supervisor: int, lab: Message) -> dict[str, Any]:
    state, well = health(lab)
    return {
        "name": name,
        "state": state,
        "nodes": len(lab["nodes"]),
        "services_ready": well,
        "services": len(lab["states"]),
        "started": lab["started"],
        "supervisor": supervisor,
        "file": lab["file"],
    }


def _since(started: float) -> str:
    """The time of day, with the date if it was not today."""
    then = time.localtime(started)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", then)


def _short_path(path: str) -> str:
    """Relative to this folder if it lies in it."""
    try:
        here = os.getcwd()  # noqa: PTH109 - a string is wanted
    except FileNotFoundError:
        return path
    return path.removeprefix(here.rstrip("/") + "/")


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
