"""The topology as a Mermaid flowchart, which GitHub draws in Markdown: networks, nodes, their links and tunnels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from lab.draw.address_text import short_lines
from lab.draw.box import port_text
from lab.draw.fold import Group, fold, has_firewall, tunnels_of
from lab.topology.model import Interface, Network, Node, Port, PortForward, Role, Service, Topology

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
        left, right, style = ("{{", "}}", "router") if node.role is Role.ROUTER else ("[", "]", "host")
        if len(group.nodes) > 1:
            left, right = "[[", "]]"
        return f"{self.node_id[node.name]}{left}{_text(_words(group))}{right}:::{style}"

    def _links(self, network: Network) -> list[str]:
        """In the order of the file; a node stands below the network of its first link and above those of its others."""
        here = self.network_id[network.name]
        links: list[str] = []
        for group, interface in self.ends[network.name]:
            label = _label(short_lines(group, interface, network) if group.is_run else ())
            there = self.node_id[group.first.name]
            is_above = interface is not group.first.interfaces[0]
            links.append(f"{there} ---{label} {here}" if is_above else f"{here} ---{label} {there}")
        return links

    def _cable(self, network: Network) -> str:
        (first, one), (second, other) = self.ends[network.name]
        ends = (*short_lines(first, one, network), "to", *short_lines(second, other, network))
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
    """Hosts with one link and no tunnel as one group per network, since a flowchart of so many edges is refused."""
    targets = {ready.node for group in groups for ready in tunnels_of(group.first)}
    plain: dict[str, list[Node]] = defaultdict(list)
    kept: list[Group] = []
    for group in groups:
        node = group.first
        has_tunnel = bool(tunnels_of(node)) or node.name in targets
        if node.role is Role.HOST and len(node.interfaces) == 1 and not has_tunnel:
            plain[node.interfaces[0].network].extend(group.nodes)
        else:
            kept.append(group)
    return (*kept, *(Group(tuple(nodes), is_run=False) for nodes in plain.values()))


def _words(group: Group) -> list[str]:
    """What stands in a node, a line each."""
    node = group.first
    if not group.is_run:
        return [f"<b>{group.name}</b>", ", ".join(_with_services(node) for node in group.nodes)]
    badges = [word for word, is_so in (("NAT", node.nat), ("firewall", has_firewall(node))) if is_so]
    words = [f"<b>{group.name}</b>", *([" · ".join(badges)] if badges else []), *([node.image] if node.image else [])]
    return [*words, *map(_forward, node.nat.forwards if node.nat else ()), *map(_service, node.services)]


def _forward(forward: PortForward) -> str:
    return f"{port_text(Port(forward.protocol, forward.port))} → {forward.address}:{forward.to_port}"


def _with_services(node: Node) -> str:
    return f"{node.name} ({', '.join(map(_service, node.services))})" if node.services else node.name


def _service(service: Service) -> str:
    return " ".join([service.name, *map(port_text, service.ports)])


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
