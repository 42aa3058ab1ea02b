"""Lines that the rows leave open: links that close a ring, and tunnels, led around boxes and text by a cheapest path.

A grid of the places beside everything that stands is searched by A*; a bend, a crossed line and a crossed bar each cost
as much as some pixels of detour. Lines never run along another line, but tunnels to one target join.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from lab.draw.measure import Parts
from lab.draw.shape import Bar, Box, Link, Point, Rect, Tunnel

BEND = 25.0  # pixels of detour that a bend is worth
CROSSING = 30.0  # ... that a crossed line is worth
BAR_CROSSING = 75.0  # ... that a crossed bar is worth
CLEAR = 5.0  # least distance between a line and what it passes
LANES = (10.0, 19.0)  # distances from a box at which a line may pass
MOST_LANDINGS = 12  # places on a bar that are tried beside those in line with something
MOST_LINES = 100  # beyond it lines go straight, behind the boxes
MOST_WORK = 400_000  # the same for grid points x lines


def route(links: Sequence[Link], parts: Parts) -> None:
    """Gives each of `links`, and each tunnel, its points; the other links have theirs."""
    tunnels, drawn, bars = parts.tunnels, parts.links, parts.bars
    if not links and not tunnels:
        return
    starts = [_link_start(link) for link in links]
    if len(links) + len(tunnels) > MOST_LINES:
        _straight(links, starts, tunnels)
        return
    goals = [_side_points(tunnel.target, tunnels) for tunnel in tunnels]
    sources = [_side_points(tunnel.source, tunnels) for tunnel in tunnels]
    solid = [box.rect for box in parts.boxes] + [link.label for link in drawn]
    texts = [bar.text_rect for bar in bars]
    ends = [_cable_points(link.bar) for link in links]
    points = [*starts, *(p for side in (*goals, *sources, *ends) for p, _ in side)]
    points += [point for link in links for point in _landings(link.bar)]
    edges = [y for link in links for y in (link.bar.y, link.bar.rect.bottom)]
    grid = _Grid([*solid, *(bar.rect for bar in bars)], points, edges)
    if len(grid.xs) * len(grid.ys) * (len(links) + len(tunnels)) > MOST_WORK:
        _straight(links, starts, tunnels)
        return
    for rect in solid:
        grid.block(rect, across=True, down=True)
    for bar, text in zip(bars, texts, strict=True):
        grid.block(bar.rect, across=True, down=False)
        grid.block(text, across=False, down=True)
        grid.charge_across(bar.rect)
    for link in drawn:
        grid.draw(link.points)
    for link, start in zip(links, starts, strict=True):
        end = dict(_cable_points(link.bar)) or {point: point for point in grid.reachable(link.bar)}
        path = grid.search([start], list(end))
        link.points = _from_label(link, [*path, end[path[-1]]] if path else [start, _nearest(link.bar, start)])
        grid.draw(link.points)
    reached: dict[int, list[Point]] = defaultdict(list)  # by target: where later tunnels to it may join
    for tunnel, source, goal in zip(tunnels, sources, goals, strict=True):
        end = dict(goal)
        joints = reached[id(tunnel.target)]
        path = grid.search([p for p, _ in source], joints or list(end))
        if not path:
            tunnel.points = _direct(tunnel)
            continue
        tunnel.joins = bool(joints)
        tunnel.points = _without_stops([dict(source)[path[0]], *path, *([] if joints else [end[path[-1]]])])
        reached[id(tunnel.target)] += path
        grid.draw(tunnel.points)


def _link_start(link: Link) -> Point:
    """Just beyond the label of a link, where its free part begins."""
    below = link.label.y > link.box.y
    return (link.label.middle[0], link.label.bottom + CLEAR + 1 if below else link.label.y - CLEAR - 1)


def _from_label(link: Link, path: list[Point]) -> list[Point]:
    below = link.label.y > link.box.y
    edge = link.box.rect.bottom if below else link.box.y
    return _without_stops([(link.label.middle[0], edge), *path])


def _side_points(box: Box, tunnels: Sequence[Tunnel]) -> list[tuple[Point, Point]]:
    """Places beside a box where a tunnel may begin or end, each with its point on the box's edge."""
    rect = box.rect
    count = sum(tunnel.source is box for tunnel in tunnels) + any(tunnel.target is box for tunnel in tunnels)
    points: list[tuple[Point, Point]] = []
    for number in range(1, count + 1):
        y = rect.y + rect.height * number / (count + 1)
        points += [((rect.x - LANES[0], y), (rect.x, y)), ((rect.right + LANES[0], y), (rect.right, y))]
    return points


