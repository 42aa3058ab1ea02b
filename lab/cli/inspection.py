"""`lab inspect`: what a running lab consists of, and how its services are."""

from __future__ import annotations

import json
import sys

from lab.cli.node_table import COLOUR_OF_STATE, node_table
from lab.cli.parser import Parser
from lab.cli.running_lab import inspect, require_node
from lab.cli.style import Style
from lab.cli.table import table
from lab.errors import ExitCode
from lab.realise.message import Message


def run(words: list[str]) -> int:
    """Show a lab or one of its nodes."""
    parser = Parser(
        "inspect",
        "Show the nodes of a running lab, or one of them: interfaces, addresses, services, process ids.",
        notes="--json: as `lab up --json` (name, file, started, supervisor, networks, nodes, meshes, states,\n"
        "link_troubles);\n"
        "with NODE: name, role, interfaces (name, network, mac, addresses), services (name, ports, ready_check),\n"
        "forwards (protocol, port, to, addresses), nat (every knob, or null), states.\n"
        "Process ids count within the lab.",
        example="lab inspect nas",
    )
    parser.add_argument("node", metavar="NODE", nargs="?", help="only this one, with more detail")
    parser.add_lab()
    parser.add_json()
    options = parser.parse_args(words)
    lab = inspect(options.lab)
    if options.node is None:
        print(json.dumps(lab, indent=2) if options.json else _lab_text(lab, Style(sys.stdout)))
        return ExitCode.OK
    node = require_node(lab, options.node)
    states = [state for state in lab["states"] if state["node"] == options.node]
    if options.json:
        print(json.dumps({**node, "states": states}, indent=2))
    else:
        print(_node_text(node, states, Style(sys.stdout)))
    return ExitCode.OK


def _lab_text(lab: Message, style: Style) -> str:
    parts = [f"{style.paint(lab['name'], 'bold')}  {lab['file']}  (supervisor: process {lab['supervisor']})\n"]
    networks = [
        [network["name"], "cable" if network["point_to_point"] else "switch", " ".join(network["prefixes"]) or "-"]
        for network in lab["networks"]
    ]
    if networks:
        parts.append(table(["NETWORK", "KIND", "PREFIXES"], networks, style))
    parts.append(node_table(lab, style))
    if lab["states"]:
        ports = {
            (node["name"], service["name"]): _ports(service) for node in lab["nodes"] for service in node["services"]
        }
        parts.append(_service_table(lab["states"], ports, style))
    return "\n".join(parts).rstrip("\n")


def _node_text(node: Message, states: list[Message], style: Style) -> str:
    parts = [f"{style.paint(node['name'], 'bold')}  {node['role']}\n"]
    links = [
        [link["name"], link["network"], link["mac"], " ".join(link["addresses"]) or "-"] for link in node["interfaces"]
    ]
    if links:
        parts.append(table(["INTERFACE", "NETWORK", "MAC", "ADDRESSES"], links, style))
    if states:
        ports = {(node["name"], service["name"]): _ports(service) for service in node["services"]}
        parts.append(_service_table(states, ports, style))
    return "\n".join(parts).rstrip("\n")


def _service_table(states: list[Message], ports: dict[tuple[str, str], str], style: Style) -> str:
    rows = [
        [
            f"{state['node']}/{state['service']}",
            state["state"],
            ports.get((state["node"], state["service"])) or "-",
            "-" if state["pid"] is None else str(state["pid"]),
            str(state["restarts"]),
            "-" if state["exit_code"] is None else str(state["exit_code"]),
        ]
        for state in states
    ]
    titles = ["SERVICE", "STATE", "PORTS", "PID IN LAB", "RESTARTS", "LAST EXIT"]
    return table(titles, rows, style, lambda column, word: COLOUR_OF_STATE.get(word, "") if column == 1 else "")


def _ports(service: Message) -> str:
    return " ".join(f"{port['protocol']}/{port['number']}" for port in service["ports"])
