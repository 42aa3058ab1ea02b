"""Addresses as network people write them next to a line: short where the network's bar already says the rest."""

from __future__ import annotations

from ipaddress import IPv4Address

from lab.draw.fold import Group
from lab.topology.model import Address, Interface, InterfaceAddress, Network


def short_lines(group: Group, interface: Interface, network: Network) -> tuple[str, ...]:
    """A line for each address of the interface; for several nodes, from the first one's to the last one's."""
    lines: list[str] = []
    for position, first in enumerate(interface.addresses):
        column = [_same_link(node.interfaces, interface)[position] for node in group.nodes]
        text = _short(first, network)
        if len(column) > 1:
            text = f"{text} … {_tail(column[-1].ip)}" if _is_run(column) else f"{text} …"
        lines.append(text)
    return tuple(lines)


def full_text(group: Group, interface: Interface) -> str:
    """Every address of every node of the group on this link, and the interface."""
    rows: list[str] = []
    for node in group.nodes:
        addresses = " ".join(str(address) for address in _same_link(node.interfaces, interface))
        rows.append(f"{node.name} {interface.name}: {addresses or 'no address'}")
    return "\n".join(rows)


def _same_link(interfaces: tuple[Interface, ...], wanted: Interface) -> tuple[InterfaceAddress, ...]:
    return next(interface.addresses for interface in interfaces if interface.name == wanted.name)


def _short(address: InterfaceAddress, network: Network) -> str:
    """2001:db8:10::a on 2001:db8:10::/64 is …::a: the bar of the network says what comes before."""
    text = str(address.ip)
    if isinstance(address.ip, IPv4Address):
        return text
    for prefix in network.prefixes:
        stem = str(prefix.network_address).removesuffix("::")
        if address.ip in prefix and text.startswith(f"{stem}:"):
            return f"…{text.removeprefix(stem)}"
    return text


def _tail(address: Address) -> str:
    separator = "." if isinstance(address, IPv4Address) else ":"
    return f"{separator}{str(address).rpartition(separator)[2]}"


def _is_run(column: list[InterfaceAddress]) -> bool:
    """Whether only the last part differs, so that first and last say it all."""
    numbers = [int(address.ip) for address in column]
    separator = "." if isinstance(column[0].ip, IPv4Address) else ":"
    stems = {str(address.ip).rpartition(separator)[0] for address in column}
    return numbers == sorted(numbers) and len(stems) == 1
