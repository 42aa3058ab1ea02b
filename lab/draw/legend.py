"""The legend: a sample and a word for each sign that the picture uses, and for no other."""

from __future__ import annotations

from dataclasses import dataclass

from lab.draw.box import CHIP_SIZE
from lab.draw.element import element, path, rectangle, words
from lab.draw.shape import ChipKind, Picture, Rect
from lab.draw.style import CARD, chip_class
from lab.draw.text_width import sans_width
from lab.topology.model import Protocol, Role

SIZE = 11.0
LINE = 24.0
SAMPLE = 30.0  # width of a sample
WORD_GAP = 7.0  # between a sample and its words
GAP = 22.0  # between entries
RULE = 16.0  # between the rule and the first entries
BADGES = {"NAT": ChipKind.NAT, "firewall": ChipKind.FIREWALL}

Entry = tuple[str, str]  # sign, words


@dataclass(frozen=True, slots=True)
class Legend:
    """What the signs of a picture mean."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, picture: Picture) -> Legend:
        """The entries that a picture needs."""
        kinds = {chip.kind for box in picture.boxes for chip in box.chips}
        roles = {box.group.first.role for box in picture.boxes}
        ports = [port for box in picture.boxes for service in box.group.first.services for port in service.ports]
        is_udp = any(port.protocol is Protocol.UDP for port in ports)
        ports_words = "service and its ports (TCP unless /udp)" if is_udp else "service and its TCP ports"
        wanted = [
            (Role.ROUTER in roles, "router", "router"),
            (Role.HOST in roles, "host", "host"),
            (any(len(box.group.nodes) > 1 for box in picture.boxes), "stack", "several equal nodes"),
            (ChipKind.NAT in kinds, "NAT", "IPv4 masquerade"),
            (ChipKind.FIREWALL in kinds, "firewall", "refuses new connections"),
            (ChipKind.FORWARD in kinds, "forward", "port forward"),
            (ChipKind.IMAGE in kinds, "image", "container image"),
            (ChipKind.SERVICE in kinds, "service", ports_words if ports else "service"),
            (bool(picture.tunnels), "tunnel", "opens a port on another node"),
            (any(bar.network.point_to_point for bar in picture.bars), "cable", "point-to-point link"),
        ]
        return cls(tuple((sign, meaning) for is_used, sign, meaning in wanted if is_used))

    @property
    def least_width(self) -> float:
        return max((_width(entry) for entry in self.entries), default=0.0)

    def height(self, width: float) -> float:
        """Pixels that the legend takes when it is `width` wide."""
        return RULE + LINE * len(self._rows(width))

    def draw(self, x: float, y: float, width: float) -> str:
        """An SVG group, its top left corner at (x, y)."""
        parts = [element("path", class_="rule", d=path([(x, y), (x + width, y)]))]
        for number, row in enumerate(self._rows(width)):
            left, middle = x, y + RULE + LINE * number + 4
            for sign, meaning in row:
                parts += _sample(sign, Rect(left, middle - 8.5, _sample_width(sign), 17))
                parts.append(words(meaning, left + _sample_width(sign) + WORD_GAP, middle + SIZE * 0.36))
                left += _width((sign, meaning)) + GAP
        return element("g", *parts, class_="legend")

    def _rows(self, width: float) -> list[list[Entry]]:
        rows: list[list[Entry]] = []
        used = 0.0
        for entry in self.entries:
            if not rows or used + GAP + _width(entry) > width:
                rows.append([])
                used = -GAP
            rows[-1].append(entry)
            used += GAP + _width(entry)
        return rows


def _width(entry: Entry) -> float:
    return _sample_width(entry[0]) + WORD_GAP + sans_width(entry[1], SIZE)


def _sample_width(sign: str) -> float:
    return sans_width(sign, CHIP_SIZE, bold=True) + 12 if sign in BADGES else SAMPLE


def _sample(sign: str, rect: Rect) -> list[str]:
    x, y = rect.middle
    if sign in BADGES:
        text = words(sign, x, y + CHIP_SIZE * 0.36)
        return [element("g", rectangle(rect, rx=3), text, class_=f"chip {chip_class(BADGES[sign])}")]
    if sign == "tunnel":
        tip = [(rect.right, y), (rect.right - 8, y - 4), (rect.right - 8, y + 4)]
        line = element("path", class_="dash", d=path([(rect.x, y), (rect.right - 6, y)]))
        return [line, element("path", class_="head", d=path(tip))]
    if sign == "cable":
        line = element("path", class_="link", stroke="#57606a", d=path([(rect.x, y), (rect.right, y)]))
        return [line, rectangle(Rect(rect.x + 6, y - 6, rect.width - 12, 12), rx=6, fill=CARD, stroke="#57606a")]
    if sign == "stack":
        behind = rectangle(Rect(rect.x + 3, rect.y + 3, rect.width - 3, 15), class_="behind", rx=4)
        front = rectangle(Rect(rect.x, rect.y, rect.width - 3, 15), class_="box", rx=4)
        return [element("g", behind, front, class_="node host")]
    if sign in ("router", "host"):
        box = rectangle(rect, class_="box", rx=8 if sign == "router" else 4)
        return [element("g", box, class_=f"node {sign}")]
    pill = rectangle(Rect(rect.x, y - 7, rect.width, 14), rx=7)
    return [element("g", pill, class_=f"chip {chip_class(ChipKind(sign))}")]
