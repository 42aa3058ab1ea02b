"""Where everything stands: networks as bars in rows, their nodes between the rows, links straight where they can be."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from lab.draw.address_text import full_text, short_lines
from lab.draw.box import make_box
from lab.draw.fold import fold, tunnels_of
from lab.draw.hierarchy import Root, TreeNetwork, TreeNode, build, networks_of, nodes_of
from lab.draw.shape import Bar, Box, Link, Picture, Rect, Tunnel
from lab.draw.text_width import mono_width, sans_width
from lab.draw.wiring import route
from lab.topology.model import Interface, Network, Topology

BAR_NAME_SIZE = 13.0
BAR_PREFIX_SIZE = 11.0
BAR_LINE = 17.0
BAR_PAD = 14.0
CLOUD = 24.0  # room for the internet's icon
LABEL_SIZE = 10.5
LABEL_LINE = 13.0
LABEL_GAP = 12.0  # between labels side by side
GAP = 26.0  # between boxes and between bars side by side
STUB = 7.0  # of line between a box and its label
TRACK = 9.0  # between lines side by side
CLEAR = 14.0  # between a bar and what stands nearest
MARGIN = 28.0
MOST_IN_A_ROW = 6  # leaves of one network; more stand in columns
COLUMN_SHAPE = 1.7  # width : height of a block of columns
TRUNK = 14.0  # from a column's line to its boxes
HUES = 6


def lay_out(topology: Topology) -> Picture:
    """The picture of a topology, its top left corner at (0, 0), with a margin."""
    groups = fold(topology)
    roots = build(topology, groups)
    return _Layout(topology, roots).picture()


@dataclass(slots=True)
class _Columns:
    """Leaves of one network in columns beside a common line each."""

    nodes: list[TreeNode]
    count: int  # of columns
    widths: list[float]  # of the boxes
    heights: list[float]  # of rows: label and box
    label_height: float

    @property
    def width(self) -> float:
        return sum(self.widths) + self.count * TRUNK + (self.count - 1) * GAP

    @property
    def height(self) -> float:
        return sum(self.heights)


@dataclass(slots=True)
class _Family:
    """What stands on one side of a network's bar."""

    columns: _Columns | None
    nodes: list[TreeNode]
    width: float


@dataclass(slots=True)
class _Row:
    """Heights in one level, from top to bottom."""

    bar: float = 0.0
    top_labels: float = 0.0
    nodes: float = 0.0
    columns: float = 0.0
    foot: float = 0.0  # labels below boxes
    tracks: int = 0
    bar_y: float = 0.0
    node_y: float = 0.0
    track_y: float = 0.0
    bars: list[Bar] = field(default_factory=list)


