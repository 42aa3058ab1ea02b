"""Where everything stands: networks as bars in rows, their nodes between the rows, links straight where they can be."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from lab.draw.columns import Columns
from lab.draw.fold import fold
from lab.draw.hierarchy import Root, TreeNetwork, TreeNode, build
from lab.draw.measure import LABEL_GAP, Parts, labels_width
from lab.draw.shape import Bar, Box, Link, Picture, Point, Rect, Tunnel
from lab.draw.wiring import route
from lab.topology.model import Topology

GAP = 26.0  # between boxes and between bars side by side
STUB = 7.0  # of line between a box and its label
TRACK = 9.0  # between lines side by side
CLEAR = 14.0  # between a bar and what stands nearest
MOST_LANES = 6  # that a gap between rows has for lines that the rows leave open
MOST_IN_A_ROW = 6  # leaves of one network; more stand in columns
COLUMNS_INSET = 8.0  # of a block of columns from the left end of its bar
BAR_END = 8.0  # from the end of a bar to the nearest line
ALIGNED = 0.5  # two places so near count as one
STRETCH = 16.0  # a bar goes on behind the node that it was drawn out to


def lay_out(topology: Topology) -> Picture:
    """The picture of a topology, its top left corner at (0, 0)."""
    roots = build(topology, fold(topology))
    parts = Parts(topology, roots)
    widths = _Widths(parts, roots)
    _place_across(parts, roots, widths)
    rows = _heights(parts, widths)
    _place_down(parts, roots, widths, rows)
    _draw_links(parts, rows)
    _stretch_bars(parts, rows)
    route([link for link in parts.links if not link.points], parts)
    return _framed(parts)


@dataclass(slots=True)
class _Family:
    """What stands on one side of a network's bar."""

    columns: Columns | None
    nodes: list[TreeNode]
    width: float


class _Widths:
    """The width of each network and node with all that hangs on it."""

    def __init__(self, parts: Parts, roots: Sequence[Root]) -> None:
        self._parts = parts
        self._widths: dict[int, float] = {}
        self._families: dict[int, tuple[_Family, _Family]] = {}
        for tree in reversed(parts.trees):
            for node in (*tree.above, *tree.below):
                self._measure_node(node)
            families = self._family(tree.above), self._family(tree.below)
            self._families[id(tree)] = families
            self._widths[id(tree)] = max(parts.bar(tree).width, *(family.width for family in families))
        for root in roots:
            if isinstance(root, TreeNode):
                self._measure_node(root)

    def of(self, item: Root) -> float:
        return self._widths[id(item)]

    def of_all(self, items: Sequence[Root]) -> float:
        """The width of items side by side."""
        return sum(self.of(item) for item in items) + GAP * max(0, len(items) - 1)

    def families(self, tree: TreeNetwork) -> tuple[_Family, _Family]:
        """What stands above and what stands below a network."""
        return self._families[id(tree)]

    def _measure_node(self, node: TreeNode) -> None:
        self._widths[id(node)] = max(self._parts.box(node).width, self.of_all([tree for _, tree in node.down]))

    def _family(self, nodes: list[TreeNode]) -> _Family:
        leaves = [node for node in nodes if node.is_leaf]
        if len(leaves) <= MOST_IN_A_ROW:
            return _Family(None, nodes, self.of_all(nodes))
        columns = Columns.of([self._parts.top(leaf)[0] for leaf in leaves], GAP)
        rest = [node for node in nodes if not node.is_leaf]
        return _Family(columns, rest, columns.width + (GAP + self.of_all(rest) if rest else 0))


def _place_across(parts: Parts, roots: Sequence[Root], widths: _Widths) -> None:
    x = 0.0
    left: dict[int, float] = {}
    for root in roots:
        left[id(root)] = x
        x += widths.of(root) + 2 * GAP
        if isinstance(root, TreeNode):
            _centre(root, parts, widths, left)
    for tree in parts.trees:
        bar = parts.bar(tree)
        centre = left[id(tree)] + widths.of(tree) / 2
        bar.x = centre - bar.width / 2
        ends = [bar.x, bar.rect.right]
        for family in widths.families(tree):
            x = centre - family.width / 2
            if family.columns:
                family.columns.place_across(x)
                ends += [x - COLUMNS_INSET, x + family.columns.width]
                x += family.columns.width + GAP
            for node in family.nodes:
                left[id(node)] = x
                _centre(node, parts, widths, left)
                ends += [parts.box(node).x, parts.box(node).rect.right]
                x += widths.of(node) + GAP
        if not tree.network.point_to_point:
            bar.x, bar.width = min(ends), max(ends) - min(ends)