def _cable_points(bar: Bar) -> list[tuple[Point, Point]]:
    """Places around the label of a point-to-point network where a line may end; none around a switch."""
    if not bar.network.point_to_point:
        return []
    rect, (x, y) = bar.rect, bar.rect.middle
    sides = [((rect.x - LANES[0], y), (rect.x, y)), ((rect.right + LANES[0], y), (rect.right, y))]
    return [*sides, ((x, rect.y - LANES[0]), (x, rect.y)), ((x, rect.bottom + LANES[0]), (x, rect.bottom))]


def _landings(bar: Bar) -> list[Point]:
    """Places spread over the top edge of a bar, besides those that other parts suggest."""
    count = max(1, min(MOST_LANDINGS, int(bar.width / LANES[0]) - 1))
    return [(bar.x + bar.width * number / (count + 1), bar.y) for number in range(1, count + 1)]


def _nearest(bar: Bar, start: Point) -> Point:
    """The place on a bar's long edge straight towards `start`."""
    rect = bar.rect
    x = min(max(start[0], rect.x + 8), rect.right - 8)
    return (x, rect.bottom if rect.y < start[1] else rect.y)


def _straight(links: Sequence[Link], starts: Sequence[Point], tunnels: Sequence[Tunnel]) -> None:
    for link, start in zip(links, starts, strict=True):
        link.points = _from_label(link, [start, _nearest(link.bar, start)])
    for tunnel in tunnels:
        tunnel.points = _direct(tunnel)


def _direct(tunnel: Tunnel) -> list[Point]:
    """From edge to edge of the two boxes, whatever stands between."""
    source, target = tunnel.source.rect, tunnel.target.rect
    down = source.y < target.y
    start = (source.middle[0], source.bottom if down else source.y)
    return [start, (target.middle[0], target.y if down else target.bottom)]


def _without_stops(points: list[Point]) -> list[Point]:
    """The same line without points in the middle of a straight part."""
    kept: list[Point] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) > 1 and (kept[-2][0] == kept[-1][0] == point[0] or kept[-2][1] == kept[-1][1] == point[1]):
            kept.pop()
        kept.append(point)
    return kept


_State = tuple[int, int, bool]  # x and y as positions in the grid, and whether the last step was vertical


