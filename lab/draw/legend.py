"""The legend: a sample and a word for each sign that the picture uses, and for no other."""

from __future__ import annotations

from dataclasses import dataclass

from lab.draw.shape import ChipKind, Picture
from lab.draw.style import chip_class
from lab.draw.text_width import sans_width
from lab.topology.model import Protocol, Role

SIZE = 11.0
LINE = 24.0
SAMPLE = 30.0  # width of a sample
GAP = 22.0  # between entries
RULE = 16.0  # between the rule and the first entries


@dataclass(frozen=True, slots=True)
class Legend:
    """Entries as (sign, words)."""

    entries: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, picture: Picture) -> Legend:
        """The entries that a picture needs."""
        kinds = {chip.kind for box in picture.boxes for chip in box.chips}
        roles = {box.group.first.role for box in picture.boxes}
        udp = any(p.protocol is Protocol.UDP for b in picture.boxes for s in b.group.first.services for p in s.ports)
        wanted = [
            (Role.ROUTER in roles, "router", "router"),
            (Role.HOST in roles, "host", "host"),
            (any(len(box.group.nodes) > 1 for box in picture.boxes), "stack", "several equal nodes"),
            (ChipKind.NAT in kinds, "NAT", "IPv4 masquerade"),
            (ChipKind.FIREWALL in kinds, "firewall", "refuses new connections"),
            (ChipKind.FORWARD in kinds, "forward", "port forward"),
            (ChipKind.IMAGE in kinds, "image", "container image"),
            (ChipKind.SERVICE in kinds, "service", "service and its ports (TCP unless /udp)" if udp else "service and its TCP ports"),
            (bool(picture.tunnels), "tunnel", "opens a port on another node"),
            (any(bar.network.point_to_point for bar in picture.bars), "cable", "point-to-point link"),
        ]
        return cls(tuple((sign, words) for is_used, sign, words in wanted if is_used))

    @property
    def least_width(self) -> float:
        return max((self._width(entry) for entry in self.entries), default=0.0)

    def height(self, width: float) -> float:
        """Pixels that the legend takes when it is `width` wide."""
        return RULE + LINE * len(self._rows(width))

    def draw(self, x: float, y: float, width: float) -> list[str]:
        """SVG elements, the top left corner at (x, y)."""
        parts = [f'<g class="legend"><path class="rule" d="M{x:.1f} {y:.1f}h{width:.1f}"/>']
        for number, row in enumerate(self._rows(width)):
            left, middle = x, y + RULE + LINE * number + 4
            for entry in row:
                parts.append(_sample(entry[0], left, middle))
                at = left + _sample_width(entry[0]) + 7
                parts.append(f'<text x="{at:.1f}" y="{middle + SIZE * 0.36:.1f}">{entry[1]}</text>')
                left += self._width(entry) + GAP
        return [*parts, "</g>"]

    def _rows(self, width: float) -> list[list[tuple[str, str]]]:
        rows: list[list[tuple[str, str]]] = []
        used = 0.0
        for entry in self.entries:
            if not rows or used + GAP + self._width(entry) > width:
                rows.append([])
                used = -GAP
            rows[-1].append(entry)
            used += GAP + self._width(entry)
        return rows

    @staticmethod
    def _width(entry: tuple[str, str]) -> float:
        return _sample_width(entry[0]) + 7 + sans_width(entry[1], SIZE)


def _sample_width(sign: str) -> float:
    if sign in ("NAT", "firewall"):
        return sans_width(sign, 10.5, bold=True) + 12
    return SAMPLE


def _sample(sign: str, x: float, y: float) -> str:
    width = _sample_width(sign)
    box = f'x="{x:.1f}" y="{y - 8.5:.1f}" width="{width:.1f}" height="17"'
    pill = f'x="{x:.1f}" y="{y - 7:.1f}" width="{width:.1f}" height="14" rx="7"'
    if sign in ("NAT", "firewall"):
        kind = chip_class(ChipKind.NAT if sign == "NAT" else ChipKind.FIREWALL)
        text = f'<text x="{x + width / 2:.1f}" y="{y + 3.8:.1f}" style="fill:#fff;font-size:10.5px">{sign}</text>'
        return f'<g class="chip {kind}"><rect {box} rx="3"/>{text}</g>'
    if sign == "tunnel":
        end = x + width
        head = f'<path class="head" d="M{end:.1f} {y:.1f}l-8 -4v8Z"/>'
        return f'<path class="dash" d="M{x:.1f} {y:.1f}h{width - 6:.1f}"/>{head}'
    if sign == "cable":
        line = f'<path class="link" stroke="#57606a" d="M{x:.1f} {y:.1f}h{width:.1f}"/>'
        label = f'<rect x="{x + 6:.1f}" y="{y - 6:.1f}" width="{width - 12:.1f}" height="12" rx="6" fill="#fff" stroke="#57606a"/>'
        return line + label
    if sign == "stack":
        behind = f'<rect class="behind" x="{x + 3:.1f}" y="{y - 5.5:.1f}" width="{width - 3:.1f}" height="15" rx="4"/>'
        front = f'<rect class="box" x="{x:.1f}" y="{y - 8.5:.1f}" width="{width - 3:.1f}" height="15" rx="4"/>'
        return f'<g class="node host">{behind}{front}</g>'
    if sign in ("router", "host"):
        return f'<g class="node {sign}"><rect class="box" {box} rx="{8 if sign == "router" else 4}"/></g>'
    return f'<g class="chip chip-{sign}"><rect {pill}/></g>'
