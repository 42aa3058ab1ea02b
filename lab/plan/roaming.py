"""A topology with a node moved to another network, or a router's outside renumbered, as the language would have it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING

from lab.errors import UsageError
from lab.topology.faults import did_you_mean, listed
from lab.topology.model import Role
from lab.topology.routes import Station, work_out
from lab.topology.static_routes import merge

if TYPE_CHECKING:
    from lab.topology.model import Address, Interface, InterfaceAddress, Nat, Network, Node, Prefix, Route, Topology


def moved(now: Topology, declared: Topology, name: str, to: str, leaving: str | None = None) -> Topology:
    """The topology once the host `name` has left a network for another with the same interface.

    At the place that the file gives it, it has the address that the file gives it, elsewhere the lowest free ones;
    routes and resolvers are those of the new place.

    Args:
        now: the topology as it is.
        declared: as the file has it.
        name: of a host.
        to: the network that it comes to.
        leaving: the network that it leaves; may be left out if it has one link only.

    Raises:
        UsageError: no such node or network, or the node cannot go there.
    """
    node = _node(now, name)
    network = _network(now, to)
    link = _link_to_move(node, network, leaving)
    if network.point_to_point and len(_attached(now, to)) > 1:
        raise UsageError(f"{to} is a cable, and both its ends are taken: {', '.join(_attached(now, to))}")
    home = next((i for i in _node(declared, name).interfaces if i.name == link.name and i.network == to), None)
    old_network = _network(now, link.network)
    there = replace(
        link,
        network=to,
        mtu=home.mtu if home else network.mtu if link.mtu == old_network.mtu else min(link.mtu, network.mtu),
        addresses=_addresses_there(now, declared, network, name, home),
    )
    interfaces = tuple(there if each.name == link.name else each for each in node.interfaces)
    after = _with_node(now, replace(node, interfaces=interfaces))
    after = _with_node(after, replace(_node(after, name), dns=_resolvers(after, declared, name)))
    return rerouted(after, declared)


def renumbered(now: Topology, declared: Topology, name: str, address: str | None = None) -> Topology:
    """The topology once a router has another IPv4 address on the outside of its NAT.

    Args:
        now: the topology as it is.
        declared: as the file has it.
        name: of a router with NAT.
        address: the new address; by default the next free one of the prefix.

    Raises:
        UsageError: no such router, no NAT there, or the address is not to be had.
    """
    node, nat = router_with_nat(now, name)
    link = next(each for each in node.interfaces if each.name == nat.outside)
    old = outside_address(now, name)
    taken = {each.ip for each in _taken(now, link.network)}
    new = _given(address, old, taken, now) if address is not None else _next_free(old, taken, link.network)
    there = replace(link, addresses=tuple(new if each == old else each for each in link.addresses))
    pool = tuple(new.ip if each == old.ip else each for each in nat.pool)
    interfaces = tuple(there if each.name == link.name else each for each in node.interfaces)
    after = _with_node(now, replace(node, interfaces=interfaces, nat=replace(nat, pool=pool)))
    return rerouted(after, declared)


def router_with_nat(topology: Topology, name: str) -> tuple[Node, Nat]:
    """A router and its NAT.

    Raises:
        UsageError: no such node, or it has none.
    """
    node = _node(topology, name)
    if node.nat is None:
        translating = ", ".join(each.name for each in topology.nodes if each.nat is not None)
        raise UsageError(f"{name} has no NAT, and so no outside; routers with NAT: {translating or 'none'}")
    return node, node.nat


def outside_address(topology: Topology, name: str) -> IPv4Interface:
    """The first IPv4 address on the outside of a router's NAT.

    Raises:
        UsageError: as `router_with_nat`, or it has none.
    """
    node, nat = router_with_nat(topology, name)
    links = (link for link in node.interfaces if link.name == nat.outside)
    for address in (address for link in links for address in link.addresses):
        if isinstance(address, IPv4Interface):
            return address
    raise UsageError(f"{name} has no IPv4 address on {nat.outside}")


def rerouted(after: Topology, declared: Topology) -> Topology:
    """The same with every node's routes worked out anew; those that the file gives stay where they lead on-link."""
    before = _worked_out(declared)
    routes = _worked_out(after)
    given = {node.name: tuple(r for r in node.routes if r not in before[node.name]) for node in declared.nodes}
    nodes = tuple(
        replace(node, routes=merge(routes[node.name], tuple(r for r in given[node.name] if _is_on_link(r, node))))
        for node in after.nodes
    )
    return replace(after, nodes=nodes)


