"""What a node is asked once a test has failed: its addresses, routes, rules, sockets, flows, logs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.realise.node import Node

_DEADLINE = 5.0  # seconds for one program


@dataclass(frozen=True, slots=True)
class Question:
    """A file of the evidence, and the programs whose output it holds."""

    file: str
    about: str
    commands: tuple[tuple[str, ...], ...]


QUESTIONS = (
    Question("addresses.txt", "addresses and links", (("ip", "-details", "address", "show"),)),
    Question(
        "routes.txt",
        "routes and rules, IPv4 and IPv6",
        (
            ("ip", "-4", "rule", "show"),
            ("ip", "-4", "route", "show", "table", "all"),
            ("ip", "-6", "rule", "show"),
            ("ip", "-6", "route", "show", "table", "all"),
        ),
    ),
    Question("neighbours.txt", "neighbours (ARP, NDP)", (("ip", "-statistics", "neighbour", "show"),)),
    Question("counters.txt", "packets, errors and drops of each interface", (("ip", "-s", "-s", "link", "show"),)),
    Question("ruleset.txt", "NAT and firewall", (("nft", "list", "ruleset"),)),
    Question("sockets.txt", "sockets", (("ss", "-tuanp"),)),
    Question("flows.txt", "flows that the kernel tracks", (("cat", "/proc/net/nf_conntrack"),)),
)


def answer(node: Node, question: Question) -> str:
    """What the programs said, each under its command line; one that could not be asked says why."""
    return "\n".join(f"# {' '.join(command)}\n{_output(node, command)}" for command in question.commands)


def _output(node: Node, command: tuple[str, ...]) -> str:
    try:
        done: subprocess.CompletedProcess[str] = node.run(command, timeout=_DEADLINE)
    except (LabError, OSError) as error:  # TimeoutError is an OSError
        return f"(not known: {error})\n"
    said = done.stdout + done.stderr
    if done.returncode:
        return f"{said}(exit code {done.returncode})\n"
    return said or "(nothing)\n"