def _centre(node: TreeNode, parts: Parts, widths: _Widths, left: dict[int, float]) -> None:
    """Puts a node in the middle of its width, and gives the networks that hang on it their left edges."""
    centre = left[id(node)] + widths.of(node) / 2
    box = parts.box(node)
    box.x = centre - box.width / 2
    inside = [tree for _, tree in node.down]
    x = centre - widths.of_all(inside) / 2
    for tree in inside:
        left[id(tree)] = x
        x += widths.of(tree) + GAP


@dataclass(slots=True)
class _Row:
    """One level: its bars, what hangs on them, and the lines to the next level."""

    bars: list[Bar] = field(default_factory=list)
    bar: float = 0.0  # heights
    above: float = 0.0  # of what stands above the bars (of roots only)
    labels: float = 0.0  # of addresses above the boxes
    content: float = 0.0  # of the boxes with the addresses below them
    columns: float = 0.0
    tracks: int = 0  # lines that turn aside
    bar_y: float = 0.0  # places
    node_y: float = 0.0
    track_y: float = 0.0


def _heights(parts: Parts, widths: _Widths) -> dict[int, _Row]:
    rows: dict[int, _Row] = defaultdict(_Row)
    alone: dict[int, TreeNode] = {id(node): node for node in parts.nodes}  # not in columns, not above a root
    for tree in parts.trees:
        row, bar = rows[tree.level], parts.bar(tree)
        row.bars.append(bar)
        row.bar = max(row.bar, bar.height)
        above, below = widths.families(tree)
        row.above = max([row.above, *(_reach(parts, node) for node in above.nodes)])
        row.above = max(row.above, above.columns.height if above.columns else 0)
        row.columns = max(row.columns, below.columns.height if below.columns else 0)
        hanging = {id(node) for node in below.nodes}
        for node in (*tree.above, *tree.below):
            if id(node) not in hanging:
                del alone[id(node)]
    for node in alone.values():
        row, box = rows[node.level], parts.box(node)
        row.labels = max([row.labels, *(link.height + 2 * STUB for link in parts.top(node))])
        feet = (2 * STUB + link.height for link in parts.bottom(node))
        row.content = max(row.content, box.height + max(feet, default=0.0))
        row.tracks = max(row.tracks, len(node.down) - 1)
    return rows


def _reach(parts: Parts, node: TreeNode) -> float:
    """The height of a box with its address below it."""
    return parts.box(node).height + 2 * STUB + max(link.height for link in parts.top(node))


def _place_down(parts: Parts, roots: Sequence[Root], widths: _Widths, rows: dict[int, _Row]) -> None:
    open_lines = len(parts.tunnels) + sum(len(node.extra) for node in parts.nodes)
    space = CLEAR + TRACK * min(MOST_LANES, math.ceil(open_lines / 2))  # between a bar and what stands nearest
    y = 0.0
    for level in sorted(rows):
        row = rows[level]
        row.bar_y = y + (row.above + space if row.above else 0)
        row.node_y = row.bar_y + (row.bar + space + row.labels if row.bars else 0)
        row.track_y = max(row.node_y + row.content, row.bar_y + row.bar + space + row.columns)
        y = row.track_y + TRACK * row.tracks + space
        for bar in row.bars:
            bar.y = row.bar_y + (row.bar - bar.height) / 2
    for tree in parts.trees:
        row = rows[tree.level]
        above, below = widths.families(tree)
        if above.columns:
            above.columns.place_down(row.bar_y - space - above.columns.height)
        if below.columns:
            below.columns.place_down(row.bar_y + row.bar + space - CLEAR / 2)
        for node in above.nodes:
            parts.box(node).y = row.bar_y - space - _reach(parts, node)
        for node in below.nodes:
            parts.box(node).y = row.node_y
    for root in roots:
        if isinstance(root, TreeNode):
            parts.box(root).y = rows[root.level].node_y


def _draw_links(parts: Parts, rows: dict[int, _Row]) -> None:
    """Gives every link its label, and all but those that close a ring their points."""
    above = {id(node) for tree in parts.trees for node in tree.above}
    for node in parts.nodes:
        box, up = parts.box(node), parts.link(node.up) if node.up else None
        if up is None or not up.points:
            for link, port in _spread(box, parts.top(node), up):
                is_below = id(node) in above
                link.label = _label(link, port, box, is_below=is_below)
                if link is up:
                    edge = (box.rect.bottom, up.bar.y) if is_below else (box.y, up.bar.rect.bottom)
                    up.points = _straight_or_to_cable(up, port, edge)
        ports = {id(link): port for link, port in _spread(box, parts.bottom(node), None)}
        for link in parts.bottom(node):
            link.label = _label(link, ports[id(link)], box, is_below=True)
        _descend([parts.link(interface) for interface, _ in node.down], ports, rows[node.level].track_y)


