"""Links -> interfaces: addresses, MAC addresses that no two share, MTU, name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.addresses import assign
from lab.topology.impaired_links import preset_mtu, preset_mtus
from lab.topology.model import Interface

if TYPE_CHECKING:
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.source import At


def attach(nodes: dict[str, NodeDraft], faults: list[Fault]) -> None:
    """Give every node its interfaces, in the order of its links."""
    addresses = assign(nodes, faults)
    cable_mtus = preset_mtus(nodes)
    taken: dict[str, tuple[str, At]] = {}
    for node in nodes.values():
        interfaces: list[Interface] = []
        for link in node.links:
            mac = link.written.mac or automatic_mac(node.number, link.number)
            if mac in taken:
                other, at = taken[mac]
                place = link.at / "mac" if link.written.mac else link.at
                faults.append(
                    place.fault(f"the MAC address {mac}, which '{other}' has at {at.where()}", "each once in a lab")
                )
            taken[mac] = (node.name, link.at / "mac")
            interfaces.append(
                Interface(
                    name=link.written.interface or link.network.name,
                    network=link.network.name,
                    mac=mac,
                    mtu=link.written.mtu or cable_mtus.get(link.network.name) or preset_mtu(link) or link.network.mtu,
                    addresses=addresses[node.name, link.network.name],
                )
            )
        node.interfaces = tuple(interfaces)


def automatic_mac(node: int, link: int) -> str:
    """02:00:00:HH:LL:II, locally administered (IEEE 802-2014 section 8.2): the node's number and the link's, from 1."""
    return f"02:00:00:{node >> 8 & 0xFF:02x}:{node & 0xFF:02x}:{link & 0xFF:02x}"
