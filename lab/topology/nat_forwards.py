"""Port forwards as written -> as meant: which outside port leads to which inside address."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from lab.topology.directory import as_address
from lab.topology.faults import shown
from lab.topology.model import PortForward, Protocol

if TYPE_CHECKING:
    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.file import ForwardFile, NatFile
    from lab.topology.source import At


def resolve_forwards(
    node: NodeDraft, written: NatFile, at: At, directory: Directory, faults: list[Fault]
) -> tuple[PortForward, ...]:
    """One for each protocol and outside port, in the order of the file."""
    forwards: dict[tuple[Protocol, int], PortForward] = {}
    for index, forward in enumerate(written.forwards):
        place = at / index
        protocol = Protocol.TCP if forward.tcp is not None else Protocol.UDP
        port = forward.tcp or forward.udp or 0
        if (protocol, port) in forwards:
            faults.append(place.fault(f"a second forward of {protocol}/{port}", "one for each port"))
        target = _target(node, written.outside, forward, place / "to", directory, faults)
        if target is not None:
            forwards[protocol, port] = PortForward(protocol, port, target[0], target[1] or port)
    return tuple(forwards.values())


def _target(
    node: NodeDraft, outside: str, forward: ForwardFile, at: At, directory: Directory, faults: list[Fault]
) -> tuple[IPv4Address, int | None] | None:
    allowed = '`to` is a node or an IPv4 address, with a port if it differs, as "nas:443" or "192.168.1.10"'
    match = re.match(r"([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?\Z", forward.to)
    port = int(match[2]) if match and match[2] else None
    if match is None or (port is not None and not 1 <= port <= 65535):
        faults.append(at.fault(shown(forward.to), allowed))
        return None
    address = as_address(match[1])
    if isinstance(address, IPv4Address):
        if not directory.is_on_a_network(address):
            faults.append(at.fault(f"{address}, which is in no network's prefix", allowed))
        return address, port
    target = directory.node(match[1], at, faults, or_else="or an IPv4 address")
    if target is None:
        return None
    inside = {interface.network for interface in node.interfaces} - {outside}
    found = [
        (i.network, a.ip) for i in target.interfaces for a in i.addresses if a.version == 4 and i.network != outside
    ]
    if not found:
        faults.append(at.fault(f"'{target.name}' has no IPv4 address inside", allowed))
        return None
    found.sort(key=lambda entry: entry[0] not in inside)  # stable: on a network of the router's own first
    return IPv4Address(found[0][1]), port
