"""A picture as one SVG file: its own light card, so that it reads on paper and on light and dark pages alike."""

from __future__ import annotations

from html import escape

from lab.draw.box import CHIP_SIZE, ICON, NAME_LINE, NAME_SIZE, PAD
from lab.draw.element import element, path, rectangle, tooltip, words
from lab.draw.layout import lay_out
from lab.draw.legend import Legend
from lab.draw.measure import BAR_NAME_SIZE, BAR_WORD_GAP, CLOUD, LABEL_LINE, LABEL_SIZE
from lab.draw.shape import Bar, Box, Chip, ChipKind, Link, Picture, Point, Rect, Tunnel
from lab.draw.style import CARD, INK, NETWORK_HUES, PAPER, STYLE, chip_class
from lab.draw.text_width import sans_width
from lab.topology.model import Role, Topology

MARGIN = 28.0
HEAD = 66.0  # height of the title
TITLE_SIZE = 20.0
COUNTS_SIZE = 12.0
DOT = 3.2  # where a link meets a bar
JOINT = 2.6  # where a tunnel joins another
ROUTER_CORNER, HOST_CORNER, BADGE_CORNER, BAR_CORNER = 12.0, 5.0, 3.0, 6.0
STACK = (6.0, 3.0)  # offsets of the cards behind a group's box


def to_svg(topology: Topology) -> str:
    """The topology drawn as network people draw: networks as bars, the internet on top. Same topology, same bytes."""
    picture = lay_out(topology)
    legend = Legend.of(picture)
    counts = _counts(topology)
    title_width = sans_width(topology.name, TITLE_SIZE, bold=True)
    inner = max(picture.width, title_width, sans_width(counts, COUNTS_SIZE), legend.least_width)
    width = inner + 2 * MARGIN
    foot = HEAD + picture.height + 0.7 * MARGIN
    height = foot + legend.height(inner) + 0.3 * MARGIN
    drawing = element(
        "svg",
        element("title", escape(f"{topology.name}: network topology"), id="title"),
        element("desc", escape(_description(topology, counts)), id="desc"),
        element("style", STYLE),
        rectangle(Rect(0.5, 0.5, width - 1, height - 1), class_="card", rx=10),
        words(topology.name, MARGIN, 36, class_="heading"),
        words(counts, MARGIN, 54, class_="counts"),
        _shifted(_body(picture), (width - picture.width) / 2, HEAD),
        legend.draw(MARGIN, foot, inner),
        xmlns="http://www.w3.org/2000/svg",
        width=width,
        height=height,
        viewBox=f"0 0 {width:.1f} {height:.1f}",
        role="img",
        aria_labelledby="title desc",
    )
    return f"{drawing}\n"


def _counts(topology: Topology) -> str:
    services = sum(len(node.services) for node in topology.nodes)
    counted = [(len(topology.nodes), "node"), (len(topology.networks), "network"), (services, "service")]
    meshes = [f"mesh {mesh.name} {mesh.prefix}" for mesh in topology.meshes]
    return " · ".join([*(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted), *meshes])


def _description(topology: Topology, counts: str) -> str:
    networks = [
        f"{network.name} ({', '.join(map(str, network.prefixes)) or 'no prefix'})" for network in topology.networks
    ]
    return f"{counts}. Networks: {'; '.join(networks) or 'none'}."


def _body(picture: Picture) -> list[str]:
    """From back to front."""
    return [
        *map(_link_line, picture.links),
        *map(_bar, picture.bars),
        *map(_link_end, picture.links),
        *map(_tunnel, picture.tunnels),
        *map(_box, picture.boxes),
    ]


def _shifted(elements: list[str], x: float, y: float, **attributes: str) -> str:
    return element("g", *elements, transform=f"translate({x:.1f} {y:.1f})", **attributes) if elements else ""


def _link_line(link: Link) -> str:
    ends = f"{link.box.group.first.name} {link.interface.name} {link.bar.network.name}"
    return element("path", class_="link", data_link=ends, stroke=NETWORK_HUES[link.bar.hue].line, d=path(link.points))


def _link_end(link: Link) -> str:
    """The dot on the bar, and the addresses on the line."""
    parts = [tooltip(link.detail)]
    if not link.bar.network.point_to_point:
        x, y = link.points[-1]
        parts.append(element("circle", cx=x, cy=y, r=DOT, fill=NETWORK_HUES[link.bar.hue].line))
    if link.lines:
        parts.append(rectangle(link.label, fill=CARD))
    for number, line in enumerate(link.lines):
        parts.append(words(line, link.label.middle[0], link.label.y + LABEL_LINE * number + LABEL_SIZE - 0.5))
    return element("g", *parts, class_="address", data_interface=link.interface.name)


