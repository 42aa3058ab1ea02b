"""What stands in a node's box and how much room it takes: the name, badges, port forwards and services."""

from __future__ import annotations

from ipaddress import IPv4Address

from lab.draw.fold import Group, has_firewall
from lab.draw.shape import Box, Chip, ChipKind, Rect
from lab.draw.text_width import sans_width
from lab.topology.model import Nat, Port, Protocol, Service

NAME_SIZE = 13.0
NAME_LINE = 17.0
CHIP_SIZE = 10.5
CHIP_HEIGHT = 17.0
CHIP_PAD = 7.0  # inside a pill, left and right
CHIP_GAP = 4.0
PAD = 11.0  # inside a box, all sides
ICON = 22.0  # room for the icon left of the name
LEAST_WIDTH = 96.0
LONGEST_NAME = 28  # characters on one line
USUAL_WIDTH = 170.0  # pills wrap at this unless the box is wider for other reasons
MOST_PORTS = 4  # of one service; the rest shows when pointed at


def make_box(group: Group, names: dict[IPv4Address, str]) -> Box:
    """A box at no place yet, as narrow as its content allows; `names` says whose an address is."""
    name_lines = _broken(group.name)
    name_width = ICON + max(sans_width(line, NAME_SIZE, bold=True) for line in name_lines)
    badges, services = _badges(group), _services(group, names)
    widths = [_chip_width(*chip) for chip in (*badges, *services)]
    limit = max([name_width, USUAL_WIDTH - 2 * PAD, *widths])
    inner = max([name_width, *_row_widths(badges, limit), *_row_widths(services, limit)])
    width = max(inner + 2 * PAD, LEAST_WIDTH)
    chips: list[Chip] = []
    y = PAD + NAME_LINE * len(name_lines)
    for wave in (badges, services):
        for row in _rows(wave, inner):
            y += CHIP_GAP
            x = (width - _row_width(row)) / 2
            for kind, text, detail in row:
                chip_width = _chip_width(kind, text, detail)
                chips.append(Chip(kind, text, detail, Rect(x, y, chip_width, CHIP_HEIGHT)))
                x += chip_width + CHIP_GAP
            y += CHIP_HEIGHT
    return Box(group, name_lines, tuple(chips), width, y + PAD - 2)


Content = tuple[ChipKind, str, str]


def _badges(group: Group) -> list[Content]:
    node = group.first
    badges: list[Content] = []
    if node.nat:
        badges.append((ChipKind.NAT, "NAT", _nat_detail(node.nat)))
    if has_firewall(node):
        wall = node.firewall
        where = f"arriving on {wall.outside}" if wall.outside else "on any interface"
        detail = f"firewall: new connections {where}: input {wall.input}, forward {wall.forward}"
        badges.append((ChipKind.FIREWALL, "firewall", f"{detail}, {len(wall.allow)} allowed"))
    if node.image:
        image = node.image if len(node.image) <= LONGEST_NAME else f"…{node.image[-LONGEST_NAME:]}"
        badges.append((ChipKind.IMAGE, image, f"container image {node.image}"))
    return badges


def _nat_detail(nat: Nat) -> str:
    does = nat.behaviour
    return f"NAT towards {nat.outside}: mapping {does.mapping}, filtering {does.filtering}, by {nat.engine}"


def _services(group: Group, names: dict[IPv4Address, str]) -> list[Content]:
    node = group.first
    chips: list[Content] = []
    for forward in node.nat.forwards if node.nat else ():
        to = names.get(forward.address, str(forward.address))
        port = port_text(Port(forward.protocol, forward.port))
        to_port = "" if forward.to_port == forward.port else f":{forward.to_port}"
        detail = f"port forward: {forward.protocol} {forward.port} to {forward.address}:{forward.to_port}"
        to = to if len(to) <= LONGEST_NAME else f"{to[:LONGEST_NAME]}…"
        chips.append((ChipKind.FORWARD, f"{port} → {to}{to_port}", detail))
    return [
        *chips,
        *((ChipKind.SERVICE, _service_text(service), _service_detail(service)) for service in node.services),
    ]


def port_text(port: Port) -> str:
    """A port as the legend explains it: a bare number is TCP."""
    return str(port.number) if port.protocol is Protocol.TCP else f"{port.number}/{port.protocol}"


def _service_text(service: Service) -> str:
    ports = [port_text(port) for port in service.ports]
    if len(ports) > MOST_PORTS:
        ports = [*ports[: MOST_PORTS - 1], f"+{len(ports) - MOST_PORTS + 1}"]
    return " ".join([service.name, *ports])


def _service_detail(service: Service) -> str:
    ports = ", ".join(f"{port.protocol} {port.number}" for port in service.ports)
    return f"service {service.name}: {ports}" if ports else f"service {service.name}"


def _broken(name: str) -> tuple[str, ...]:
    """The name in lines, broken after a hyphen or space where there is one."""
    lines: list[str] = []
    while len(name) > LONGEST_NAME:
        cut = max(name.rfind("-", 0, LONGEST_NAME), name.rfind(" ", 0, LONGEST_NAME)) + 1
        cut = cut if cut > LONGEST_NAME // 3 else LONGEST_NAME
        lines.append(name[:cut].rstrip(" "))
        name = name[cut:]
    return (*lines, name)


def _chip_width(_kind: ChipKind, text: str, _detail: str) -> float:
    return sans_width(text, CHIP_SIZE, bold=True) + 2 * CHIP_PAD


def _row_width(row: list[Content]) -> float:
    return sum(_chip_width(*chip) for chip in row) + CHIP_GAP * (len(row) - 1)


def _row_widths(chips: list[Content], limit: float) -> list[float]:
    return [_row_width(row) for row in _rows(chips, limit)]


def _rows(chips: list[Content], limit: float) -> list[list[Content]]:
    rows: list[list[Content]] = []
    for chip in chips:
        if rows and _row_width([*rows[-1], chip]) <= limit + 0.01:
            rows[-1].append(chip)
        else:
            rows.append([chip])
    return rows
