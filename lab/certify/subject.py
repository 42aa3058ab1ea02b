"""Which routers there are to certify, and the temporary nodes that it takes: as steps for a running lab. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from lab.errors import UsageError
from lab.plan.guest import guest
from lab.plan.step import AddAddress, AddRoute, ConnectToSwitch, LoadRuleset, Step

INSIDE_ADDRESSES = 7  # of the first inside host, one for each kind of probe; fewer where the network is small
_WINDOW, _WINDOWS = INSIDE_ADDRESSES + 1, 30  # addresses of both inside hosts; as many times as fit into a /24
# The probes speak TCP and UDP by hand: the kernels of their nodes, which know nothing of that, are not to answer. Their
# own ICMP errors are of precedence 6 (RFC 1812 section 4.3.2.5), those of the probes are not.
_SILENCE = """table inet probe {
    chain output {
        type filter hook output priority filter; policy accept;
        tcp flags & rst == rst drop
        icmp type destination-unreachable ip dscp cs6 drop
    }
}
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A router, between which networks it is judged, and its addresses there."""

    router: str
    inside: str  # network
    outside: str  # network
    inside_address: str
    outside_addresses: tuple[str, ...]  # IPv4
    inside6: str | None = None
    outside6: str | None = None
    inside_prefix6: str | None = None
    declared: Mapping[str, Any] | None = None  # what the lab's facts say of its NAT


@dataclass(frozen=True, slots=True)
class Guests:
    """The names of a subject's temporary nodes, and their IPv4 addresses."""

    first: str
    second: str
    observer: str
    first_addresses: tuple[str, ...]
    second_address: str
    observer_addresses: tuple[str, str]
    first6: str | None = None
    observer6: tuple[str, str] | None = None


def subjects(facts: Mapping[str, Any], routers: Iterable[str] = ()) -> list[Subject]:
    """Those of the named routers, or of all that have NAT.

    Raises:
        UsageError: no such node, or one without NAT.
    """
    nodes = {node["name"]: node for node in facts["nodes"]}
    with_nat = [name for name, node in nodes.items() if node.get("nat")]
    wanted = list(dict.fromkeys(routers))
    for name in wanted:
        if name not in with_nat:
            lacks = "has no `nat`" if name in nodes else "is no node of this lab"
            raise UsageError(f"{name!r} {lacks}; routers with NAT: {', '.join(with_nat) or 'none'}")
    return [_declared_subject(facts, nodes[name]) for name in wanted or with_nat]


def _declared_subject(facts: Mapping[str, Any], node: Mapping[str, Any]) -> Subject:
    nat = node["nat"]
    found = subject(facts, node["name"], nat["outside"]["network"])
    return replace(found, declared=nat, outside_addresses=tuple(nat["pool"]))


def subject(facts: Mapping[str, Any], router: str, outside: str, inside: str | None = None) -> Subject:
    """A router whatever it declares, with `outside` as its outside; `inside`: the first other network with IPv4.

    Raises:
        UsageError: no such node, or it has no IPv4 on both sides.
    """
    node = next((each for each in facts["nodes"] if each["name"] == router), None)
    if node is None:
        raise UsageError(f"no node {router!r} in this lab")
    near = [link for link in node["interfaces"] if link["network"] != outside and inside in (None, link["network"])]
    insides = [link for link in near if _of(link, 4)]
    outsides = [link for link in node["interfaces"] if link["network"] == outside and _of(link, 4)]
    if not insides or not outsides:
        raise UsageError(f"{router} has no IPv4 address on {'its inside' if outsides else outside}")
    inner, outer = insides[0], outsides[0]
    inner6, outer6 = _of(inner, 6), _of(outer, 6)
    return Subject(
        router,
        inner["network"],
        outside,
        _of(inner, 4)[0],
        tuple(_of(outer, 4)),
        inner6[0] if inner6 and outer6 else None,
        outer6[0] if inner6 and outer6 else None,
        _prefix6(inner) if inner6 and outer6 else None,
    )


def guests(facts: Mapping[str, Any], wanted: Iterable[Subject], seed: int) -> tuple[list[Step], dict[str, Guests]]:
    """The steps that add the temporary nodes of all subjects, and by router who they are.

    Routers with one outside network share an observer there. The names cannot be those of nodes of a file; a second
    certifier of the same lab has the same, and so is refused instead of disturbing the first. Their addresses
    are others for another seed as far as there is a choice, and each keeps its kind of probe: what one certificate has
    left in the NAT does not touch the next.

    Raises:
        UsageError: a network has not enough free addresses.
    """
    places = {node["name"]: place for place, node in enumerate(facts["nodes"])}
    steps: list[Step] = []
    observers: dict[str, str] = {}
    found: dict[str, Guests] = {}
    taken: set[str] = set()
    for each in wanted:
        if each.outside not in observers:
            observers[each.outside] = f"nat.observer.{each.outside}"
            made = _host(facts, observers[each.outside], each.outside, (2,), (), taken, seed)
            steps += made
        observer = observers[each.outside]
        gateways = [address for address in (each.inside_address, each.inside6) if address]
        first, second = (f"nat.{places[each.router]}.{letter}" for letter in "ab")
        for name, counts in ((first, _counts(facts, each)), (second, (1,))):
            steps += _host(facts, name, each.inside, counts, gateways, taken, seed)
        mine, theirs, far = (_addresses(steps, name) for name in (first, second, observer))
        mine6, far6 = (_addresses(steps, name, 6) for name in (first, observer))
        has_ipv6 = each.outside6 is not None and len(mine6) > 0 and len(far6) > 1
        if has_ipv6:
            steps += _back(steps, each, observer)
        found[each.router] = Guests(
            first, second, observer, mine, theirs[0], (far[0], far[1]),
            mine6[0] if has_ipv6 else None, (far6[0], far6[1]) if has_ipv6 else None,
        )  # fmt: skip
    return steps, found


