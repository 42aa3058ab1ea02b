"""Routes worked out from the topology: per family, per network rather than per host, shortest way first, never a loop.

A way from network to network leads through a router with an address of the family on both. A router with NAT lets IPv4
pass from its inside to its outside only, so prefixes inside are invisible from outside. A network of its links that has
another way to the internet is an uplink: nothing passes between it and the inside, as only `outside` is translated.
Distances to a destination fall with every hop, which is why following the routes ends; only a router with NAT may take
its outside before a nearer uplink, as no way leads back from there. Ties go to NAT's outside, then to the router, then
the link, that the file names first.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from lab.topology.model import Role, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lab.topology.model import Address, Interface, Network, Prefix

DEFAULT = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class Station:
    """A node as routing sees it."""

    name: str
    role: Role
    interfaces: tuple[Interface, ...]
    nat_outside: str | None  # network


@dataclass(frozen=True, slots=True)
class Hop:
    """The way out of a network: `distance` routers to the destination, the next one at `via`."""

    distance: int
    via: Address | None  # None: the network is the destination


def work_out(
    networks: Iterable[Network], stations: Iterable[Station], seen: Mapping[str, list[Prefix]]
) -> dict[str, tuple[Route, ...]]:
    """Every node's routes beyond the on-link ones: IPv4, then IPv6; default first, then as the networks are ordered.

    `seen` are prefixes, by network, that its nodes have for others beside its own.
    """
    nets, every = list(networks), list(stations)
    maps = [_Map(version, nets, every, seen) for version in (4, 6)]
    return {station.name: tuple(route for each in maps for route in each.routes(station)) for station in every}


class _Map:
    """The ways between networks in one family."""

    def __init__(
        self, version: int, networks: list[Network], stations: list[Station], seen: Mapping[str, list[Prefix]]
    ) -> None:
        self.version = version
        self.prefixes = {
            network.name: [
                prefix for prefix in (*network.prefixes, *seen.get(network.name, ())) if prefix.version == version
            ]
            for network in networks
        }
        self.internet = next((n.name for n in networks if n.internet and self.prefixes[n.name]), None)
        self.exits: dict[str, list[tuple[str, str]]] = {network.name: [] for network in networks}  # A: (router, B)
        routers = [station for station in stations if station.role is Role.ROUTER]
        for router in routers:
            for near, far, _ in self._passages(router):
                self.exits[near].append((router.name, far))
        # entrances[B]: (A, address on A) of every router that leads from A to B, as the file orders them
        self.entrances: dict[str, list[tuple[str, Address]]] = {network.name: [] for network in networks}
        self.uplinks = {router.name: self._uplinks(router) for router in routers}
        for router in routers:
            self._add(router)
        self.hops: dict[str, dict[str, Hop]] = {
            network.name: self._hops_to(network.name) for network in networks if self.prefixes[network.name]
        }
        self.known: dict[tuple[object, ...], list[tuple[Prefix, Address, str]]] = {}

    def routes(self, station: Station) -> list[Route]:
        """The routes of one node; hosts on the same networks share the work."""
        attached = {i.network: i.name for i in station.interfaces if self._address(i) is not None}
        key = (tuple(attached), station.role, station.nat_outside, self.uplinks.get(station.name))
        if key not in self.known:
            self.known[key] = self._ways(list(attached), station)
        return [Route(destination, via, attached[network]) for destination, via, network in self.known[key]]

    def _ways(self, attached: list[str], station: Station) -> list[tuple[Prefix, Address, str]]:
        """Destination, next hop and the network it is on."""
        ways: dict[str, tuple[Address, str]] = {}
        for destination, hops in self.hops.items():
            if destination in attached:
                continue
            reachable = [network for network in attached if network in hops]
            if not reachable:
                continue
            network = self._nearest(reachable, hops, station)
            via = hops[network].via
            if via is not None:
                ways[destination] = (via, network)
        default = self._default(attached, ways, station.role)
        found = [(DEFAULT[self.version], *default)] if default is not None else []
        for destination, way in ways.items():
            if way != default:
                found += [(prefix, *way) for prefix in self.prefixes[destination]]
        return found

    def _nearest(self, reachable: list[str], hops: dict[str, Hop], station: Station) -> str:
        """The network to leave by: the nearest, of equals NAT's outside, else the first.

        In IPv4 NAT's outside goes before an uplink, even a nearer one. A way from outside back through this router
        would lead through its inside, so the outside must be nearer than that.
        """
        outside = station.nat_outside
        uplinks = self.uplinks.get(station.name, frozenset())
        if outside in reachable and uplinks:
            inside = [hops[near].distance for near in reachable if near != outside and near not in uplinks]
            if hops[outside].distance < min(inside, default=hops[outside].distance + 1):
                return outside
        return min(reachable, key=lambda near: (hops[near].distance, near != outside))

    def _default(
        self, attached: list[str], ways: dict[str, tuple[Address, str]], role: Role
    ) -> tuple[Address, str] | None:
        if self.internet in attached:
            return None
        if self.internet in ways:
            return ways[self.internet]
        # Without an internet a host's only way out may be its default. A router's may not: two of them would point at
        # each other and bounce what is for neither.
        different = set(ways.values())
        return different.pop() if role is Role.HOST and len(different) == 1 else None

    def _passages(self, router: Station) -> list[tuple[str, str, Address]]:
        """From one network of the router to another, and its address on the first."""
        sides = [(i.network, address) for i in router.interfaces if (address := self._address(i)) is not None]
        return [
            (near, far, address)
            for near, address in sides
            if not (self.version == 4 and near == router.nat_outside)
            for far, _ in sides
            if far != near
        ]

    def _add(self, router: Station) -> None:
        """Between an uplink and the inside nothing passes."""
        uplinks = self.uplinks[router.name]
        for near, far, address in self._passages(router):
            if far == router.nat_outside or not uplinks & {near, far}:
                self.entrances[far].append((near, address))

    def _uplinks(self, router: Station) -> frozenset[str]:
        """A NAT router's networks, but its outside, that have a way to the internet without it; IPv4."""
        if self.version == 6 or router.nat_outside is None or self.internet is None:
            return frozenset()
        sides = [i.network for i in router.interfaces if i.network != router.nat_outside and self._address(i)]
        if len(sides) < 2:  # alone inside, a network has no other to be kept from
            return frozenset()
        return frozenset(near for near in sides if self._leads_to_internet(near, router.name))

    def _leads_to_internet(self, start: str, without: str) -> bool:
        seen, edge = {start}, [start]
        while edge:
            near = edge.pop()
            if near == self.internet:
                return True
            for router, far in self.exits[near]:
                if router != without and far not in seen:
                    seen.add(far)
                    edge.append(far)
        return False

    def _hops_to(self, destination: str) -> dict[str, Hop]:
        """Breadth first, against the direction of travel."""
        hops = {destination: Hop(0, None)}
        edge = [destination]
        while edge:
            following: list[str] = []
            for far in edge:
                for near, address in self.entrances[far]:
                    if near not in hops:
                        hops[near] = Hop(hops[far].distance + 1, address)
                        following.append(near)
            edge = following
        return hops

    def _address(self, interface: Interface) -> Address | None:
        return next((address.ip for address in interface.addresses if address.version == self.version), None)
