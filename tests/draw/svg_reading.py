"""Reads a picture back from the text of its SVG, so that tests judge what a viewer draws and not what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree as ET

from lab.draw.text_width import mono_width, sans_width

SVG = "{http://www.w3.org/2000/svg}"
SIZES = {"heading": 20.0, "counts": 12.0, "name": 13.0, "prefix": 11.0, "chip": 10.5, "address": 10.5, "legend": 11.0}
Point = tuple[float, float]
Segment = tuple[Point, Point]


@dataclass(frozen=True)
class Area:
    """An upright rectangle in the picture's coordinates."""

    x: float
    y: float
    right: float
    bottom: float

    def overlaps(self, other: Area, slack: float = 0.15) -> bool:
        """Whether they share more than rounding to a tenth of a pixel explains."""
        across = min(self.right, other.right) - max(self.x, other.x)
        down = min(self.bottom, other.bottom) - max(self.y, other.y)
        return across > slack and down > slack

    def holds(self, other: Area, slack: float = 0.15) -> bool:
        left_top = self.x <= other.x + slack and self.y <= other.y + slack
        return left_top and other.right <= self.right + slack and other.bottom <= self.bottom + slack

    def touches(self, point: Point, slack: float = 0.15) -> bool:
        """Whether the point lies on the edge."""
        x, y = point
        inside = self.x - slack <= x <= self.right + slack and self.y - slack <= y <= self.bottom + slack
        deep = self.x + slack < x < self.right - slack and self.y + slack < y < self.bottom - slack
        return inside and not deep

    def crossed_by(self, segment: Segment) -> bool:
        """Whether an upright or level segment runs through the inside."""
        (x1, y1), (x2, y2) = segment
        return self.overlaps(Area(min(x1, x2) - 0.1, min(y1, y2) - 0.1, max(x1, x2) + 0.1, max(y1, y2) + 0.1), 0.3)


@dataclass(frozen=True)
class Text:
    """A line of text, with the most room that it can take."""

    words: str
    area: Area


@dataclass(frozen=True)
class Drawn:
    """A group of the SVG: what it stands for, its main rectangle, its texts."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    area: Area
    texts: tuple[Text, ...]
    chips: tuple[tuple[Area, Text], ...]
    tips: str  # all its tooltips


@dataclass(frozen=True)
class Line:
    """A link or a tunnel."""

    names: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def segments(self) -> list[Segment]:
        return list(pairwise(self.points))


@dataclass(frozen=True)
class Reading:
    """What an SVG shows."""

    width: float
    height: float
    nodes: tuple[Drawn, ...]
    networks: tuple[Drawn, ...]
    addresses: tuple[Drawn, ...]
    links: tuple[Line, ...]
    tunnels: tuple[Line, ...]
    heading: tuple[Text, ...]
    legend: tuple[Text, ...]
    title: str
    description: str


def read_svg(svg: str) -> Reading:
    root = ET.fromstring(svg)  # noqa: S314  our own text
    body = root.find(f"{SVG}g[@transform]")
    children = list(body) if body is not None else []
    shift = _translation(body) if body is not None else (0.0, 0.0)
    legend = root.find(f"{SVG}g[@class='legend']")
    assert legend is not None
    return Reading(
        float(root.attrib["width"]),
        float(root.attrib["height"]),
        tuple(_drawn(group, "data-nodes", shift) for group in children if "data-nodes" in group.attrib),
        tuple(_drawn(group, "data-network", shift) for group in children if "data-network" in group.attrib),
        tuple(_drawn(group, "data-interface", shift) for group in children if "data-interface" in group.attrib),
        tuple(_line(item, "data-link", shift) for item in children if "data-link" in item.attrib),
        tuple(_line(item, "data-tunnel", shift) for item in children if "data-tunnel" in item.attrib),
        tuple(_text(item, item.attrib["class"], (0, 0)) for item in root.findall(f"{SVG}text")),
        tuple(_text(item, "legend", (0, 0)) for item in legend.findall(f"{SVG}text")),
        root.findtext(f"{SVG}title") or "",
        root.findtext(f"{SVG}desc") or "",
    )


def _drawn(group: ET.Element, names: str, shift: Point) -> Drawn:
    rects = [item for item in group.findall(f"{SVG}rect") if item.get("class") != "behind"]
    kind = group.attrib["class"].split()[0]
    texts = (_text(item, item.get("class", kind), shift) for item in group.findall(f"{SVG}text"))
    chips: list[tuple[Area, Text]] = []
    for chip in group.findall(f"{SVG}g"):
        rect, words = chip.find(f"{SVG}rect"), chip.find(f"{SVG}text")
        if rect is not None and words is not None:
            chips.append((_area(rect, shift), _text(words, "chip", shift)))
    area = _area(rects[0], shift) if rects else Area(0, 0, 0, 0)
    tips = "\n".join(item.text or "" for item in group.iter(f"{SVG}title"))
    classes = tuple(group.attrib["class"].split())
    return Drawn(tuple(group.attrib[names].split()), classes, area, tuple(texts), tuple(chips), tips)


def _line(item: ET.Element, names: str, shift: Point) -> Line:
    path = item if item.tag == f"{SVG}path" else item.find(f"{SVG}path[@class='dash']")
    assert path is not None
    points = tuple((x + shift[0], y + shift[1]) for x, y in _points(path.attrib["d"]))
    return Line(tuple(item.attrib[names].split()), points)


def _points(path: str) -> Iterator[Point]:
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path):
        yield float(x), float(y)


def _area(rect: ET.Element, shift: Point) -> Area:
    x, y = float(rect.attrib["x"]) + shift[0], float(rect.attrib["y"]) + shift[1]
    return Area(x, y, x + float(rect.attrib["width"]), y + float(rect.attrib["height"]))


def _text(item: ET.Element, kind: str, shift: Point) -> Text:
    words, size = item.text or "", SIZES[kind]
    width = mono_width(words, size) if kind in ("prefix", "address") else sans_width(words, size, bold=_is_bold(kind))
    x, y = float(item.attrib["x"]) + shift[0], float(item.attrib["y"]) + shift[1]
    left = x - width / 2 if kind in ("chip", "address") else x
    return Text(words, Area(left, y - 0.75 * size, left + width, y + 0.22 * size))


def _is_bold(kind: str) -> bool:
    return kind in ("heading", "name", "chip")


def _translation(group: ET.Element) -> Point:
    x, y = re.findall(r"-?[\d.]+", group.attrib["transform"])
    return float(x), float(y)
