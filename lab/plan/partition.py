"""A partition as nftables text: what passes between the addresses of two nodes or networks is dropped at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import TYPE_CHECKING

from lab.errors import UsageError
from lab.topology.faults import did_you_mean, listed
from lab.topology.model import Role

if TYPE_CHECKING:
    from lab.topology.model import Interface, Node, Prefix, Topology

# What reaches a neighbour without bearing its address: limited broadcast and multicast.
_TO_ALL = {4: ["224.0.0.0/4", "255.255.255.255"], 6: ["ff00::/8"]}
_WORD = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a partition."""

    name: str
    nodes: tuple[str, ...]
    networks: frozenset[str]
    prefixes: tuple[Prefix, ...]
    broadcasts: tuple[str, ...]  # of IPv4 prefixes

    def addresses(self, version: int) -> list[str]:
        """Prefixes as nftables takes them: a single address without its length."""
        found = [prefix for prefix in self.prefixes if prefix.version == version]
        return [str(p.network_address if p.prefixlen == p.max_prefixlen else p) for p in dict.fromkeys(found)]


def partition(topology: Topology, one: str, other: str, table: str) -> dict[str, str]:
    """For each node of the two sides, the table that drops what passes between them.

    Each side is a node, with all its addresses, or a network, with its prefixes.

    Raises:
        UsageError: no such node or network, one without addresses, or two that no address can tell apart, because NAT
            hides each from the other.
    """
    sides = (_side(topology, one), _side(topology, other))
    if one == other:
        raise UsageError(f"{one} cannot be parted from itself; name two nodes or networks")
    _require_telling_addresses(topology, *sides)
    return {
        node: _table(table, *sides, [side for side in sides if node in side.nodes])
        for node in dict.fromkeys(node for side in sides for node in side.nodes)
    }


def _side(topology: Topology, name: str) -> _Side:
    nodes = [node for node in topology.nodes if node.name == name]
    networks = [network for network in topology.networks if network.name == name]
    if nodes and networks:
        raise UsageError(f"{name!r} is a node and a network of this lab; part its neighbours one by one")
    if nodes:
        links = list(nodes[0].interfaces)
        own = [ip_network(address.ip) for link in links for address in link.addresses]
        side = _Side(
            name,
            (name,),
            frozenset(link.network for link in links),
            (*own, *map(_link_local, links)) if own else (),
            _broadcasts(links),
        )
    elif networks:
        attached = [(node, link) for node in topology.nodes for link in node.interfaces if link.network == name]
        links = [link for _, link in attached]
        side = _Side(
            name,
            tuple(node.name for node, _ in attached),
            frozenset([name]),
            (*networks[0].prefixes, *map(_link_local, links)),
            _broadcasts(links),
        )
    else:
        known = [*(node.name for node in topology.nodes), *(network.name for network in topology.networks)]
        raise UsageError(
            f"no node or network is called {name!r}{did_you_mean(name, known)}; there are: {listed(known)}"
        )
    if not side.prefixes:
        raise UsageError(f"{name} has no address, so nothing passes to or from it")
    return side


def _link_local(link: Interface) -> Prefix:
    """The address that the kernel gives the interface (RFC 4291 section 2.5.6 and appendix A)."""
    octets = bytearray(bytes.fromhex(link.mac.replace(":", "")))
    octets[0] ^= 2
    host = int.from_bytes(octets[:3] + b"\xff\xfe" + octets[3:], "big")
    return ip_network(IPv6Address((0xFE80 << 112) + host))


def _broadcasts(links: list[Interface]) -> tuple[str, ...]:
    found = [a.network.broadcast_address for link in links for a in link.addresses if a.version == 4]
    return tuple(dict.fromkeys(map(str, found)))


def _require_telling_addresses(topology: Topology, one: _Side, other: _Side) -> None:
    """In each family that both have, one of them must see the other's own addresses: NAT may hide one, not both.

    A way from inside of a NAT to its outside keeps the destination; a way back in leads to the router's address only.
    """
    for version in (4, 6):
        if _has(version, one) and _has(version, other) and _is_hidden(topology, version, one, other):
            links = [
                f"`lab link {node}:{network} down`" for side in (one, other) for node, network in _links(topology, side)
            ]
            raise UsageError(
                f"NAT hides {one.name} and {other.name} from each other, so no address tells what passes between them "
                f"from the rest; cut a link of one of them instead: {' or '.join(links[:4])}"
            )


def _has(version: int, side: _Side) -> bool:
    return any(prefix.version == version and not prefix.is_link_local for prefix in side.prefixes)


def _is_hidden(topology: Topology, version: int, one: _Side, other: _Side) -> bool:
    pairs = ((one.networks, other.networks), (other.networks, one.networks))
    if any(_leads(topology, version, *pair, through_nat=False) for pair in pairs):
        return False
    return any(_leads(topology, version, *pair, through_nat=True) for pair in pairs)  # else nothing passes anyway


def _links(topology: Topology, side: _Side) -> list[tuple[str, str]]:
    return [
        (node.name, link.network)
        for node in topology.nodes
        if node.name in side.nodes
        for link in node.interfaces
        if link.network in side.networks
    ]


def _leads(topology: Topology, version: int, start: frozenset[str], goal: frozenset[str], *, through_nat: bool) -> bool:
    """Whether a packet that bears an address of `goal` finds a way there from `start`."""
    seen, edge = set(start), list(start)
    while edge:
        near = edge.pop()
        if near in goal:
            return True
        for router in topology.nodes:
            sides = {link.network for link in router.interfaces}
            if router.role is not Role.ROUTER or near not in sides:
                continue
            if not through_nat and near == _outside(router, version):
                continue
            edge += sides - seen
            seen |= sides
    return False


def _outside(router: Node, version: int) -> str | None:
    """The network outside of what it translates of a family."""
    nat = router.nat
    if nat is None or (version == 6 and nat.ipv6_prefix is None):
        return None
    return next((link.network for link in router.interfaces if link.name == nat.outside), None)


def _table(name: str, one: _Side, other: _Side, here: list[_Side]) -> str:
    between = [rule for version in (4, 6) for rule in _between(version, one, other)]
    to_all = [rule for version in (4, 6) for side in here for rule in _to_all(version, side, one, other)]
    return "\n".join(
        [
            f"table inet {name} {{",
            *_chain("prerouting", 'iif "lo" accept', [*between, *to_all]),
            "",
            *_chain("output", 'oif "lo" accept', between),
            "}",
            "",
        ]
    )


def _chain(hook: str, own: str, rules: list[str]) -> list[str]:
    """Before connection tracking and NAT, so that flows that exist are cut too."""
    lines = [f"type filter hook {hook} priority -310; policy accept;", own, *rules]
    return [f"    chain {hook} {{", *(f"        {line}" for line in lines), "    }"]


def _between(version: int, one: _Side, other: _Side) -> list[str]:
    these, those = one.addresses(version), other.addresses(version)
    if not these or not those:
        return []
    return [_drop(version, these, those), _drop(version, those, these)]


def _to_all(version: int, here: _Side, one: _Side, other: _Side) -> list[str]:
    """What the far side says to all its neighbours does not reach the near one."""
    far = other if here is one else one
    everybody = _TO_ALL[version] + (list(here.broadcasts) if version == 4 else [])
    return [_drop(version, far.addresses(version), everybody)] if far.addresses(version) else []


def _drop(version: int, sources: list[str], destinations: list[str]) -> str:
    word = _WORD[version]
    return f"{word} saddr {{ {', '.join(sources)} }} {word} daddr {{ {', '.join(destinations)} }} drop"