class _Grid:
    """Vertical and horizontal lines on which a path may run, and what each step costs beyond its length."""

    def __init__(self, things: Iterable[Rect], points: Iterable[Point], edges: Iterable[float]) -> None:
        xs: set[float] = set()
        ys: set[float] = set(edges)
        for rect in things:
            for lane in LANES:
                xs |= {rect.x - lane, rect.right + lane}
                ys |= {rect.y - lane, rect.bottom + lane}
        for x, y in points:
            xs.add(x)
            ys.add(y)
        self.xs, self.ys = sorted(xs), sorted(ys)
        self.across = [[0.0] * len(self.ys) for _ in self.xs]  # step from (i, j) to (i + 1, j)
        self.down = [[0.0] * len(self.ys) for _ in self.xs]  # step from (i, j) to (i, j + 1)

    def block(self, rect: Rect, *, across: bool, down: bool) -> None:
        """Forbids steps that come nearer than `CLEAR` to a rectangle."""
        near = rect.grown(CLEAR)
        if across:
            for i in self._steps(self.xs, near.x, near.right):
                for j in range(bisect_right(self.ys, near.y), bisect_left(self.ys, near.bottom)):
                    self.across[i][j] = BLOCKED
        if down:
            for i in range(bisect_right(self.xs, near.x), bisect_left(self.xs, near.right)):
                for j in self._steps(self.ys, near.y, near.bottom):
                    self.down[i][j] = BLOCKED

    def charge_across(self, bar: Rect) -> None:
        """Makes it dear to cross a bar from above or below."""
        for i in range(bisect_left(self.xs, bar.x), bisect_right(self.xs, bar.right)):
            for j in self._steps(self.ys, bar.y, bar.bottom):
                self.down[i][j] += BAR_CROSSING

    def draw(self, points: Sequence[Point]) -> None:
        """Takes note of a line: none may run along it, each that crosses it pays."""
        for (x1, y1), (x2, y2) in pairwise(points):
            rect = Rect(min(x1, x2), min(y1, y2), abs(x1 - x2), abs(y1 - y2))
            if x1 == x2:
                self.block(Rect(x1, rect.y - CLEAR, 0, rect.height + 2 * CLEAR), across=False, down=True)
                for i in self._steps(self.xs, x1 - 0.1, x1 + 0.1):
                    for j in range(bisect_left(self.ys, rect.y), bisect_right(self.ys, rect.bottom)):
                        self.across[i][j] += CROSSING
            else:
                self.block(Rect(rect.x - CLEAR, y1, rect.width + 2 * CLEAR, 0), across=True, down=False)
                for j in self._steps(self.ys, y1 - 0.1, y1 + 0.1):
                    for i in range(bisect_left(self.xs, rect.x), bisect_right(self.xs, rect.right)):
                        self.down[i][j] += CROSSING

    def reachable(self, bar: Bar) -> list[Point]:
        """Points of the grid on the long edges of a bar."""
        low, high = bisect_left(self.xs, bar.x + 6), bisect_right(self.xs, bar.rect.right - 6)
        return [(x, y) for x in self.xs[low:high] for y in (bar.y, bar.rect.bottom)]

    def search(self, starts: Sequence[Point], goals: Sequence[Point]) -> list[Point] | None:
        """The cheapest path from a start to a goal, or None."""
        x_index = {x: i for i, x in enumerate(self.xs)}
        y_index = {y: j for j, y in enumerate(self.ys)}
        ends = {(x_index[x], y_index[y]) for x, y in goals if x in x_index and y in y_index}
        low_x, high_x = min(x for x, _ in goals), max(x for x, _ in goals)
        low_y, high_y = min(y for _, y in goals), max(y for _, y in goals)

        def least(i: int, j: int) -> float:
            x, y = self.xs[i], self.ys[j]
            return max(low_x - x, 0, x - high_x) + max(low_y - y, 0, y - high_y)

        best: dict[_State, float] = {}
        before: dict[_State, _State] = {}
        heap: list[tuple[float, float, int, int, bool]] = []
        for x, y in starts:
            i, j = x_index[x], y_index[y]
            for vertical in (False, True):
                best[(i, j, vertical)] = 0.0
                heap.append((least(i, j), 0.0, i, j, vertical))
        heapq.heapify(heap)
        while heap:
            _, cost, i, j, vertical = heapq.heappop(heap)
            state = (i, j, vertical)
            if cost > best[state]:
                continue
            if (i, j) in ends:
                return self._path(state, before)
            for next_i, next_j, along, step in self._neighbours(i, j):
                total = cost + step + (0 if along == vertical else BEND)
                following = (next_i, next_j, along)
                if total < best.get(following, BLOCKED):
                    best[following] = total
                    before[following] = state
                    heapq.heappush(heap, (total + least(next_i, next_j), total, next_i, next_j, along))
        return None

    def _neighbours(self, i: int, j: int) -> Iterable[tuple[int, int, bool, float]]:
        xs, ys = self.xs, self.ys
        if i and (extra := self.across[i - 1][j]) < BLOCKED:
            yield i - 1, j, False, xs[i] - xs[i - 1] + extra
        if i + 1 < len(xs) and (extra := self.across[i][j]) < BLOCKED:
            yield i + 1, j, False, xs[i + 1] - xs[i] + extra
        if j and (extra := self.down[i][j - 1]) < BLOCKED:
            yield i, j - 1, True, ys[j] - ys[j - 1] + extra
        if j + 1 < len(ys) and (extra := self.down[i][j]) < BLOCKED:
            yield i, j + 1, True, ys[j + 1] - ys[j] + extra

    def _path(self, state: _State, before: dict[_State, _State]) -> list[Point]:
        path = [(self.xs[state[0]], self.ys[state[1]])]
        while state in before:
            state = before[state]
            path.append((self.xs[state[0]], self.ys[state[1]]))
        return path[::-1]

    @staticmethod
    def _steps(lines: list[float], low: float, high: float) -> range:
        """The steps between neighbouring grid lines that share more than a point with low..high."""
        return range(max(0, bisect_right(lines, low) - 1), min(len(lines) - 1, bisect_left(lines, high)))


BLOCKED = float("inf")
