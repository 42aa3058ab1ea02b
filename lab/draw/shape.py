"""The geometry and the parts of a picture, in pixels, y downwards: made by the layout, written by `svg`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from lab.draw.fold import Group
from lab.topology.model import Interface, Network

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rect:
    """An upright rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> Point:
        return (self.x + self.width / 2, self.y + self.height / 2)

    def grown(self, margin: float) -> Rect:
        """The same rectangle with `margin` more on each side."""
        return Rect(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)

    def overlaps(self, other: Rect) -> bool:
        """Whether the two share more than an edge."""
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom


class ChipKind(StrEnum):
    """What a small pill in a node's box says."""

    NAT = "nat"
    FIREWALL = "firewall"
    IMAGE = "image"
    FORWARD = "forward"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Chip:
    """A pill in a box; `x`, `y` of `rect` are relative to the box."""

    kind: ChipKind
    text: str
    detail: str  # shown when pointed at
    rect: Rect


@dataclass(slots=True)
class Box:
    """A node, or several equal nodes drawn as one."""

    group: Group
    name_lines: tuple[str, ...]
    chips: tuple[Chip, ...]
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def rect(self) -> Rect:
        return Rect(self.x, self.y, self.width, self.height)


@dataclass(slots=True)
class Bar:
    """A network: a horizontal bar, or the label of a line if it is point-to-point."""

    network: Network
    prefixes: str
    hue: int  # index into the palette; 0 is the internet's
    text_width: float
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def rect(self) -> Rect:
        return Rect(self.x, self.y, self.width, self.height)

    @property
    def text_rect(self) -> Rect:
        return Rect(self.x + (self.width - self.text_width) / 2, self.y + 6, self.text_width, self.height - 12)


@dataclass(slots=True)
class Link:
    """A node's line to a network, with the node's addresses there."""

    box: Box
    bar: Bar
    interface: Interface
    lines: tuple[str, ...]  # the addresses, short
    detail: str  # the addresses, in full
    label: Rect
    points: list[Point] = field(default_factory=list)  # from box to bar

    @property
    def width(self) -> float:
        """Of the label."""
        return self.label.width

    @property
    def height(self) -> float:
        """Of the label."""
        return self.label.height


@dataclass(slots=True)
class Tunnel:
    """A service of `source` that is ready on `target`, such as `ssh -R`."""

    source: Box
    target: Box
    detail: str
    points: list[Point] = field(default_factory=list)
    joins: bool = False  # its line ends on that of another tunnel to the same target


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is drawn, placed."""

    width: float
    height: float
    bars: tuple[Bar, ...]
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    tunnels: tuple[Tunnel, ...]
