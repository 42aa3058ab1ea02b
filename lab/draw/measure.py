"""How much room each part of a picture takes, before anything has a place: bars, boxes, labels of links."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from lab.draw.address_text import full_text, short_lines
from lab.draw.box import make_box
from lab.draw.fold import tunnels_of
from lab.draw.hierarchy import Root, TreeNetwork, TreeNode, networks_of, nodes_of
from lab.draw.shape import Bar, Box, Link, Rect, Tunnel
from lab.draw.text_width import mono_width, sans_width
from lab.topology.model import Interface, Network, Topology

BAR_NAME_SIZE = 13.0
BAR_PREFIX_SIZE = 11.0
BAR_HEIGHT = 28.0
BAR_PAD = 14.0
BAR_WORD_GAP = 10.0  # between name and prefixes
CLOUD = 24.0  # room for the internet's icon
LABEL_SIZE = 10.5
LABEL_LINE = 13.0
LABEL_PAD = 3.0  # left and right of a label, where the line is interrupted
LABEL_GAP = 12.0  # between labels side by side
PREFIX_GAP = "\u00a0\u00a0"  # SVG would draw two plain spaces as one
HUES = 6  # beside the internet's


class Parts:
    """All parts of a picture, measured, and who has which."""

    def __init__(self, topology: Topology, roots: Sequence[Root]) -> None:
        self.trees = tuple(networks_of(roots))
        self.nodes = tuple(nodes_of(roots))
        self._level = {tree.network.name: tree.level for tree in self.trees}
        self._bars = _bars(topology)
        self._boxes: dict[str, Box] = {}  # by name of a group's first node
        self._links: dict[int, Link] = {}  # by id of an interface of a group's first node
        names = _names_by_address(topology)
        for node in self.nodes:
            box = make_box(node.group, names)
            self._boxes[node.group.first.name] = box
            for interface in node.group.first.interfaces:
                self._links[id(interface)] = _link(box, self._bars[interface.network], interface)
            widen(box, max(labels_width(self.top(node)), labels_width(self.bottom(node))))
        self.tunnels = self._all_tunnels()

    def bar(self, tree: TreeNetwork) -> Bar:
        return self._bars[tree.network.name]

    def box(self, node: TreeNode) -> Box:
        return self._boxes[node.group.first.name]

    def link(self, interface: Interface) -> Link:
        return self._links[id(interface)]

    def top(self, node: TreeNode) -> list[Link]:
        """The links to networks above or beside the node's row, its own first."""
        upward = [interface for interface in node.extra if self._level[interface.network] <= node.level]
        return [self.link(interface) for interface in (*([node.up] if node.up else []), *upward)]

    def bottom(self, node: TreeNode) -> list[Link]:
        """The links to networks below the node's row, those that hang on it first."""
        downward = [interface for interface in node.extra if self._level[interface.network] > node.level]
        return [self.link(interface) for interface in (*(interface for interface, _ in node.down), *downward)]

    def level(self, link: Link) -> int:
        """The row of the network that a link leads to."""
        return self._level[link.bar.network.name]

    @property
    def bars(self) -> list[Bar]:
        return list(self._bars.values())

    @property
    def boxes(self) -> list[Box]:
        return list(self._boxes.values())

    @property
    def links(self) -> list[Link]:
        return list(self._links.values())

    def _all_tunnels(self) -> tuple[Tunnel, ...]:
        box_of = {member.name: self.box(node) for node in self.nodes for member in node.group.nodes}
        ports: dict[tuple[str, str], list[str]] = defaultdict(list)
        for node in self.nodes:
            for ready in tunnels_of(node.group.first):
                if ready.node in box_of:
                    ports[(node.group.first.name, ready.node)].append(f"{ready.protocol} {ready.port}")
        return tuple(
            Tunnel(box_of[source], box_of[target], f"{source} opens {', '.join(opened)} on {target}")
            for (source, target), opened in ports.items()
        )


def labels_width(links: Sequence[Link]) -> float:
    """What labels take side by side, with half a gap at each end."""
    return sum(link.width + LABEL_GAP for link in links)


def widen(box: Box, width: float) -> None:
    """Gives a box at least `width`, its pills still in the middle."""
    shift = (width - box.width) / 2
    if shift <= 0:
        return
    box.width = width
    box.chips = tuple(replace(chip, rect=replace(chip.rect, x=chip.rect.x + shift)) for chip in box.chips)


def _bars(topology: Topology) -> dict[str, Bar]:
    bars: dict[str, Bar] = {}
    for network in topology.networks:
        inner = sum(not bar.network.internet for bar in bars.values())
        bars[network.name] = _bar(network, 0 if network.internet else 1 + inner % HUES)
    return bars


def _bar(network: Network, hue: int) -> Bar:
    prefixes = PREFIX_GAP.join(str(prefix) for prefix in network.prefixes)
    width = CLOUD if network.internet else 0.0
    width += sans_width(network.name, BAR_NAME_SIZE, bold=True)
    width += BAR_WORD_GAP + mono_width(prefixes, BAR_PREFIX_SIZE) if prefixes else 0
    return Bar(network, prefixes, hue, width, width + 2 * BAR_PAD, BAR_HEIGHT)


def _link(box: Box, bar: Bar, interface: Interface) -> Link:
    lines = short_lines(box.group, interface, bar.network)
    width = max((mono_width(line, LABEL_SIZE) for line in lines), default=0.0) + 2 * LABEL_PAD
    label = Rect(0, 0, width, LABEL_LINE * len(lines))
    return Link(box, bar, interface, lines, full_text(box.group, interface), label)


def _names_by_address(topology: Topology) -> dict[IPv4Address, str]:
    return {
        address.ip: node.name
        for node in topology.nodes
        for interface in node.interfaces
        for address in interface.addresses
        if isinstance(address.ip, IPv4Address)
    }
