"""A picture as one SVG file: its own light card, so that it reads on paper and on light and dark pages alike."""

from __future__ import annotations

from html import escape

from lab.draw.box import CHIP_SIZE, ICON, NAME_LINE, NAME_SIZE, PAD
from lab.draw.layout import BAR_NAME_SIZE, BAR_PREFIX_SIZE, CLOUD, LABEL_LINE, LABEL_SIZE, MARGIN, lay_out
from lab.draw.legend import Legend
from lab.draw.shape import Bar, Box, ChipKind, Link, Picture, Point, Tunnel
from lab.draw.style import CARD, INK, NETWORK_HUES, PAPER, STYLE, chip_class
from lab.draw.text_width import sans_width
from lab.topology.model import Role, Topology

HEAD = 66.0  # height of the title
TITLE_SIZE = 20.0


def to_svg(topology: Topology) -> str:
    """The topology drawn as network people draw: networks as bars, the internet on top. Same topology, same bytes."""
    picture = lay_out(topology)
    legend = Legend.of(picture)
    title = sans_width(topology.name, TITLE_SIZE, bold=True)
    subtitle = _counts(topology)
    least = max(title, sans_width(subtitle, 12), legend.least_width) + 2 * MARGIN
    width = max(picture.width, least)
    legend_height = legend.height(width - 2 * MARGIN)
    height = HEAD + picture.height + legend_height + MARGIN
    shift = (width - picture.width) / 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}"'
            f' viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{_t(topology.name)}: network topology</title>',
            f'<desc id="desc">{_t(_description(topology, subtitle))}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{_n(width - 1)}" height="{_n(height - 1)}" rx="10"/>',
            f'<text class="heading" x="{_n(MARGIN)}" y="36">{_t(topology.name)}</text>',
            f'<text class="counts" x="{_n(MARGIN)}" y="54">{_t(subtitle)}</text>',
            f'<g transform="translate({_n(shift)} {_n(HEAD)})">',
            *_body(picture),
            "</g>",
            *legend.draw(MARGIN, HEAD + picture.height + MARGIN * 0.7, width - 2 * MARGIN),
            "</svg>",
            "",
        ]
    )


def _counts(topology: Topology) -> str:
    services = sum(len(node.services) for node in topology.nodes)
    counted = [(len(topology.nodes), "node"), (len(topology.networks), "network"), (services, "service")]
    return " · ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted)


def _description(topology: Topology, counts: str) -> str:
    networks = (
        f"{network.name} ({', '.join(str(prefix) for prefix in network.prefixes) or 'no prefix'})"
        for network in topology.networks
    )
    return f"{counts}. Networks: {'; '.join(networks) or 'none'}."


def _body(picture: Picture) -> list[str]:
    lines: list[str] = []
    for link in picture.links:
        lines += _link_line(link)
    for bar in picture.bars:
        lines += _bar(bar)
    for link in picture.links:
        lines += _link_ends(link)
    for tunnel in picture.tunnels:
        lines += _tunnel(tunnel)
    for box in picture.boxes:
        lines += _box(box)
    return lines


def _link_line(link: Link) -> list[str]:
    node, network = link.box.group.first.name, link.bar.network.name
    return [
        f'<path class="link" data-link="{_t(node)} {_t(link.interface.name)} {_t(network)}"'
        f' stroke="{NETWORK_HUES[link.bar.hue].line}" d="{_path(link.points)}"/>'
    ]


def _link_ends(link: Link) -> list[str]:
    """The dot on the bar, and the addresses on the line."""
    parts = [f'<g class="address" data-interface="{_t(link.interface.name)}"><title>{_t(link.detail)}</title>']
    if not link.bar.network.point_to_point:
        x, y = link.points[-1]
        parts.append(f'<circle cx="{_n(x)}" cy="{_n(y)}" r="3.2" fill="{NETWORK_HUES[link.bar.hue].line}"/>')
    label = link.label
    if link.lines:
        parts.append(f'<rect x="{_n(label.x)}" y="{_n(label.y)}" width="{_n(label.width)}" height="{_n(label.height)}" fill="{CARD}"/>')
    for number, line in enumerate(link.lines):
        y = label.y + LABEL_LINE * number + LABEL_SIZE - 0.5
        parts.append(f'<text x="{_n(label.middle[0])}" y="{_n(y)}">{_t(line)}</text>')
    return [*parts, "</g>"]


