"""Prefixes -> addresses of the nodes on a network, always the same; given ones first, then routers, then hosts."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING

from lab.topology.faults import listed
from lab.topology.model import Role

if TYPE_CHECKING:
    from lab.topology.draft import LinkDraft, NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.model import Address, InterfaceAddress, Network, Prefix
    from lab.topology.source import At

End = tuple["NodeDraft", "LinkDraft"]
Place = tuple[str, str]  # node, network


def assign(nodes: dict[str, NodeDraft], faults: list[Fault]) -> dict[Place, tuple[InterfaceAddress, ...]]:
    """The addresses of every interface, in the order of its network's prefixes."""
    ends: dict[str, list[End]] = {}
    for node in nodes.values():
        for link in node.links:
            ends.setdefault(link.network.name, []).append((node, link))
    assigned: dict[Place, tuple[InterfaceAddress, ...]] = {}
    for attached in ends.values():
        assigned.update(_assign_network(attached[0][1].network, attached, faults))
    return assigned


def _assign_network(
    network: Network, ends: list[End], faults: list[Fault]
) -> dict[Place, tuple[InterfaceAddress, ...]]:
    for node, link in ends:
        if not _check_given(network, link, faults):
            node.is_whole = False
    ordered = [end for end in ends if end[0].role is Role.ROUTER] + [end for end in ends if end[0].role is Role.HOST]
    chosen: dict[Place, dict[Prefix, list[InterfaceAddress]]] = {(node.name, network.name): {} for node, _ in ends}
    for prefix in sorted(network.prefixes, key=lambda prefix: prefix.version):
        pool = _Pool(prefix, faults)
        for node, link in ends:  # given
            for index, address in enumerate(link.written.address):
                if address.version == prefix.version and address in prefix:
                    place = link.at / "address" / index
                    chosen[node.name, network.name].setdefault(prefix, []).append(pool.reserve(address, node, place))
        automatic = [end for end in ordered if _wants(end, prefix, chosen[end[0].name, network.name])]
        for node, link in automatic if prefix.version == 6 else []:  # before others fill gaps
            found = chosen[node.name, network.name]
            v4 = next((each[0] for at, each in found.items() if at.version == 4), None)
            spelled = pool.spell(node, link, v4) if v4 is not None else None
            if spelled is not None:
                found[prefix] = [spelled]
        for node, link in automatic:
            if prefix not in chosen[node.name, network.name]:
                lowest = pool.take(node, link)
                chosen[node.name, network.name][prefix] = [lowest] if lowest is not None else []
    return {
        place: tuple(address for prefix in network.prefixes for address in found.get(prefix, ()))
        for place, found in chosen.items()
    }


def _check_given(network: Network, link: LinkDraft, faults: list[Fault]) -> bool:
    noted = len(faults)
    only = link.written.only
    if only is not None and not any(f"ipv{prefix.version}" == only for prefix in network.prefixes):
        faults.append(
            (link.at / "only").fault(f"{only}", f"a family of the network: {listed(map(str, network.prefixes))}")
        )
    for index, address in enumerate(link.written.address):
        at = link.at / "address" / index
        if not any(address.version == prefix.version and address in prefix for prefix in network.prefixes):
            allowed = f"an address of '{network.name}': {listed(map(str, network.prefixes))}"
            faults.append(at.fault(f"{address}", allowed))
        elif only is not None and only != f"ipv{address.version}":
            faults.append(at.fault(f"{address} beside `only: {only}`", f"{only} addresses"))
    return len(faults) == noted


def _wants(end: End, prefix: Prefix, chosen: dict[Prefix, list[InterfaceAddress]]) -> bool:
    """Whether the interface gets an automatic address in `prefix`."""
    only = end[1].written.only
    return prefix not in chosen and (only is None or only == f"ipv{prefix.version}")


class _Pool:
    """The addresses of one prefix."""

    def __init__(self, prefix: Prefix, faults: list[Fault]) -> None:
        host_bits = prefix.max_prefixlen - prefix.prefixlen
        self.prefix = prefix
        self.faults = faults
        self.start = int(prefix.network_address)
        # A network's own address, IPv6's subnet-router anycast (RFC 4291 section 2.6.1), and IPv4's broadcast stay
        # free; not so on /31 and /127 (RFC 3021, RFC 6164).
        self.first = 0 if host_bits <= 1 else 1
        self.last = (1 << host_bits) - (2 if prefix.version == 4 and host_bits > 1 else 1)
        self.next = self.first
        self.taken: dict[int, tuple[str, At]] = {}
        self.is_exhausted = False

    def reserve(self, address: Address, node: NodeDraft, at: At) -> InterfaceAddress:
        """A given address; faults if it is nobody's or somebody else's."""
        offset = int(address) - self.start
        if not self.first <= offset <= self.last:
            what = "the network's own address" if offset < self.first else "the broadcast address"
            least, most = self._address(self.first).ip, self._address(self.last).ip
            self.faults.append(at.fault(f"{address}, {what} of {self.prefix}", f"{least} to {most}"))
        elif offset in self.taken:
            other, where = self.taken[offset]
            if other == node.name:
                self.faults.append(at.fault(f"{address} twice", "each address once"))
            elif where.where() != at.where():  # copies of one node have one place, and their fault already
                self.faults.append(at.fault(f"{address}, which '{other}' has at {where.where()}", "each address once"))
        else:
            self.taken[offset] = (node.name, at)
        return self._address(offset)

    def spell(self, node: NodeDraft, link: LinkDraft, address: InterfaceAddress) -> InterfaceAddress | None:
        """192.168.1.10/24 -> ::10: IPv4's host part in decimal digits, read as hexadecimal; None if it is not free."""
        offset = int(str(int(address.ip) - int(address.network.network_address)), 16)
        if offset in self.taken or not self.first <= offset <= self.last:
            return None
        self.taken[offset] = (node.name, link.at)
        return self._address(offset)

    def take(self, node: NodeDraft, link: LinkDraft) -> InterfaceAddress | None:
        """The lowest free address; None and a fault if there is none."""
        while self.next in self.taken:
            self.next += 1
        if self.next > self.last:
            self._report_exhausted(link)
            return None
        self.taken[self.next] = (node.name, link.at)
        return self._address(self.next)

    def _report_exhausted(self, link: LinkDraft) -> None:
        if self.is_exhausted:
            return
        self.is_exhausted = True
        found = f"no free address left in {self.prefix}"
        self.faults.append(link.at.fault(found, f"at most {self.last - self.first + 1} interfaces", of_key=True))

    def _address(self, offset: int) -> InterfaceAddress:
        kind = IPv4Interface if self.prefix.version == 4 else IPv6Interface
        return kind((self.start + offset, self.prefix.prefixlen))
