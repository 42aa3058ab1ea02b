"""The running lab that a command means, asked with as few imports as will do: `lab exec` is to start at once."""

from __future__ import annotations

import os
import socket

from lab.errors import UsageError
from lab.realise import registry
from lab.realise.asking import ask
from lab.realise.message import Message


def chosen(given: str | None) -> str:
    """The name of the lab: given, else that of the environment, else the only one.

    Raises:
        UsageError: none is running, or several are and none was chosen.
    """
    name = given or os.environ.get("HOMELAB_LAB")
    if name:
        return name
    running = registry.names()
    if len(running) == 1:
        return running[0]
    if not running:
        raise UsageError("no lab is running; `lab up TOPOLOGY` starts one")
    raise UsageError(
        f"{len(running)} labs are running: {', '.join(running)}; choose with --lab NAME or HOMELAB_LAB=NAME"
    )


def connect(given: str | None) -> socket.socket:
    """A connection to the chosen lab.

    Raises:
        UsageError: see `chosen`; or no lab of that name is running.
    """
    return registry.knock(chosen(given))


def inspect(given: str | None) -> Message:
    """What the chosen lab says of itself: name, file, networks, nodes, states of services, when it was started.

    Raises:
        UsageError: as for `connect`.
    """
    with connect(given) as channel:
        return ask(channel, {"ask": "inspect"})[0] | {"supervisor": registry.supervisor_of(channel)}


def require_node(lab: Message, node: str) -> Message:
    """The facts of one node.

    Raises:
        UsageError: the lab has no such node.
    """
    for facts in lab["nodes"]:
        if facts["name"] == node:
            found: Message = facts
            return found
    from difflib import get_close_matches

    names = [facts["name"] for facts in lab["nodes"]]
    near = get_close_matches(node, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UsageError(f"no node {node!r} in lab {lab['name']}{hint} It has: {', '.join(names)}")