class _Layout:
    def __init__(self, topology: Topology, roots: Sequence[Root]) -> None:
        self.topology = topology
        self.roots = roots
        self.trees = list(networks_of(roots))
        self.nodes = list(nodes_of(roots))
        self.level_of = {tree.network.name: tree.level for tree in self.trees}
        self.bar_of = {tree.network.name: _bar(tree.network, hue) for tree, hue in zip(self.trees, self._hues(), strict=True)}
        self.names: dict[IPv4Address, str] = {}
        for node in topology.nodes:
            for interface in node.interfaces:
                self.names.update({a.ip: node.name for a in interface.addresses if isinstance(a.ip, IPv4Address)})
        self.links: dict[int, Link] = {}  # by id of the interface of a group's first node
        self.boxes: dict[str, Box] = {}  # by name of a group's first node
        for node in self.nodes:
            self._measure(node)
        self.tunnels = self._tunnels()
        self.families: dict[int, tuple[_Family, _Family]] = {}  # above, below; by id of the network's tree
        self.widths: dict[int, float] = {}
        self.rows: dict[int, _Row] = defaultdict(_Row)

    def picture(self) -> Picture:
        self._widths()
        self._places_across()
        top_columns = self._heights()
        self._places_down(top_columns)
        self._lines()
        extra = [self.links[id(interface)] for node in self.nodes for interface in node.extra]
        for row in self.rows.values():
            _stretch(row, [link for link in extra if self.rows[self.level_of[link.bar.network.name]] is row])
        links = list(self.links.values())
        route([link for link in links if not link.points], self.tunnels, list(self.boxes.values()), links, list(self.bar_of.values()))
        return self._framed()

    def _hues(self) -> list[int]:
        order = {network.name: position for position, network in enumerate(n for n in self.topology.networks if not n.internet)}
        return [0 if tree.network.internet else 1 + order[tree.network.name] % HUES for tree in self.trees]

    def _measure(self, node: TreeNode) -> None:
        box = make_box(node.group, self.names)
        self.boxes[node.group.first.name] = box
        for interface in node.group.first.interfaces:
            bar = self.bar_of[interface.network]
            lines = short_lines(node.group, interface, bar.network)
            width = max((mono_width(line, LABEL_SIZE) for line in lines), default=0.0) + 6
            detail = full_text(node.group, interface)
            self.links[id(interface)] = Link(box, bar, interface, lines, detail, width, LABEL_LINE * len(lines))
        _widen(box, max(_slots(self._top(node)), _slots(self._bottom(node)), box.width))

    def _top(self, node: TreeNode) -> list[Link]:
        upward = [interface for interface in node.extra if self.level_of[interface.network] <= node.level]
        first = [node.up] if node.up else []
        return [self.links[id(interface)] for interface in (*first, *upward)]

    def _bottom(self, node: TreeNode) -> list[Link]:
        downward = [interface for interface in node.extra if self.level_of[interface.network] > node.level]
        return [self.links[id(interface)] for interface in (*(interface for interface, _ in node.down), *downward)]

    def _tunnels(self) -> list[Tunnel]:
        box_of = {member.name: self.boxes[node.group.first.name] for node in self.nodes for member in node.group.nodes}
        details: dict[tuple[str, str], list[str]] = defaultdict(list)
        for node in self.nodes:
            for port in tunnels_of(node.group.first):
                if port.node in box_of:
                    details[(node.group.first.name, port.node)].append(f"{port.protocol} {port.port}")
        return [
            Tunnel(self.boxes[source], box_of[target], f"{source} opens {', '.join(ports)} on {target}")
            for (source, target), ports in details.items()
        ]

    def _widths(self) -> None:
        for tree in reversed(self.trees):
            for node in (*tree.above, *tree.below):
                self._node_width(node)
            above, below = self._family(tree.above), self._family(tree.below)
            self.families[id(tree)] = above, below
            self.widths[id(tree)] = max(self.bar_of[tree.network.name].width, above.width, below.width)
        for root in self.roots:
            if isinstance(root, TreeNode):
                self._node_width(root)

    def _node_width(self, node: TreeNode) -> None:
        inside = [self.widths[id(tree)] for _, tree in node.down]
        self.widths[id(node)] = max(self.boxes[node.group.first.name].width, sum(inside) + GAP * (len(inside) - 1))

    def _family(self, nodes: list[TreeNode]) -> _Family:
        leaves = [node for node in nodes if node.is_leaf]
        columns = self._columns(leaves) if len(leaves) > MOST_IN_A_ROW else None
        rest = [node for node in nodes if not (columns and node.is_leaf)]
        widths = [self.widths[id(node)] for node in rest] + ([columns.width] if columns else [])
        return _Family(columns, rest, sum(widths) + GAP * max(0, len(widths) - 1))

    def _columns(self, leaves: list[TreeNode]) -> _Columns:
        boxes = [self.boxes[node.group.first.name] for node in leaves]
        label_height = max(link.height for node in leaves for link in self._top(node)) + 12
        wide = sum(box.width for box in boxes) / len(boxes) + GAP + TRUNK
        high = sum(box.height for box in boxes) / len(boxes) + label_height
        count = max(1, min(len(boxes), round(math.sqrt(len(boxes) * high * COLUMN_SHAPE / wide))))
        per_column = math.ceil(len(boxes) / count)
        count = math.ceil(len(boxes) / per_column)
        widths = [max(box.width for box in boxes[c * per_column : (c + 1) * per_column]) for c in range(count)]
        for position, box in enumerate(boxes):
            _widen(box, widths[position // per_column])
        heights = [label_height + max(box.height for box in boxes[r::per_column]) for r in range(per_column)]
        return _Columns(leaves, count, widths, heights, label_height)

    def _places_across(self) -> None:
        x = 0.0
        left: dict[int, float] = {}
        for root in self.roots:
            left[id(root)] = x
            x += self.widths[id(root)] + 2 * GAP
        for tree in [root for root in self.roots if isinstance(root, TreeNode)]:
            self._children_of_node(tree, left)
        for tree_network in self.trees:
            self._children_of_network(tree_network, left)

    def _children_of_node(self, node: TreeNode, left: dict[int, float]) -> None:
        box = self.boxes[node.group.first.name]
        box.x = left[id(node)] + (self.widths[id(node)] - box.width) / 2
        inside = sum(self.widths[id(tree)] for _, tree in node.down) + GAP * (len(node.down) - 1)
        x = left[id(node)] + (self.widths[id(node)] - inside) / 2
        for _, tree in node.down:
            left[id(tree)] = x
            x += self.widths[id(tree)] + GAP

    def _children_of_network(self, tree: TreeNetwork, left: dict[int, float]) -> None:
        bar, width = self.bar_of[tree.network.name], self.widths[id(tree)]
        centre = left[id(tree)] + width / 2
        reach = [centre - bar.width / 2, centre + bar.width / 2]
        for family in self.families[id(tree)]:
            x = centre - family.width / 2
            if family.columns:
                self._place_columns(family.columns, x)
                reach += [x - 8, x + family.columns.width]
                x += family.columns.width + GAP
            for node in family.nodes:
                left[id(node)] = x
                self._children_of_node(node, left)
                box = self.boxes[node.group.first.name]
                reach += [box.x, box.x + box.width]
                x += self.widths[id(node)] + GAP
        if not tree.network.point_to_point:
            bar.x, bar.width = min(reach), max(reach) - min(reach)
        else:
            bar.x = centre - bar.width / 2

    def _place_columns(self, columns: _Columns, x: float) -> None:
        per_column = len(columns.heights)
        for position, node in enumerate(columns.nodes):
            column = position // per_column
            before = sum(columns.widths[:column]) + column * (TRUNK + GAP)
            self.boxes[node.group.first.name].x = x + before + TRUNK

    def _heights(self) -> float:
        """Fills the rows; the answer is the height of what stands above the roots."""
        top = 0.0
        in_columns: set[int] = set()
        for tree in self.trees:
            row = self.rows[tree.level]
            row.bar = max(row.bar, self.bar_of[tree.network.name].height)
            row.bars.append(self.bar_of[tree.network.name])
            for family, is_above in zip(self.families[id(tree)], (True, False), strict=True):
                if not family.columns:
                    continue
                in_columns |= {id(node) for node in family.columns.nodes}
                if is_above:
                    top = max(top, family.columns.height)
                else:
                    row.columns = max(row.columns, family.columns.height)
        above = {id(node) for tree in self.trees for node in tree.above}
        for node in self.nodes:
            if id(node) in in_columns:
                continue
            box = self.boxes[node.group.first.name]
            if id(node) in above:
                top = max(top, box.height + 2 * STUB + max(link.height for link in self._top(node)))
                continue
            row = self.rows[node.level]
            row.nodes = max(row.nodes, box.height)
            row.top_labels = max([row.top_labels, *(link.height for link in self._top(node))])
            row.foot = max([row.foot, *(box.height + 2 * STUB + link.height for link in self._bottom(node))])
            row.tracks = max(row.tracks, len(node.down) - 1)
        return top

    def _places_down(self, top: float) -> None:
        free = len(self.tunnels) + sum(len(node.extra) for node in self.nodes)
        lanes = TRACK * min(6, math.ceil(free / 2))
        y = top + CLEAR + lanes if top else 0.0
        for level in sorted(self.rows):
            row = self.rows[level]
            row.bar_y = y
            for bar in row.bars:
                bar.y = y + (row.bar - bar.height) / 2
            gap = CLEAR + lanes + (2 * STUB + row.top_labels if row.top_labels else 0)
            row.node_y = y + row.bar + (gap if row.bars else 0)
            row.track_y = row.node_y + max(row.nodes, row.foot, row.columns - row.top_labels)
            y = row.track_y + TRACK * row.tracks + CLEAR + lanes
        for tree in self.trees:
            above, below = self.families[id(tree)]
            row = self.rows[tree.level]
            if above.columns:
                self._stack(above.columns, row.bar_y - CLEAR - lanes - above.columns.height)
            if below.columns:
                self._stack(below.columns, row.bar_y + row.bar + CLEAR / 2 + lanes)
            for node in above.nodes:
                box = self.boxes[node.group.first.name]
                box.y = row.bar_y - CLEAR - lanes - 2 * STUB - max(link.height for link in self._top(node)) - box.height
            for node in below.nodes:
                self.boxes[node.group.first.name].y = row.node_y
        for root in self.roots:
            if isinstance(root, TreeNode):
                self.boxes[root.group.first.name].y = self.rows[0].node_y

    def _stack(self, columns: _Columns, y: float) -> None:
        per_column = len(columns.heights)
        for position, node in enumerate(columns.nodes):
            box, bar = self.boxes[node.group.first.name], self._top(node)[0].bar
            before = sum(columns.heights[: position % per_column])
            box.y = y + before + columns.label_height
            link = self._top(node)[0]
            trunk, middle = box.x - TRUNK + 3, box.rect.middle[1]
            link.label = Rect(box.x, box.y - link.height - 3, link.width, link.height)
            edge = bar.rect.bottom if box.y > bar.y else bar.y
            link.points = [(box.x, middle), (trunk, middle), (trunk, edge)]

    def _lines(self) -> None:
        above = {id(node) for tree in self.trees for node in tree.above}
        for node in self.nodes:
            box = self.boxes[node.group.first.name]
            top, bottom = self._top(node), self._bottom(node)
            if top and not top[0].points:
                up = self.links[id(node.up)] if node.up else None
                self._ports(box, top, up, below=id(node) in above)
                if up:
                    edge = up.bar.y if id(node) in above else up.bar.rect.bottom
                    up.points.append((up.points[0][0], edge))
            self._ports(box, bottom, None, below=True)
            self._descend(node, [self.links[id(interface)] for interface, _ in node.down])
            for interface in node.extra:
                link = self.links[id(interface)]
                link.points = []

    def _ports(self, box: Box, links: list[Link], up: Link | None, *, below: bool) -> None:
        """Spreads links over the top or bottom of a box, in the order of where they lead."""
        ordered = sorted(links, key=lambda link: box.rect.middle[0] if link is up else link.bar.rect.middle[0])
        x = box.rect.middle[0] - _slots(links) / 2 + LABEL_GAP / 2
        for link in ordered:
            port = x + link.width / 2
            y = box.rect.bottom + STUB if below else box.y - STUB - link.height
            link.label = Rect(x, y, link.width, link.height)
            link.points = [(port, box.rect.bottom if below else box.y)]
            x += link.width + LABEL_GAP

    def _descend(self, node: TreeNode, links: list[Link]) -> None:
        """Leads each link to its bar below: straight, or over a track of its own that crosses no other."""
        row = self.rows[node.level]
        bent_left: list[tuple[Link, float]] = []
        bent_right: list[tuple[Link, float]] = []
        for link in links:
            port, bar = link.points[0][0], link.bar
            reach = 0.5 if bar.network.point_to_point else max(0.5, bar.width / 2 - 8)
            centre = bar.rect.middle[0]
            if abs(centre - port) <= reach:
                link.points.append((port, bar.y))
            else:
                (bent_left if centre < port else bent_right).append((link, centre))
        for bent in (sorted(bent_left, key=_port_of), sorted(bent_right, key=_port_of, reverse=True)):
            for track, (link, centre) in enumerate(bent):
                y = row.track_y + TRACK * track
                link.points += [(link.points[0][0], y), (centre, y), (centre, link.bar.y)]

    def _framed(self) -> Picture:
        """Moves everything so that nothing stands left of or above the margin."""
        boxes, bars, links = list(self.boxes.values()), list(self.bar_of.values()), list(self.links.values())
        rects = [box.rect for box in boxes] + [bar.rect for bar in bars] + [link.label for link in links]
        points = [point for line in (*links, *self.tunnels) for point in line.points]
        xs = [r.x for r in rects] + [r.right for r in rects] + [x for x, _ in points]
        ys = [r.y for r in rects] + [r.bottom for r in rects] + [y for _, y in points]
        left, top = (min(xs) - MARGIN, min(ys)) if xs else (0.0, 0.0)
        for item in (*boxes, *bars):
            item.x, item.y = item.x - left, item.y - top
        for link in links:
            link.label = Rect(link.label.x - left, link.label.y - top, link.label.width, link.label.height)
        for line in (*links, *self.tunnels):
            line.points = [(x - left, y - top) for x, y in line.points]
        width, height = (max(xs) - left + MARGIN, max(ys) - top) if xs else (0.0, 0.0)
        return Picture(width, height, tuple(bars), tuple(boxes), tuple(links), tuple(self.tunnels))


def _bar(network: Network, hue: int) -> Bar:
    prefixes = "  ".join(str(prefix) for prefix in network.prefixes)
    icon = CLOUD if network.internet else 0.0
    name = sans_width(network.name, BAR_NAME_SIZE, bold=True)
    text = icon + name + (10 + mono_width(prefixes, BAR_PREFIX_SIZE) if prefixes else 0)
    return Bar(network, (network.name, prefixes), hue, text, text + 2 * BAR_PAD, BAR_LINE + 11)


def _slots(links: list[Link]) -> float:
    return sum(link.width + LABEL_GAP for link in links)


def _port_of(bent: tuple[Link, float]) -> float:
    return bent[0].points[0][0]


def _widen(box: Box, width: float) -> None:
    """Gives a box more width, its pills still in the middle."""
    shift = (width - box.width) / 2
    box.width = width
    box.chips = tuple(
        type(chip)(chip.kind, chip.text, chip.detail, Rect(chip.rect.x + shift, chip.rect.y, chip.rect.width, chip.rect.height))
        for chip in box.chips
    )


def _stretch(row: _Row, links: list[Link]) -> None:
    """Draws bars out to nodes right above them that link to them too, where no other bar is in the way."""
    for link in links:
        if not link.points and not link.bar.network.point_to_point and link.label.bottom < row.bar_y:
            x, bar = link.label.middle[0], link.bar
            left, right = min(bar.x, x - 16), max(bar.rect.right, x + 16)
            others = [other for other in row.bars if other is not bar]
            if all(other.rect.right + GAP <= left or right + GAP <= other.x for other in others):
                bar.x, bar.width = left, right - left
