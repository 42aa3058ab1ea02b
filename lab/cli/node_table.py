"""The nodes of a running lab as a table: role, addresses, services and how they are."""

from __future__ import annotations

from lab.cli.style import Style
from lab.cli.table import table
from lab.realise.message import Message

COLOUR_OF_STATE = {
    "ready": "green",
    "ended": "dim",
    "waiting": "yellow",
    "starting": "yellow",
    "failed": "red",
    "held": "red",
}


def node_table(lab: Message, style: Style) -> str:
    """A row for each node; a service that is not ready carries its state in brackets."""
    states = {(state["node"], state["service"]): state["state"] for state in lab["states"]}
    rows = []
    for node in lab["nodes"]:
        addresses = [address for link in node["interfaces"] for address in link["addresses"]]
        services = [
            _service(service["name"], states.get((node["name"], service["name"]))) for service in node["services"]
        ]
        rows.append([node["name"], node["role"], " ".join(addresses) or "-", " ".join(services) or "-"])

    def colour(column: int, word: str) -> str:
        if column == 0:
            return "cyan"
        if column != 3 or word == "-":
            return ""
        state = word.partition("(")[2].rstrip(")") or "ready"
        return COLOUR_OF_STATE.get(state, "")

    return table(["NODE", "ROLE", "ADDRESSES", "SERVICES"], rows, style, colour)


def _service(name: str, state: str | None) -> str:
    if state == "ready":
        return name
    return f"{name}({state or 'off'})"
