"""Meshes as written -> as meant: members looked up and addressed, names given, ways to the lighthouses checked."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from lab.topology import names
from lab.topology.faults import Wrong, listed
from lab.topology.mesh_file import AUTOMATIC
from lab.topology.mesh_paths import barred, shared_addresses
from lab.topology.meshes.drivers import DRIVERS
from lab.topology.model import Mesh, MeshDriver, MeshMember
from lab.topology.scalars import parse_address

if TYPE_CHECKING:
    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.mesh_file import MeshFile
    from lab.topology.mesh_paths import Paths
    from lab.topology.model import Prefix
    from lab.topology.source import At

_STEP = 100  # between the ports of two members, which leaves room for other meshes
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class _Seat:
    """A member as the file names it."""

    node: NodeDraft
    at: At
    address: str  # `auto` or an address
    is_lighthouse: bool


def resolve_meshes(directory: Directory, paths: Paths, faults: list[Fault]) -> tuple[Mesh, ...]:
    """Every mesh whose shape is sound; its names and addresses become known to the directory."""
    meshes: list[Mesh] = []
    taken: list[tuple[Prefix, str]] = [
        (prefix, f"the network '{network.name}'")
        for network in directory.networks.values()
        for prefix in network.prefixes
    ]
    for number, (name, (at, written)) in enumerate(directory.gathered.meshes.items()):
        if written is None:
            continue
        if name in directory.gathered.networks:
            found = f"'{name}', which is a network"
            faults.append(at.fault(found, "another name, for interfaces have it", of_key=True))
        _check_prefix(written.prefix, at / "prefix", taken, faults)
        taken.append((written.prefix, f"the mesh '{name}'"))
        seats = _seats(written, at, directory, faults)
        for seat in seats:
            _check_free(name, seat, faults)
        driver = MeshDriver(written.driver)
        port = DRIVERS[driver].port + number
        relays = _relays(written, at, seats, faults)
        mesh = Mesh(
            name=name,
            driver=driver,
            prefix=written.prefix,
            domain=_domain(name, written, at, meshes, faults),
            port=port,
            members=tuple(
                MeshMember(seat.node.name, address, own_port, seat.is_lighthouse, seat.node.name in relays)
                for (seat, address), own_port in _with_ports(port, _addressed(written.prefix, at, seats, faults))
            ),
        )
        meshes.append(mesh)
        directory.add_mesh(mesh)
        _check_ways(seats, port, paths, directory, faults)
    return tuple(meshes)


def _check_prefix(prefix: Prefix, at: At, taken: list[tuple[Prefix, str]], faults: list[Fault]) -> None:
    if prefix.version != 4:
        faults.append(at.fault(f"{prefix}", "an IPv4 prefix, as 10.144.0.0/16"))
        return
    if prefix.is_multicast or prefix.is_loopback or prefix.is_link_local or int(prefix.network_address) >> 24 == 0:
        faults.append(at.fault(f"{prefix}", "a unicast prefix that is not loopback or link-local"))
    for other, whose in taken:
        if isinstance(other, IPv4Network) and other.overlaps(prefix):
            faults.append(at.fault(f"{prefix} overlaps {other} of {whose}", "a prefix of its own"))
            return


def _seats(written: MeshFile, at: At, directory: Directory, faults: list[Fault]) -> list[_Seat]:
    """Every member, lighthouses first."""
    seats: dict[str, _Seat] = {}
    if not written.lighthouses:
        faults.append((at / "lighthouses").fault("no lighthouse", "at least one node that the others have a way to"))
    for key, entries in (("lighthouses", written.lighthouses), ("members", written.members)):
        for name, (address, place) in entries.items():
            here = at / key / place
            found = directory.members(name, here, faults)
            if len(found) > 1 and address != AUTOMATIC:
                faults.append(here.fault(f"{address} for {len(found)} nodes", "auto, or a node of its own"))
                address = AUTOMATIC  # noqa: PLW2901 - so that no other fault follows from it
            for node in found:
                if node in seats:
                    first = seats[node].at.where()
                    allowed = "each node once; a lighthouse is a member too"
                    faults.append(here.fault(f"'{node}' again, first at {first}", allowed))
                    continue
                seats[node] = _Seat(directory.nodes[node], here, address, key == "lighthouses")
    return list(seats.values())


def _addressed(prefix: Prefix, at: At, seats: list[_Seat], faults: list[Fault]) -> list[tuple[_Seat, IPv4Interface]]:
    """Given addresses first; then the lowest free one each, in order."""
    if not isinstance(prefix, IPv4Network):
        return []
    chosen: dict[IPv4Address, _Seat] = {}
    for seat in seats:
        address = _given(seat, prefix, faults)
        if address in chosen:
            faults.append(seat.at.fault(f"{address}, which '{chosen[address].node.name}' has", "each address once"))
        elif address is not None:
            chosen[address] = seat
    free = (address for address in prefix.hosts() if address not in chosen)
    automatic: list[tuple[IPv4Address, _Seat]] = []
    for seat in seats:
        if seat.address != AUTOMATIC:
            continue
        lowest = next(free, None)
        if lowest is None:
            room = sum(1 for _ in prefix.hosts())
            faults.append((at / "prefix").fault(f"{prefix}, {room} addresses for {len(seats)} members", "a wider one"))
            break
        automatic.append((lowest, seat))
    address_of = {seat.node.name: address for address, seat in (*chosen.items(), *automatic)}
    return [
        (seat, IPv4Interface((address_of[seat.node.name], prefix.prefixlen)))
        for seat in seats
        if seat.node.name in address_of
    ]


def _with_ports(
    first: int, addressed: list[tuple[_Seat, IPv4Interface]]
) -> list[tuple[tuple[_Seat, IPv4Interface], int]]:
    """Lighthouses have the mesh's port; the others have one each, as long as there are some.

    Two behind one NAT that send from the same port contend for it outside: the second may get another outside port for
    each peer, so that nobody knows the one to punch a hole to.
    """
    ports = itertools.cycle(range(first + _STEP, _LAST_PORT, _STEP))
    return [((seat, address), first if seat.is_lighthouse else next(ports)) for seat, address in addressed]


def _given(seat: _Seat, prefix: IPv4Network, faults: list[Fault]) -> IPv4Address | None:
    if seat.address == AUTOMATIC:
        return None
    try:
        address = parse_address(seat.address)
    except Wrong as wrong:
        faults.append(seat.at.fault(f"{wrong}, or auto"))
        return None
    ends = (prefix.network_address, prefix.broadcast_address) if prefix.prefixlen < 31 else ()
    if not isinstance(address, IPv4Address) or address not in prefix or address in ends:
        faults.append(seat.at.fault(f"{address}", f"an address for a node in {prefix}, or auto"))
        return None
    return address


def _relays(written: MeshFile, at: At, seats: list[_Seat], faults: list[Fault]) -> set[str]:
    """The nodes that relay: as written, else the lighthouses."""
    known = [seat.node.name for seat in seats]
    if written.relays is None:
        return {seat.node.name for seat in seats if seat.is_lighthouse}
    if written.relays and MeshDriver(written.driver) is MeshDriver.WIREGUARD:
        allowed = "leave it out: with wireguard the first lighthouse passes on what members cannot send each other"
        faults.append((at / "relays").fault("relays of a mesh with wireguard", allowed, of_key=True))
    for index, name in enumerate(written.relays):
        if name not in known:
            found = f"'{name}', which is no member"
            allowed = f"members: {listed(known)}"
            faults.append((at / "relays" / index).fault(found, allowed, near=(name, known)))
    return set(written.relays)


def _domain(name: str, written: MeshFile, at: At, meshes: list[Mesh], faults: list[Fault]) -> str:
    domain = written.domain if written.domain is not None else name
    place = at / "domain"
    try:
        names.HOST.check(domain)
    except Wrong as wrong:
        faults.append(place.fault(str(wrong)))
    same = next((other.name for other in meshes if other.domain == domain), None)
    if same is not None:
        faults.append(place.fault(f"'{domain}', the domain of the mesh '{same}'", "another one"))
    return domain


def _check_free(mesh: str, seat: _Seat, faults: list[Fault]) -> None:
    """The mesh's name is that of an interface and of a service in each member."""
    if mesh in seat.node.written.services:
        place = seat.node.at / "services" / mesh
        faults.append(
            place.fault(f"'{mesh}', the service of the mesh at {seat.at.where()}", "another name", of_key=True)
        )
    for interface in seat.node.interfaces:
        if interface.name == mesh != interface.network:
            found = f"'{mesh}', the interface of the mesh at {seat.at.where()}"
            faults.append((seat.node.at / "links" / interface.network).fault(found, "another name for one of them"))