def lack_of_room(facts: Mapping[str, Any], wanted: Sequence[Subject], seed: int) -> str:
    """Why the temporary nodes of all these find no place beside each other, "" if they do."""
    try:
        guests(facts, wanted, seed)
    except UsageError as error:
        return str(error)
    return ""


def rounds(facts: Mapping[str, Any], wanted: Sequence[Subject], seed: int) -> list[list[Subject]]:
    """The subjects that find a place alone, in lists of those that do so beside each other; one list if it can be."""
    if not lack_of_room(facts, wanted, seed):
        return [list(wanted)] if wanted else []
    found: list[list[Subject]] = []
    for each in wanted:
        beside = next((those for those in found if not lack_of_room(facts, [*those, each], seed)), None)
        if beside is not None:
            beside.append(each)
        else:
            found.append([each])
    return found


def _host(
    facts: Mapping[str, Any],
    name: str,
    network: str,
    counts: Sequence[int],
    via: Sequence[str],
    taken: set[str],
    seed: int,
) -> list[Step]:
    """A guest with as many addresses as there are free, of the counts that would do, best first."""
    for count, skipped in itertools.product(counts, (_highest(facts, network, seed % _WINDOWS * _WINDOW), ())):
        try:
            steps = guest(facts, name, network, addresses=count, via=via, taken=taken.union(skipped))
        except UsageError:
            continue
        taken |= {str(ip_interface(step.address).ip) for step in steps if isinstance(step, AddAddress)}
        return [*steps, LoadRuleset(name, _SILENCE)]
    prefixes = next(each["prefixes"] for each in facts["networks"] if each["name"] == network)
    raise UsageError(
        f"no room for the probes: network {network} ({', '.join(prefixes)}) has too few free addresses; "
        "they need two on the router's inside and two on its outside"
    )


def _highest(facts: Mapping[str, Any], network: str, count: int) -> list[str]:
    """So many addresses from the end of each IPv4 prefix."""
    prefixes = next((each["prefixes"] for each in facts["networks"] if each["name"] == network), ())
    networks = (ip_network(prefix) for prefix in prefixes)
    return [
        str(ip_address(number))
        for each in networks
        if each.version == 4
        for number in range(int(each.broadcast_address), int(each.broadcast_address) - count, -1)
        if ip_address(number) in each
    ]


def _counts(facts: Mapping[str, Any], each: Subject) -> list[int]:
    """How many addresses the first inside host may have, best first: each takes a block of ports, if there are blocks.

    Those of the lab's own hosts are left to them.
    """
    counts = [INSIDE_ADDRESSES, 3, 1]
    size, ports = (each.declared or {}).get("port_block"), (each.declared or {}).get("ports")
    if not size or not ports:
        return counts
    inside = {link["network"] for link in (each.declared or {})["inside"]}
    links = (link for node in facts["nodes"] if node["name"] != each.router for link in node["interfaces"])
    held = sum(len(_of(link, 4)) for link in links if link["network"] in inside)
    blocks = (ports["last"] - ports["first"] + 1) // size * len(each.outside_addresses)
    fitting = [count for count in counts if held + count + 1 <= blocks]
    if not fitting:
        found = f"{held} of {each.router}'s {blocks} blocks of ports are for hosts of the lab"
        raise UsageError(f"no room for the probes: {found}; they need two")
    return fitting


def _addresses(steps: Iterable[Step], name: str, version: int = 4) -> tuple[str, ...]:
    found = (ip_interface(step.address) for step in steps if isinstance(step, AddAddress) and step.node == name)
    return tuple(str(each.ip) for each in found if each.version == version)


def _back(steps: Iterable[Step], each: Subject, observer: str) -> list[Step]:
    """How the observer finds the inside network, and what NPTv6 makes of it, by IPv6."""
    link = next(step for step in steps if isinstance(step, ConnectToSwitch) and step.node == observer)
    prefixes = [each.inside_prefix6]
    translation = (each.declared or {}).get("ipv6_prefix")
    if translation:
        prefixes.append(translation["outside"])
    known = {(step.node, step.destination) for step in steps if isinstance(step, AddRoute)}
    return [
        AddRoute(observer, prefix, each.outside6, link.interface, link.index)
        for prefix in prefixes
        if prefix and each.outside6 and (observer, prefix) not in known
    ]


def _of(link: Mapping[str, Any], version: int) -> list[str]:
    found = (ip_interface(address) for address in link["addresses"])
    return [str(each.ip) for each in found if each.version == version]


def _prefix6(link: Mapping[str, Any]) -> str | None:
    for address in link["addresses"]:
        if ip_interface(address).version == 6:
            return str(ip_network(ip_interface(address).network))
    return None