def _straight_or_to_cable(link: Link, port: float, edge: tuple[float, float]) -> list[Point]:
    """Straight up or down to the bar of a switch; to the middle of the label of a cable."""
    straight = [(port, edge[0]), (port, edge[1])]
    centre = link.bar.rect.middle[0]
    if not link.bar.network.point_to_point or abs(centre - port) < ALIGNED:
        return straight
    turn = (link.label.y + edge[1]) / 2
    return [straight[0], (port, turn), (centre, turn), (centre, edge[1])]


def _spread(box: Box, links: list[Link], up: Link | None) -> Iterator[tuple[Link, float]]:
    """Ports for links on the top or bottom of a box, in the order of where they lead."""
    x = box.rect.middle[0] - labels_width(links) / 2
    for link in sorted(links, key=lambda link: (box if link is up else link.bar).rect.middle[0]):
        yield link, x + (link.width + LABEL_GAP) / 2
        x += link.width + LABEL_GAP


def _label(link: Link, port: float, box: Box, *, is_below: bool) -> Rect:
    y = box.rect.bottom + STUB if is_below else box.y - STUB - link.height
    return Rect(port - link.width / 2, y, link.width, link.height)


def _descend(links: list[Link], ports: dict[int, float], track_y: float) -> None:
    """Leads each link to its bar below: straight, or over a track of its own, so that none crosses another."""
    to_left: list[tuple[float, Link]] = []
    to_right: list[tuple[float, Link]] = []
    for link in links:
        port, bar, centre = ports[id(link)], link.bar, link.bar.rect.middle[0]
        reach = ALIGNED if bar.network.point_to_point else bar.width / 2 - BAR_END
        if abs(centre - port) <= reach:
            link.points = [(port, link.box.rect.bottom), (port, bar.y)]
        elif centre < port:
            to_left.append((port, link))
        else:
            to_right.append((port, link))
    for side in (to_left, to_right[::-1]):
        for track, (port, link) in enumerate(side):
            y, centre = track_y + TRACK * track, link.bar.rect.middle[0]
            link.points = [(port, link.box.rect.bottom), (port, y), (centre, y), (centre, link.bar.y)]


def _stretch_bars(parts: Parts, rows: dict[int, _Row]) -> None:
    """Draws bars out to nodes right above them that link to them too, where no other bar is in the way."""
    for node in parts.nodes:
        for link in (parts.link(interface) for interface in node.extra):
            if link.bar.network.point_to_point or parts.level(link) != node.level + 1:
                continue
            x, bar = link.label.middle[0], link.bar
            left, right = min(bar.x, x - STRETCH), max(bar.rect.right, x + STRETCH)
            others = (other for other in rows[parts.level(link)].bars if other is not bar)
            if all(other.rect.right + GAP <= left or right + GAP <= other.x for other in others):
                bar.x, bar.width = left, right - left


def _framed(parts: Parts) -> Picture:
    """Moves everything so that nothing stands left of or above (0, 0)."""
    rects = [box.rect for box in parts.boxes] + [bar.rect for bar in parts.bars] + [link.label for link in parts.links]
    lines: list[Link | Tunnel] = [*parts.links, *parts.tunnels]
    points = [point for line in lines for point in line.points]
    xs = [x for r in rects for x in (r.x, r.right)] + [x for x, _ in points]
    ys = [y for r in rects for y in (r.y, r.bottom)] + [y for _, y in points]
    left, top = min(xs, default=0.0), min(ys, default=0.0)
    things: list[Box | Bar] = [*parts.boxes, *parts.bars]
    for thing in things:
        thing.x, thing.y = thing.x - left, thing.y - top
    for link in parts.links:
        link.label = replace(link.label, x=link.label.x - left, y=link.label.y - top)
    for line in lines:
        line.points = [(x - left, y - top) for x, y in line.points]
    size = max(xs, default=0.0) - left, max(ys, default=0.0) - top
    return Picture(*size, tuple(parts.bars), tuple(parts.boxes), tuple(parts.links), parts.tunnels)
