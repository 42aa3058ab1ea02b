"""Nodes on the way from as-written to as-meant: copies counted out, links looked up, interfaces addressed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.topology import names
from lab.topology.faults import Wrong, listed
from lab.topology.model import Role

if TYPE_CHECKING:
    from lab.topology.faults import Fault
    from lab.topology.file import LinkFile, NetworkFile, NodeFile
    from lab.topology.include import Gathered
    from lab.topology.model import Address, Interface, Network
    from lab.topology.source import At

MOST_NODES = 65_535  # two bytes of a MAC address number them
MOST_LINKS = 255  # one byte numbers them


@dataclass(slots=True)
class LinkDraft:
    """A node's end of a link."""

    at: At
    network: Network
    written: LinkFile
    number: int  # from 1


@dataclass(slots=True)
class NodeDraft:
    """One machine; of a node with `count`, one of its copies."""

    name: str
    at: At
    written: NodeFile
    role: Role
    number: int  # from 1
    links: list[LinkDraft] = field(default_factory=list)
    interfaces: tuple[Interface, ...] = ()
    is_whole: bool = True  # False if a link of it has a fault, so that other faults may only follow from that

    def addresses(self) -> list[Address]:
        """All addresses, in the order of the interfaces."""
        return [address.ip for interface in self.interfaces for address in interface.addresses]


def draft_nodes(gathered: Gathered, networks: dict[str, Network], faults: list[Fault]) -> dict[str, NodeDraft]:
    """Every machine by name, in the order of the file."""
    drafts: dict[str, NodeDraft] = {}
    number = 0
    for group, (at, written) in gathered.nodes.items():
        if written is None:
            number += 1
            continue
        links = _links(at, written, gathered.networks, networks, faults)
        is_whole = len(links) == len(written.links) and group not in gathered.partial
        role = Role(written.role)
        for name in copies(group, written):
            number += 1
            if name != group and (name in drafts or name in gathered.nodes):
                _report_same_name(name, at, drafts[name].at if name in drafts else gathered.nodes[name][0], faults)
            drafts[name] = NodeDraft(name, at, written, role, number, links, is_whole=is_whole)
        _check_last_name(group, at, written, faults)
        if number > MOST_NODES:
            faults.append(at.fault(f"more than {MOST_NODES} nodes", "fewer nodes", of_key=True))
            break
    return drafts


def copies(group: str, written: NodeFile) -> list[str]:
    """The names of a node's machines: its own, or guest-1, guest-2... with `count`."""
    if written.count is None:
        return [group]
    return [f"{group}-{index}" for index in range(1, written.count + 1)]


def _check_last_name(group: str, at: At, written: NodeFile, faults: list[Fault]) -> None:
    if written.count is None:
        return
    try:
        names.NODE.check(copies(group, written)[-1])
    except Wrong as wrong:
        if len(group) <= 63:
            faults.append(at.fault(str(wrong), of_key=True))


def _report_same_name(name: str, at: At, other: At, faults: list[Fault]) -> None:
    fault = (at / "count").fault(f"a copy named '{name}', as the node at {other.where(of_key=True)}", "each name once")
    faults.append(fault)


def _links(
    at: At,
    written: NodeFile,
    known: dict[str, tuple[At, NetworkFile | None]],
    networks: dict[str, Network],
    faults: list[Fault],
) -> list[LinkDraft]:
    links: list[LinkDraft] = []
    taken: dict[str, str] = {}
    if len(written.links) > MOST_LINKS:
        faults.append((at / "links").fault(f"{len(written.links)} links", f"at most {MOST_LINKS}", of_key=True))
    for number, (name, link) in enumerate(written.links.items(), start=1):
        place = at / "links" / name
        if name not in known:
            faults.append(
                place.fault(f"no network '{name}'", f"networks: {listed(known)}", near=(name, known), of_key=True)
            )
            continue
        network = networks.get(name)
        if network is None:  # its own faults are noted
            continue
        interface = link.interface or name
        if interface in taken:
            found = f"a second interface '{interface}', first of the link to '{taken[interface]}'"
            faults.append(place.fault(found, "each name once in a node; `interface:` gives another", of_key=True))
        taken.setdefault(interface, name)
        if link.mtu is not None and link.mtu > network.mtu:
            faults.append((place / "mtu").fault(f"{link.mtu} bytes", f"at most the network's {network.mtu}"))
        if (
            link.mtu is not None
            and link.mtu < 1280
            and link.only != "ipv4"
            and any(p.version == 6 for p in network.prefixes)
        ):
            faults.append((place / "mtu").fault(f"{link.mtu} bytes", "at least 1280 with IPv6 (RFC 8200 section 5)"))
        if link.address and (written.count or 1) > 1:
            faults.append((place / "address").fault("an address for several nodes", "auto, or a node of its own"))
        links.append(LinkDraft(place, network, link, number))
    return links
