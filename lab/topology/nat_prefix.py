"""A router's `ipv6_prefix` as written -> as meant, and what it lets others see (RFC 6296, NPTv6)."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import TYPE_CHECKING

from lab.topology.faults import listed
from lab.topology.model import PrefixTranslation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.file import NatFile
    from lab.topology.model import Prefix
    from lab.topology.source import At

_LONGEST = 64  # bits; beyond, interface identifiers would have to carry the checksum (RFC 6296 section 3.5)


def resolve_prefix(
    node: NodeDraft, written: NatFile, at: At, directory: Directory, faults: list[Fault]
) -> PrefixTranslation | None:
    """None if there is none, or with faults in it."""
    if written.ipv6_prefix is None:
        return None
    inside, outside = written.ipv6_prefix.inside, written.ipv6_prefix.outside
    noted = len(faults)
    for key, prefix in (("inside", inside), ("outside", outside)):
        if prefix.version != 6 or prefix.prefixlen > _LONGEST:
            faults.append((at / key).fault(f"{prefix}", f"an IPv6 prefix of up to {_LONGEST} bits"))
    if len(faults) > noted:
        return None
    if inside.prefixlen != outside.prefixlen:
        found = f"{outside} for {inside}"
        faults.append((at / "outside").fault(found, f"a prefix of {inside.prefixlen} bits too, for one address each"))
    own = _inside_networks(node, written.outside)
    if not any(_holds(inside, prefix) for _, prefix in own) and node.is_whole:
        allowed = f"a prefix that holds one inside: {listed(str(prefix) for _, prefix in own)}"
        faults.append((at / "inside").fault(f"{inside}", allowed))
    for network in directory.networks.values():
        for prefix in network.prefixes:
            if prefix.version == 6 and prefix.overlaps(outside):
                found = f"{outside}, which overlaps {prefix} of '{network.name}'"
                faults.append((at / "outside").fault(found, "a prefix of no network: it is routed to the router"))
    return PrefixTranslation(inside, outside) if len(faults) == noted else None


def seen_prefixes(nodes: Iterable[NodeDraft]) -> dict[str, list[Prefix]]:
    """By network: the prefixes that its nodes have for others, beside its own; routes lead there too."""
    seen: dict[str, list[Prefix]] = {}
    for node in nodes:
        written = node.written.nat
        if written is None or written.ipv6_prefix is None:
            continue
        translation = written.ipv6_prefix
        within = (n for n, prefix in _inside_networks(node, written.outside) if _holds(translation.inside, prefix))
        network = next(within, None)
        if network is not None and translation.outside.version == 6:
            seen.setdefault(network, []).append(translation.outside)
    return seen


def _inside_networks(node: NodeDraft, outside: str) -> list[tuple[str, IPv6Network]]:
    return [
        (interface.network, address.network)
        for interface in node.interfaces
        for address in interface.addresses
        if interface.network != outside and isinstance(address.network, IPv6Network)
    ]


def _holds(inside: Prefix, prefix: IPv6Network) -> bool:
    return isinstance(inside, IPv6Network) and prefix.subnet_of(inside)
