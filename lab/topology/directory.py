"""References by name: nodes, their nearest addresses, addresses given instead; a missing name is a fault."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from lab.topology.draft import copies
from lab.topology.faults import listed, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.include import Gathered
    from lab.topology.model import Address, Mesh, Network
    from lab.topology.source import At


class Directory:
    """Who is who in the topology."""

    def __init__(self, gathered: Gathered, networks: dict[str, Network], nodes: dict[str, NodeDraft]) -> None:
        self.gathered = gathered
        self.networks = networks
        self.nodes = nodes
        self.mesh_addresses: dict[str, dict[str, Address]] = {}  # by node, by mesh
        self.mesh_names: dict[str, Address] = {}  # nas.tailnet
        self._internet = next((network.name for network in networks.values() if network.internet), None)

    def node(
        self, name: str, at: At, faults: list[Fault], *, or_else: str = "", of_key: bool = False
    ) -> NodeDraft | None:
        """The node of that name; None if it has faults of its own, which are noted already, or if there is none."""
        node = self.nodes.get(name)
        if node is not None:
            return node if node.is_whole else None
        group = self.gathered.nodes.get(name)
        if name in self.gathered.partial or name.rpartition("-")[0] in self.gathered.partial:
            return None
        if group is not None and group[1] is not None:
            every = copies(name, group[1])
            allowed = f"one of them, {every[0]} to {every[-1]}"
            faults.append(at.fault(f"'{name}', which is {len(every)} nodes", allowed, of_key=of_key))
            return None
        allowed = f"nodes: {listed(self.nodes)}" + (f", {or_else}" if or_else else "")
        faults.append(at.fault(f"no node {shown(name)}", allowed, near=(name, self.nodes), of_key=of_key))
        return None

    def members(self, name: str, at: At, faults: list[Fault]) -> list[str]:
        """The names of a node, or of all copies of a node with `count`."""
        group = self.gathered.nodes.get(name)
        if group is not None and group[1] is not None:
            return copies(name, group[1])
        node = self.node(name, at, faults)
        return [node.name] if node is not None else []

    def nearest(self, node: NodeDraft, seen_from: NodeDraft | None = None) -> list[Address]:
        """A node's addresses on a network that `seen_from` shares, else on the internet, else on its first one."""
        shared = {interface.network for interface in seen_from.interfaces} if seen_from is not None else set()
        with_address = [interface for interface in node.interfaces if interface.addresses]
        ranked = sorted(with_address, key=lambda i: (i.network not in shared, i.network != self._internet))  # stable
        return [address.ip for address in ranked[0].addresses] if ranked else []

    def nearest_usable(self, node: NodeDraft, seen_from: NodeDraft) -> Address | None:
        """One of the nearest addresses in a family that `seen_from` has, IPv4 before IPv6."""
        families = {address.version for address in seen_from.addresses()}
        nearest = sorted(
            self.nearest(node, seen_from), key=lambda address: (address.version not in families, address.version)
        )
        return nearest[0] if nearest else None

    def add_mesh(self, mesh: Mesh) -> None:
        """Make the members' names and addresses in a mesh known."""
        for member in mesh.members:
            self.mesh_addresses.setdefault(member.node, {})[mesh.name] = member.address.ip
            self.mesh_names[f"{member.node}.{mesh.domain}"] = member.address.ip

    def is_on_a_network(self, address: Address) -> bool:
        """Whether some network's prefix holds the address."""
        return any(
            address.version == prefix.version and address in prefix
            for network in self.networks.values()
            for prefix in network.prefixes
        )


def as_address(text: str) -> Address | None:
    """The address that the text is, if it is one."""
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def families(addresses: Iterable[Address]) -> set[int]:
    """4, 6 or both."""
    return {address.version for address in addresses}
