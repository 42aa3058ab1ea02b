"""Networks as written -> as meant: prefixes that do not overlap, at most one internet, a cable's two ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.model import Network

if TYPE_CHECKING:
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.file import NetworkFile
    from lab.topology.include import Gathered
    from lab.topology.model import Prefix
    from lab.topology.source import At

INTERNET = "internet"
_DISTINCT = "prefixes that do not overlap: two homes with the same prefix cannot be in one lab yet, choose another one"
LEAST_IPV6_MTU = 1280  # RFC 8200 section 5


def resolve_networks(gathered: Gathered, faults: list[Fault]) -> dict[str, Network]:
    """Every network whose shape is sound, by name, in the order of the file."""
    networks: dict[str, Network] = {}
    prefixes: list[tuple[Prefix, At]] = []
    internet_at: At | None = None
    for name, (at, written) in gathered.networks.items():
        if written is None:
            continue
        for index, prefix in enumerate(written.prefixes):
            place = at / "prefixes" / index
            _check_prefix(prefix, written, place, faults)
            prefixes.append((prefix, place))
        if written.mtu < LEAST_IPV6_MTU and any(prefix.version == 6 for prefix in written.prefixes):
            allowed = f"at least {LEAST_IPV6_MTU} with IPv6 (RFC 8200 section 5)"
            faults.append((at / "mtu").fault(f"{written.mtu} bytes", allowed))
        internet = written.internet if written.internet is not None else name == INTERNET
        if internet and internet_at is not None:
            found = f"a second internet, first {internet_at.where(of_key=True)}"
            faults.append(
                at.fault(found, "at most one network is the internet; `internet: false` says no", of_key=True)
            )
        elif internet:
            internet_at = at
        networks[name] = Network(name, tuple(written.prefixes), written.mtu, written.point_to_point, internet)
    _check_overlaps(prefixes, faults)
    return networks


def check_cables(gathered: Gathered, nodes: dict[str, NodeDraft], faults: list[Fault]) -> None:
    """A point-to-point network has exactly two ends; nodes with faults may have more links than are known."""
    ends: dict[str, list[str]] = {}
    for node in nodes.values():
        for link in node.links:
            if link.network.point_to_point:
                ends.setdefault(link.network.name, []).append(node.name)
    for name, (at, written) in gathered.networks.items():
        if written is None or not written.point_to_point:
            continue
        attached = ends.get(name, [])
        if len(attached) > 2 or (len(attached) < 2 and not gathered.partial):
            whom = f" ({', '.join(attached[:4])}{'...' if len(attached) > 4 else ''})" if attached else ""
            found = f"{len(attached)} node{'' if len(attached) == 1 else 's'} attached{whom}"
            faults.append((at / "point_to_point").fault(found, "exactly two on a point-to-point network"))


def _check_prefix(prefix: Prefix, written: NetworkFile, at: At, faults: list[Fault]) -> None:
    first = prefix.network_address
    this_network = prefix.version == 4 and int(first) >> 24 == 0  # RFC 1122 section 3.2.1.3
    if first.is_multicast or first.is_loopback or first.is_link_local or first.is_unspecified or this_network:
        faults.append(at.fault(f"{prefix}", "a unicast prefix that is not loopback or link-local"))
    host_bits = prefix.max_prefixlen - prefix.prefixlen
    least = 1 if written.point_to_point else 2  # RFC 3021, RFC 6164
    if host_bits < least:
        longest = prefix.max_prefixlen - least
        allowed = f"at most /{longest}" + (
            "" if written.point_to_point else f", or /{longest + 1} with `point_to_point: true`"
        )
        faults.append(at.fault(f"{prefix}", allowed))


def _check_overlaps(prefixes: list[tuple[Prefix, At]], faults: list[Fault]) -> None:
    """Sorted by first address, a prefix that overlaps any earlier one overlaps the widest-reaching of them."""
    for version in (4, 6):
        ordered = sorted(
            (entry for entry in prefixes if entry[0].version == version),
            key=lambda entry: (int(entry[0].network_address), entry[0].prefixlen),
        )
        reach: tuple[Prefix, At] | None = None
        for prefix, at in ordered:
            if reach is not None and int(prefix.network_address) <= int(reach[0].broadcast_address):
                found = f"{prefix} overlaps {reach[0]} at {reach[1].where()}"
                faults.append(at.fault(found, _DISTINCT))
                continue
            reach = (prefix, at)