def _bar(bar: Bar) -> list[str]:
    network, hue, rect, text = bar.network, NETWORK_HUES[bar.hue], bar.rect, bar.text_rect
    kind = "internet" if network.internet else "cable" if network.point_to_point else "switch"
    fill = hue.line if network.internet else CARD if network.point_to_point else hue.tint
    ink = PAPER if network.internet else INK
    prefixes = ", ".join(str(prefix) for prefix in network.prefixes) or "no prefix"
    parts = [
        f'<g class="network {kind}" data-network="{_t(network.name)}">',
        f"<title>{_t(network.name)}: {_t(prefixes)}, MTU {network.mtu}</title>",
        f'<rect x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" height="{_n(rect.height)}"'
        f' rx="{_n(rect.height / 2 if kind != "switch" else 6)}" fill="{fill}" stroke="{hue.line}"/>',
    ]
    x, y = text.x, rect.middle[1] + BAR_NAME_SIZE * 0.35
    if network.internet:
        parts.append(f'<path transform="translate({_n(x)} {_n(rect.middle[1] - 7)})" fill="{PAPER}" d="{CLOUD_PATH}"/>')
        x += CLOUD
    parts.append(f'<text class="name" fill="{ink}" x="{_n(x)}" y="{_n(y)}">{_t(bar.lines[0])}</text>')
    if bar.lines[1]:
        x += sans_width(bar.lines[0], BAR_NAME_SIZE, bold=True) + 10
        shown = "  ".join(bar.lines[1].split())
        parts.append(
            f'<text class="prefix" fill="{ink}" font-size="{BAR_PREFIX_SIZE}" x="{_n(x)}" y="{_n(y)}"'
            f' xml:space="preserve">{_t(shown)}</text>'
        )
    return [*parts, "</g>"]


def _tunnel(tunnel: Tunnel) -> list[str]:
    source, target = tunnel.source.group.first.name, tunnel.target.group.first.name
    return [
        f'<g class="tunnel" data-tunnel="{_t(source)} {_t(target)}"><title>{_t(tunnel.detail)}</title>',
        f'<path class="halo" d="{_path(tunnel.points)}"/>',
        f'<path class="dash" d="{_path(tunnel.points)}"/>',
        _arrow(*tunnel.points[-2:]),
        "</g>",
    ]


def _box(box: Box) -> list[str]:
    node, rect = box.group.first, box.rect
    names = " ".join(node.name for node in box.group.nodes)
    size = f'width="{_n(rect.width)}" height="{_n(rect.height)}"'
    corner = 12 if node.role is Role.ROUTER else 5
    parts = [
        f'<g class="node {node.role}" data-nodes="{_t(names)}">',
        f"<title>{_t(box.group.name)}: {node.role}</title>",
    ]
    if len(box.group.nodes) > 1:
        parts += [
            f'<rect class="behind" x="{_n(rect.x + off)}" y="{_n(rect.y + off)}" {size} rx="{corner}"/>' for off in (6.0, 3.0)
        ]
    parts.append(f'<rect class="box" x="{_n(rect.x)}" y="{_n(rect.y)}" {size} rx="{corner}"/>')
    widest = max(sans_width(line, NAME_SIZE, bold=True) for line in box.name_lines)
    left = rect.x + (rect.width - widest - ICON) / 2
    icon = ROUTER_ICON if node.role is Role.ROUTER else HOST_ICON
    parts.append(f'<path class="icon" transform="translate({_n(left)} {_n(rect.y + PAD + 0.5)})" d="{icon}"/>')
    for number, line in enumerate(box.name_lines):
        y = rect.y + PAD + NAME_LINE * number + NAME_SIZE - 0.5
        parts.append(f'<text class="name" x="{_n(left + ICON)}" y="{_n(y)}">{_t(line)}</text>')
    for chip in box.chips:
        x, y = rect.x + chip.rect.x, rect.y + chip.rect.y
        radius = 3 if chip.kind in (ChipKind.NAT, ChipKind.FIREWALL) else chip.rect.height / 2
        parts += [
            f'<g class="chip {chip_class(chip.kind)}"><title>{_t(chip.detail)}</title>'
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(chip.rect.width)}" height="{_n(chip.rect.height)}" rx="{_n(radius)}"/>'
            f'<text x="{_n(x + chip.rect.width / 2)}" y="{_n(y + chip.rect.height / 2 + CHIP_SIZE * 0.36)}">{_t(chip.text)}</text></g>'
        ]
    return [*parts, "</g>"]


def _arrow(before: Point, tip: Point) -> str:
    (x1, y1), (x2, y2) = before, tip
    length = max(1e-6, ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    left = (x2 - 8 * ux - 4 * uy, y2 - 8 * uy + 4 * ux)
    right = (x2 - 8 * ux + 4 * uy, y2 - 8 * uy - 4 * ux)
    return f'<path class="head" d="{_path([tip, left, right])}Z"/>'


def _path(points: list[Point]) -> str:
    return "M" + " L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _n(number: float) -> str:
    """A number as short as one decimal allows."""
    return f"{number:.1f}".removesuffix(".0").replace("-0", "0") if abs(number) < 0.05 else f"{number:.1f}".removesuffix(".0")


def _t(text: str) -> str:
    return escape(text, quote=True)


CLOUD_PATH = "M4.5 13a4 4 0 0 1-.6-7.9A5.2 5.2 0 0 1 14 4.6a4.2 4.2 0 0 1 .8 8.4Z"
HOST_ICON = "M1 1h14v9.5H1ZM8 10.500v3M4.500 13.500h7"
ROUTER_ICON = "M8 .8a7.200 7.200 0 1 0 .01 0ZM3.800 6h6.700l-2-2M12.200 10H5.500l2 2"
