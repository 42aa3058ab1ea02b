"""A router's `nat` as written -> as meant."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from lab.topology.directory import as_address
from lab.topology.faults import listed, shown
from lab.topology.model import Nat, PortForward, Protocol, Role

if TYPE_CHECKING:
    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.file import ForwardFile
    from lab.topology.model import Interface
    from lab.topology.source import At


def resolve_nat(node: NodeDraft, directory: Directory, faults: list[Fault]) -> Nat | None:
    """None without `nat`, or with faults in it."""
    written = node.written.nat
    if written is None:
        return None
    at = node.at / "nat"
    if node.role is not Role.ROUTER and node.is_whole:
        faults.append(at.fault("nat on a host", "`role: router`", of_key=True))
    outside = outside_interface(node, written.outside, at / "outside", faults)
    forwards: dict[tuple[Protocol, int], PortForward] = {}
    for index, forward in enumerate(written.forwards):
        place = at / "forwards" / index
        protocol = Protocol.TCP if forward.tcp is not None else Protocol.UDP
        port = forward.tcp or forward.udp or 0
        if (protocol, port) in forwards:
            faults.append(place.fault(f"a second forward of {protocol}/{port}", "one for each port"))
        target = _target(node, written.outside, forward, place / "to", directory, faults)
        if target is not None:
            forwards[protocol, port] = PortForward(protocol, port, target[0], target[1] or port)
    if outside is None:
        return None
    if not any(address.version == 4 for address in outside.addresses):
        faults.append(
            (at / "outside").fault(f"no IPv4 address on '{written.outside}'", "an outside that NAT can write")
        )
    return Nat(outside.name, tuple(forwards.values()))


def outside_interface(node: NodeDraft, network: str, at: At, faults: list[Fault]) -> Interface | None:
    """The node's interface on the network of the key `outside`."""
    for interface in node.interfaces:
        if interface.network == network:
            return interface
    linked = list(node.written.links)
    if network not in linked and node.is_whole:
        faults.append(
            at.fault(f"no link to {shown(network)}", f"links of the node: {listed(linked)}", near=(network, linked))
        )
    return None


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
