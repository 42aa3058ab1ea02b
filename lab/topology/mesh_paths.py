"""Who can send to whom as the topology stands: packets followed hop by hop along routes, through NAT only outward."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lab.topology.draft import NodeDraft
    from lab.topology.model import Address, Interface, Route


class Paths:
    """The ways of packets between nodes; firewalls on the way are not looked at."""

    def __init__(self, nodes: Mapping[str, NodeDraft], routes: Mapping[str, Iterable[Route]]) -> None:
        self._nodes = nodes
        self._routes = {name: tuple(each) for name, each in routes.items()}
        self._owner = {
            (interface.network, address.ip): node.name
            for node in nodes.values()
            for interface in node.interfaces
            for address in interface.addresses
        }

    def arrival(self, start: NodeDraft, address: Address) -> str | None:
        """The network by which a packet arrives at the node that has the address; "" at its own, None if lost."""
        here, arrived = start, ""
        for _ in range(len(self._nodes)):
            if address in here.addresses():
                return arrived
            if here is not start and here.role != "router":
                return None
            way = self._next(here, address)
            if way is None:
                return None
            interface, via = way
            nat = here.written.nat
            if nat is not None and address.version == 4 and arrived == nat.outside != interface.network:
                return None  # from outside in
            following = self._owner.get((interface.network, via))
            if following is None:
                return None
            here, arrived = self._nodes[following], interface.network
        return None

    def reachable(self, start: NodeDraft, to: NodeDraft) -> tuple[Address, ...]:
        """The addresses of `to` that packets from `start` arrive at."""
        return tuple(address for address in to.addresses() if self.arrival(start, address) is not None)

    def arrivals(self, start: NodeDraft, to: NodeDraft) -> set[str]:
        """The networks by which packets from `start` arrive at `to`."""
        found = (self.arrival(start, address) for address in to.addresses())
        return {network for network in found if network is not None}

    def _next(self, node: NodeDraft, address: Address) -> tuple[Interface, Address] | None:
        """The interface that a packet leaves by, and the neighbour that it goes to."""
        for interface in node.interfaces:
            if any(own.version == address.version and address in own.network for own in interface.addresses):
                return interface, address
        fitting = [
            route
            for route in self._routes[node.name]
            if route.destination.version == address.version and address in route.destination
        ]
        if not fitting:
            return None
        best = max(fitting, key=lambda route: route.destination.prefixlen)
        return next((each, best.via) for each in node.interfaces if each.name == best.interface)


def shared_addresses(node: NodeDraft, neighbour: NodeDraft) -> tuple[Address, ...]:
    """The addresses of `neighbour` on networks that both are attached to."""
    own = {interface.network for interface in node.interfaces}
    return tuple(
        address.ip for interface in neighbour.interfaces if interface.network in own for address in interface.addresses
    )


def barred(node: NodeDraft, port: int, *, to_some: bool = False) -> set[str]:
    """The networks from which the node's own firewall lets nobody in, or not all (`to_some`), at a UDP port."""
    nat, firewall = node.written.nat, node.written.firewall
    policy = firewall.input if firewall is not None else None
    if (policy or ("accept" if nat is None else "drop")) == "accept":
        return set()
    allowed = firewall.allow if firewall is not None else []
    if any(each.udp == port and each.to is None and not (to_some and each.source) for each in allowed):
        return set()
    outside = (firewall.outside if firewall is not None else None) or (nat.outside if nat is not None else None)
    return {interface.network for interface in node.interfaces} if outside is None else {outside}