def _worked_out(topology: Topology) -> dict[str, tuple[Route, ...]]:
    return work_out(topology.networks, [_station(node) for node in topology.nodes], _seen(topology))


def _seen(topology: Topology) -> dict[str, list[Prefix]]:
    """By network: the prefixes that its nodes have for others by translation (RFC 6296), beside its own."""
    seen: dict[str, list[Prefix]] = {}
    for node in topology.nodes:
        translation = node.nat.ipv6_prefix if node.nat is not None else None
        if node.nat is None or translation is None:
            continue
        for link in node.interfaces:
            within = [a for a in link.addresses if isinstance(a, IPv6Interface) and a.ip in translation.inside]
            if within and link.name != node.nat.outside:
                seen.setdefault(link.network, []).append(translation.outside)
                break
    return seen


def _station(node: Node) -> Station:
    outside = node.nat.outside if node.nat is not None else None
    network = next((link.network for link in node.interfaces if link.name == outside), None)
    return Station(node.name, node.role, node.interfaces, network)


def _is_on_link(route: Route, node: Node) -> bool:
    return any(
        address.version == route.via.version and route.via in address.network
        for link in node.interfaces
        if link.name == route.interface
        for address in link.addresses
    )


def _link_to_move(node: Node, to: Network, leaving: str | None) -> Interface:
    networks = [link.network for link in node.interfaces]
    if node.role is Role.ROUTER:
        raise UsageError(f"{node.name} is a router; only hosts move, for the ways of others lead through a router")
    if to.name in networks:
        raise UsageError(f"{node.name} is attached to {to.name} already")
    if leaving is None and len(networks) == 1:
        leaving = networks[0]
    if leaving not in networks:
        what = f"is not attached to {leaving!r}" if leaving else "has several links" if networks else "has no link"
        raise UsageError(f"{node.name} {what}; say which it leaves: {', '.join(networks) or 'there is none'}")
    return next(link for link in node.interfaces if link.network == leaving)


def _addresses_there(
    now: Topology, declared: Topology, network: Network, name: str, home: Interface | None
) -> tuple[InterfaceAddress, ...]:
    taken = {address.ip for address in _taken(now, network.name)}
    if home is not None and not taken & {address.ip for address in home.addresses}:
        return home.addresses
    # What the file gives to somebody who is away is not free: it will come back.
    taken |= {address.ip for address in _taken(declared, network.name)}
    found: dict[Prefix, InterfaceAddress] = {}
    for prefix in sorted(network.prefixes, key=lambda prefix: prefix.version):
        v4 = next((each for at, each in found.items() if at.version == 4), None)
        spelled = _spelled(prefix, v4) if v4 is not None and prefix.version == 6 else None
        address = spelled if spelled is not None and spelled.ip not in taken else next(_free(prefix, taken), None)
        if address is None:
            raise UsageError(f"{network.name} has no free address left in {prefix} for {name}")
        found[prefix] = address
    return tuple(found[prefix] for prefix in network.prefixes)


def _spelled(prefix: Prefix, v4: InterfaceAddress) -> InterfaceAddress | None:
    """192.168.1.10/24 -> ::10, as the topology language does it."""
    host = int(str(int(v4.ip) - int(v4.network.network_address)), 16)
    fits = 0 < host < 1 << (prefix.max_prefixlen - prefix.prefixlen)
    return IPv6Interface((int(prefix.network_address) + host, prefix.prefixlen)) if fits else None