def _check_ways(seats: list[_Seat], port: int, paths: Paths, directory: Directory, faults: list[Fault]) -> None:
    """Everyone has a way to a lighthouse, and each lighthouse a way in, which its own firewall does not bar.

    With nodes whose links have faults nobody knows what the ways would be.
    """
    if directory.gathered.partial or any(not node.is_whole for node in directory.nodes.values()):
        return
    lighthouses = [seat for seat in seats if seat.is_lighthouse]
    shut: set[str] = set()
    for lighthouse in lighthouses:
        far = [seat for seat in seats if seat is not lighthouse and not shared_addresses(seat.node, lighthouse.node)]
        if far and not any(paths.reachable(seat.node, lighthouse.node) for seat in far):
            shut.add(lighthouse.node.name)
            why = _why(lighthouse, directory)
            found = f"'{lighthouse.node.name}', which nobody beyond its own networks has a way to{why}"
            faults.append(lighthouse.at.fault(found, "a lighthouse that others reach, as a node on the internet"))
    if shut or not lighthouses:
        return
    for seat in seats:
        if not seat.is_lighthouse and not any(paths.reachable(seat.node, each.node) for each in lighthouses):
            towards = listed(each.node.name for each in lighthouses)
            found = f"'{seat.node.name}', which has no way to a lighthouse ({towards})"
            faults.append(seat.at.fault(found, "a node whose links and routes lead to one"))
    for lighthouse in lighthouses:
        ways = [paths.arrivals(seat.node, lighthouse.node) for seat in seats if not seat.is_lighthouse]
        closed = sorted(
            {network for each in ways if each and each <= barred(lighthouse.node, port) for network in each}
        )
        if closed:
            found = f"'{lighthouse.node.name}', whose firewall lets nothing in from {listed(closed)} at UDP port {port}"
            faults.append(lighthouse.at.fault(found, f"`allow: [{{udp: {port}}}]` in its `firewall`"))


def _why(lighthouse: _Seat, directory: Directory) -> str:
    own = {interface.network for interface in lighthouse.node.interfaces}
    for router in directory.nodes.values():
        nat = router.written.nat
        if nat is not None and nat.outside not in own and own & {link.network for link in router.interfaces}:
            return f", for it is behind the NAT of '{router.name}'"
    return ""