def _bar(bar: Bar) -> str:
    network, hue, rect = bar.network, NETWORK_HUES[bar.hue], bar.rect
    kind, fill, ink, corner = "switch", hue.tint, INK, BAR_CORNER
    if network.internet:
        kind, fill, ink, corner = "internet", hue.line, PAPER, rect.height / 2
    elif network.point_to_point:
        kind, fill, corner = "cable", CARD, rect.height / 2
    prefixes = ", ".join(map(str, network.prefixes)) or "no prefix"
    parts = [
        tooltip(f"{network.name}: {prefixes}, MTU {network.mtu}"),
        rectangle(rect, rx=corner, fill=fill, stroke=hue.line),
    ]
    x, y = bar.text_rect.x, rect.middle[1] + BAR_NAME_SIZE * 0.35
    if network.internet:
        parts.append(_shifted([element("path", fill=PAPER, d=CLOUD_PATH)], x, rect.middle[1] - 7))
        x += CLOUD
    parts.append(words(network.name, x, y, class_="name", fill=ink))
    if bar.prefixes:
        x += sans_width(network.name, BAR_NAME_SIZE, bold=True) + BAR_WORD_GAP
        parts.append(words(bar.prefixes, x, y, class_="prefix", fill=ink))
    return element("g", *parts, class_=f"network {kind}", data_network=network.name)


def _tunnel(tunnel: Tunnel) -> str:
    line = path(tunnel.points)
    x, y = tunnel.points[-1]
    joint = element("circle", class_="head", cx=x, cy=y, r=JOINT)
    head = element("path", class_="head", d=_arrow_head(*tunnel.points[-2:]))
    return element(
        "g",
        tooltip(tunnel.detail),
        element("path", class_="halo", d=line),
        element("path", class_="dash", d=line),
        joint if tunnel.joins else head,
        class_="tunnel",
        data_tunnel=f"{tunnel.source.group.first.name} {tunnel.target.group.first.name}",
    )


def _arrow_head(before: Point, tip: Point) -> str:
    (x1, y1), (x2, y2) = before, tip
    length = max(1e-6, ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    left = (x2 - 8 * ux - 4 * uy, y2 - 8 * uy + 4 * ux)
    right = (x2 - 8 * ux + 4 * uy, y2 - 8 * uy - 4 * ux)
    return f"{path([tip, left, right])}Z"


def _box(box: Box) -> str:
    node, rect = box.group.first, box.rect
    is_router = node.role is Role.ROUTER
    corner = ROUTER_CORNER if is_router else HOST_CORNER
    parts = [tooltip(f"{box.group.name}: {node.role}")]
    for offset in STACK if len(box.group.nodes) > 1 else ():
        behind = Rect(rect.x + offset, rect.y + offset, rect.width, rect.height)
        parts.append(rectangle(behind, class_="behind", rx=corner))
    parts.append(rectangle(rect, class_="box", rx=corner))
    left = rect.x + (rect.width - ICON - max(sans_width(line, NAME_SIZE, bold=True) for line in box.name_lines)) / 2
    icon = element("path", class_="icon", d=ROUTER_ICON if is_router else HOST_ICON)
    parts.append(_shifted([icon], left, rect.y + PAD + 0.5))
    for number, line in enumerate(box.name_lines):
        parts.append(words(line, left + ICON, rect.y + PAD + NAME_LINE * number + NAME_SIZE - 0.5, class_="name"))
    parts += [_chip(chip, rect) for chip in box.chips]
    names = " ".join(node.name for node in box.group.nodes)
    return element("g", *parts, class_=f"node {node.role}", data_nodes=names)


def _chip(chip: Chip, box: Rect) -> str:
    rect = Rect(box.x + chip.rect.x, box.y + chip.rect.y, chip.rect.width, chip.rect.height)
    corner = BADGE_CORNER if chip.kind in (ChipKind.NAT, ChipKind.FIREWALL) else rect.height / 2
    x, y = rect.middle
    return element(
        "g",
        tooltip(chip.detail),
        rectangle(rect, rx=corner),
        words(chip.text, x, y + CHIP_SIZE * 0.36),
        class_=f"chip {chip_class(chip.kind)}",
    )


CLOUD_PATH = "M4.5 13a4 4 0 0 1-.6-7.9A5.2 5.2 0 0 1 14 4.6a4.2 4.2 0 0 1 .8 8.4Z"
HOST_ICON = "M1 1h14v9.5H1ZM8 10.5v3M4.5 13.5h7"
ROUTER_ICON = "M8 .8a7.2 7.2 0 1 0 .01 0ZM3.8 6h6.7l-2-2M12.2 10H5.5l2 2"
