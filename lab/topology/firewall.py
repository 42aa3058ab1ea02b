"""A node's `firewall` as written -> as meant; what is not given follows from its NAT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.directory import as_address
from lab.topology.model import Allow, Firewall, Ipv6Passage, Policy, Protocol, Role
from lab.topology.nat import outside_interface

if TYPE_CHECKING:
    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.file import AllowFile
    from lab.topology.model import Address, Nat
    from lab.topology.source import At


def resolve_firewall(node: NodeDraft, nat: Nat | None, directory: Directory, faults: list[Fault]) -> Firewall:
    """With NAT, drop what comes from its outside; without, accept all; what the file says goes first."""
    written = node.written.firewall
    usual = Policy.ACCEPT if node.written.nat is None else Policy.DROP
    outside = nat.outside if nat is not None else None
    if written is None:
        return Firewall(outside, usual, usual, ())
    at = node.at / "firewall"
    if written.outside is not None:
        interface = outside_interface(node, written.outside, at / "outside", faults)
        _check_outside_of_nat(node, written.outside, at / "outside", faults)
        outside = interface.name if interface is not None else None
    if node.role is not Role.ROUTER and node.is_whole and written.forward is not None:
        faults.append((at / "forward").fault("`forward` on a host", "`role: router`", of_key=True))
    ipv6 = Ipv6Passage(written.ipv6)
    if ipv6 is not Ipv6Passage.AS_IPV4:
        if node.role is not Role.ROUTER and node.is_whole:
            faults.append((at / "ipv6").fault("`ipv6` on a host", "`role: router`", of_key=True))
        elif outside is None and written.outside is None and node.written.nat is None:
            found = f"`ipv6: {ipv6}` without an outside"
            faults.append((at / "ipv6").fault(found, "`outside`, the network that it guards against", of_key=True))
    allow: list[Allow] = []
    for index, exception in enumerate(written.allow):
        allow += _allow(node, exception, at / "allow" / index, directory, faults)
    return Firewall(
        outside,
        Policy(written.input) if written.input else usual,
        Policy(written.forward) if written.forward else usual,
        tuple(allow),
        ipv6,
    )


def _check_outside_of_nat(node: NodeDraft, outside: str, at: At, faults: list[Fault]) -> None:
    """A firewall has one outside: on another network than that of NAT it would leave the way in by NAT's open."""
    nat = node.written.nat
    links = node.written.links
    if nat is None or nat.outside == outside or nat.outside not in links or outside not in links:
        return
    found = f"'{outside}' beside `nat` with the outside '{nat.outside}', which would lie open"
    faults.append(at.fault(found, f"'{nat.outside}' too, or leave the key out"))


def _allow(node: NodeDraft, written: AllowFile, at: At, directory: Directory, faults: list[Fault]) -> list[Allow]:
    """One exception; several if it leads to a node with several addresses."""
    protocol = Protocol.TCP if written.tcp is not None else Protocol.UDP if written.udp is not None else None
    port = written.tcp or written.udp
    if written.to is None:
        return [Allow(protocol, port, written.source, None)]
    if node.role is not Role.ROUTER and node.is_whole:
        faults.append((at / "to").fault("`to` on a host", "`role: router`", of_key=True))
        return []
    destinations = _destinations(written.to, at / "to", directory, faults)
    if destinations is None:
        return []
    fitting = [each for each in destinations if written.source is None or each.version == written.source.version]
    if not fitting:
        faults.append(
            (at / "to").fault(f"'{written.to}' has no address in the family of {written.source}", "one family")
        )
    return [Allow(protocol, port, written.source, destination) for destination in fitting]


def _destinations(to: str, at: At, directory: Directory, faults: list[Fault]) -> list[Address] | None:
    address = as_address(to)
    if address is not None:
        return [address]
    target = directory.node(to, at, faults, or_else="or an address")
    return target.addresses() if target is not None else None
