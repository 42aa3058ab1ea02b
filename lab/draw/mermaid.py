"""The topology as a Mermaid flowchart, which GitHub draws in Markdown: networks, nodes, their links and tunnels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from lab.draw.address_text import short_lines
from lab.draw.box import port_text
from lab.draw.fold import Group, fold, has_firewall, tunnels_of
from lab.topology.model import Interface, Network, Port, Role, Topology

MOST_EDGES = 450  # mermaid refuses more than 500 (its option maxEdges)


def to_mermaid(topology: Topology) -> str:
    """Flowchart text; ids are numbers with a letter in front, so that a node may be called `end`."""
    return "\n".join([*_Flowchart(topology).lines(), ""])


class _Flowchart:
    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        groups = fold(topology)
        if sum(len(group.first.interfaces) for group in groups) > MOST_EDGES:
            groups = _gathered(groups)
        self.groups = groups
        self.node_id = {node.name: f"n{number}" for number, group in enumerate(groups) for node in group.nodes}
        self.network_id = {network.name: f"s{number}" for number, network in enumerate(topology.networks)}
        self.ends: dict[str, list[tuple[Group, Interface]]] = defaultdict(list)
        for group in groups:
            for interface in group.first.interfaces:
                self.ends[interface.network].append((group, interface))

    def lines(self) -> list[str]:
        lines = ["flowchart TD"]
        networks = sorted(self.topology.networks, key=lambda network: not network.internet)
        lines += [self._network(network) for network in networks if not self._is_cable(network)]
        lines += [self._node(group) for group in self.groups]
        for network in networks:
            lines += [self._cable(network)] if self._is_cable(network) else self._links(network)
        lines += self._tunnels()
        return [lines[0], *(f"    {line}" for line in (*lines[1:], *STYLES))]

    def _is_cable(self, network: Network) -> bool:
        ends = self.ends[network.name]
        return network.point_to_point and len(ends) == 2 and all(len(group.nodes) == 1 for group, _ in ends)

    def _network(self, network: Network) -> str:
        text = _text([f"<b>{network.name}</b>", *map(str, network.prefixes)])
        style = "internet" if network.internet else "network"
        return f"{self.network_id[network.name]}([{text}]):::{style}"

    def _node(self, group: Group) -> str:
        node = group.first
        words = [f"<b>{_group_name(group)}</b>"]
        badges = [word for word, is_so in (("NAT", node.nat), ("firewall", has_firewall(node))) if is_so]
        words += [" · ".join(badges)] if badges else []
        words += [node.image] if node.image else []
        for forward in node.nat.forwards if node.nat else ():
            words.append(f"{port_text(Port(forward.protocol, forward.port))} → {forward.address}:{forward.to_port}")
        for service in node.services:
            words.append(" ".join([service.name, *map(port_text, service.ports)]))
        left, right, style = ("{{", "}}", "router") if node.role is Role.ROUTER else ("[", "]", "host")
        if len(group.nodes) > 1:
            left, right = "[[", "]]"
        return f"{self.node_id[node.name]}{left}{_text(words)}{right}:::{style}"

    def _links(self, network: Network) -> list[str]:
        """Nodes with another link further in stand below the network, all in the order of the file."""
        here = self.network_id[network.name]
        links: list[str] = []
        for group, interface in self.ends[network.name]:
            label = _label(short_lines(group, interface, network) if _is_run(group) else ())
            there = self.node_id[group.first.name]
            is_above = interface is not group.first.interfaces[0]
            links.append(f"{there} ---{label} {here}" if is_above else f"{here} ---{label} {there}")
        return links

    def _cable(self, network: Network) -> str:
        (first, one), (second, other) = self.ends[network.name]
        ends = (*short_lines(first, one, network), "–", *short_lines(second, other, network))
        label = _label([network.name, *map(str, network.prefixes), " ".join(ends)])
        return f"{self.node_id[first.first.name]} ---{label} {self.node_id[second.first.name]}"

    def _tunnels(self) -> list[str]:
        return [
            f"{self.node_id[group.first.name]} -.->{_label([f'opens {port_text(Port(ready.protocol, ready.port))}'])}"
            f" {self.node_id[ready.node]}"
            for group in self.groups
            for ready in tunnels_of(group.first)
            if ready.node in self.node_id
        ]


def _gathered(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Plain hosts of one network as one group, since a flowchart of so many edges is refused."""
    wanted = {ready.node for group in groups for node in group.nodes for ready in tunnels_of(node)}
    plain: dict[str, list[Group]] = defaultdict(list)
    kept: list[Group] = []
    for group in groups:
        node = group.first
        if node.role is Role.HOST and len(node.interfaces) == 1 and not node.services and node.name not in wanted:
            plain[node.interfaces[0].network].append(group)
        else:
            kept.append(group)
    return (*kept, *(Group(tuple(node for group in some for node in group.nodes)) for some in plain.values()))


def _is_run(group: Group) -> bool:
    """Whether all nodes of the group have as many addresses as the first, as folded ones have."""
    counts = {tuple((i.name, len(i.addresses)) for i in node.interfaces) for node in group.nodes}
    return len(counts) == 1


def _group_name(group: Group) -> str:
    stems = {node.name.rpartition("-")[0] for node in group.nodes}
    if len(stems) == 1:
        return group.name
    return f"{len(group.nodes)} hosts</b><br/>{', '.join(node.name for node in group.nodes)}<b>"


def _label(lines: Sequence[str]) -> str:
    return f"|{_text(lines)}|" if lines else ""


def _text(lines: Sequence[str]) -> str:
    joined = "<br/>".join(lines)
    return f'"{joined.replace("#", "#35;").replace(chr(34), "#quot;")}"'


STYLES = (
    "classDef internet fill:#33475b,stroke:#33475b,color:#ffffff",
    "classDef network fill:#d9e8f3,stroke:#2b6a99,color:#1f2933",
    "classDef router fill:#f1f4f7,stroke:#33475b,stroke-width:2px,color:#1f2933",
    "classDef host fill:#ffffff,stroke:#57606a,color:#1f2933",
)