def _free(prefix: Prefix, taken: Collection[Address], start: int = 0) -> Iterator[InterfaceAddress]:
    """The free addresses of a prefix, upwards from an offset and then from its beginning."""
    size = 1 << (prefix.max_prefixlen - prefix.prefixlen)
    pair = size <= 2  # RFC 3021, RFC 6164: both are hosts
    first, last = (0, size - 1) if pair else (1, size - (2 if prefix.version == 4 else 1))
    kind = IPv4Interface if prefix.version == 4 else IPv6Interface
    for offsets in (range(max(start, first), last + 1), range(first, min(max(start, first), last + 1))):
        for offset in offsets:
            address = kind((int(prefix.network_address) + offset, prefix.prefixlen))
            if address.ip not in taken:
                yield address


def _next_free(old: IPv4Interface, taken: Collection[Address], network: str) -> IPv4Interface:
    start = int(old.ip) - int(old.network.network_address) + 1
    for found in _free(old.network, taken, start):
        if isinstance(found, IPv4Interface):
            return found
    raise UsageError(f"{network} has no free address left in {old.network}")


def _given(text: str, old: IPv4Interface, taken: Collection[Address], now: Topology) -> IPv4Interface:
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no IPv4 address; allowed: a free one of {old.network}") from error
    if address not in old.network or address in (old.network.network_address, old.network.broadcast_address):
        raise UsageError(f"{address} is no address of a host in {old.network}, as the router's outside has them")
    if address in taken:
        owner = next(n.name for n in now.nodes for i in n.interfaces for a in i.addresses if a.ip == address)
        raise UsageError(f"{address} is taken by {owner}; allowed: a free address of {old.network}")
    return IPv4Interface((address, old.network.prefixlen))


def _resolvers(after: Topology, declared: Topology, name: str) -> tuple[Address, ...]:
    """The node's resolvers, each that is a node of the lab by its nearest address in a family that the node has."""
    node = _node(after, name)
    families = {address.version for link in node.interfaces for address in link.addresses}
    owners = {a.ip: n.name for n in declared.nodes for i in n.interfaces for a in i.addresses}
    found: dict[Address, None] = {}
    for address in _node(declared, name).dns:
        owner = owners.get(address)
        near = _nearest(_node(after, owner), node, after) if owner is not None else []
        ranked = sorted(near, key=lambda each: (each.version not in families, each.version))
        found[ranked[0] if ranked else address] = None
    return tuple(found)


def _nearest(node: Node, seen_from: Node, topology: Topology) -> list[Address]:
    """Its addresses on a network that both share, else on the internet, else on its first."""
    shared = {link.network for link in seen_from.interfaces}
    internet = {network.name for network in topology.networks if network.internet}
    ranked = sorted(
        (link for link in node.interfaces if link.addresses),
        key=lambda link: (link.network not in shared, link.network not in internet),
    )
    return [address.ip for address in ranked[0].addresses] if ranked else []


def _taken(topology: Topology, network: str) -> list[InterfaceAddress]:
    return [
        address
        for node in topology.nodes
        for link in node.interfaces
        if link.network == network
        for address in link.addresses
    ]


def _attached(topology: Topology, network: str) -> list[str]:
    return [node.name for node in topology.nodes for link in node.interfaces if link.network == network]


def _with_node(topology: Topology, node: Node) -> Topology:
    return replace(topology, nodes=tuple(node if each.name == node.name else each for each in topology.nodes))


def _node(topology: Topology, name: str) -> Node:
    for node in topology.nodes:
        if node.name == name:
            return node
    raise UsageError(_unknown("node", name, [node.name for node in topology.nodes]))


def _network(topology: Topology, name: str) -> Network:
    for network in topology.networks:
        if network.name == name:
            return network
    raise UsageError(_unknown("network", name, [network.name for network in topology.networks]))


def _unknown(what: str, name: str, known: list[str]) -> str:
    return f"no {what} is called {name!r}{did_you_mean(name, known)}; there are: {listed(known)}"
