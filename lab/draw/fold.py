"""Which nodes are drawn as one: guest-1 ... guest-20, equal in all that the picture shows."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from lab.topology.model import Node, Policy, ReadyPort, Topology

FEWEST = 3  # two nodes take no more room than a stack of two


@dataclass(frozen=True, slots=True)
class Group:
    """One node, or several that are drawn as one."""

    nodes: tuple[Node, ...]
    is_run: bool = True  # equal nodes whose names differ by consecutive numbers

    @property
    def first(self) -> Node:
        return self.nodes[0]

    @property
    def name(self) -> str:
        if len(self.nodes) == 1:
            return self.first.name
        if not self.is_run:
            return f"{len(self.nodes)} hosts"
        return f"{self.first.name} … {self.nodes[-1].name} ({len(self.nodes)})"


def fold(topology: Topology) -> tuple[Group, ...]:
    """The nodes as groups, in the order of each group's first node in the file."""
    alone = {tunnel.node for node in topology.nodes for tunnel in tunnels_of(node)}
    alone |= {str(forward.address) for node in topology.nodes if node.nat for forward in node.nat.forwards}
    runs: dict[object, list[tuple[int, Node]]] = defaultdict(list)
    groups: dict[str, Group] = {node.name: Group((node,)) for node in topology.nodes}
    for node in topology.nodes:
        numbered = NUMBERED.fullmatch(node.name)
        addresses = {str(address.ip) for interface in node.interfaces for address in interface.addresses}
        if numbered and not alone & {node.name, *addresses}:
            runs[(numbered["stem"], _shape(node))].append((int(numbered["number"]), node))
    for members in runs.values():
        for run in _consecutive(sorted(members, key=lambda member: member[0])):
            if len(run) >= FEWEST:
                for node in run:
                    del groups[node.name]
                groups[run[0].name] = Group(tuple(run))
    order = {node.name: position for position, node in enumerate(topology.nodes)}
    return tuple(sorted(groups.values(), key=lambda group: order[group.first.name]))


def tunnels_of(node: Node) -> tuple[ReadyPort, ...]:
    """The ports on other nodes that services of this node open."""
    ready = (service.ready for service in node.services)
    return tuple(port for port in ready if isinstance(port, ReadyPort) and port.node != node.name)


def has_firewall(node: Node) -> bool:
    """Whether any policy of the node refuses new connections."""
    return (node.firewall.input, node.firewall.forward) != (Policy.ACCEPT, Policy.ACCEPT)


def _shape(node: Node) -> object:
    """All that a box shows of a node, but for its name and addresses."""
    return (
        node.role,
        node.image,
        tuple((interface.name, interface.network, len(interface.addresses)) for interface in node.interfaces),
        node.nat,
        has_firewall(node),
        tuple((service.name, service.ports) for service in node.services),
        tuple((port.node, port.protocol, port.port) for port in tunnels_of(node)),
    )


def _consecutive(members: list[tuple[int, Node]]) -> list[list[Node]]:
    runs: list[list[Node]] = []
    previous = None
    for number, node in members:
        if previous is None or number != previous + 1:
            runs.append([])
        runs[-1].append(node)
        previous = number
    return runs


NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>0|[1-9][0-9]{0,8})")  # no zero in front: guest-01 is a name of its own
