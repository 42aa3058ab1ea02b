"""A router's `nat` as written -> as meant."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from lab.topology.faults import listed, shown
from lab.topology.model import Nat, Role
from lab.topology.nat_behaviour import Engine
from lab.topology.nat_forwards import resolve_forwards
from lab.topology.nat_prefix import resolve_prefix
from lab.topology.nat_settings import choose_engine, resolve_behaviour

if TYPE_CHECKING:
    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.file import NatFile
    from lab.topology.model import Interface
    from lab.topology.nat_behaviour import Behaviour
    from lab.topology.source import At

NATBOX_SERVICE = "nat"
UPNP_SERVICE = "upnp"


def resolve_nat(node: NodeDraft, directory: Directory, faults: list[Fault]) -> Nat | None:
    """None without `nat`, or with faults in it."""
    written = node.written.nat
    if written is None:
        return None
    at = node.at / "nat"
    if node.role is not Role.ROUTER and node.is_whole:
        faults.append(at.fault("nat on a host", "`role: router`", of_key=True))
    outside = outside_interface(node, written.outside, at / "outside", faults)
    behaviour = resolve_behaviour(written, node.written.firewall, at, faults)
    engine, behaviour = choose_engine(written, behaviour, at, faults)
    _check_services(node, engine, written, faults)
    forwards = resolve_forwards(node, written, at / "forwards", directory, faults)
    if outside is None:
        return None
    pool = _pool(written, outside, at, faults)
    _check_blocks(node, outside, behaviour, pool, directory, at, faults)
    ipv6_prefix = resolve_prefix(node, written, at / "ipv6_prefix", directory, faults)
    return Nat(outside.name, forwards, pool, written.preset, behaviour, engine, written.upnp, ipv6_prefix)


def outside_interface(node: NodeDraft, network: str, at: At, faults: list[Fault]) -> Interface | None:
    """The node's interface on the network of the key `outside`."""
    for interface in node.interfaces:
        if interface.network == network:
            return interface
    linked = list(node.written.links)
    if network not in linked and node.is_whole:
        faults.append(
            at.fault(f"no link to {shown(network)}", f"links of the node: {listed(linked)}", near=(network, linked))
        )
    return None


def _check_services(node: NodeDraft, engine: Engine, written: NatFile, faults: list[Fault]) -> None:
    """What translates is a service too, of a name that no other may have."""
    own = {NATBOX_SERVICE: engine is Engine.NATBOX, UPNP_SERVICE: written.upnp}
    for name, is_there in own.items():
        if is_there and name in node.written.services:
            found = f"a service '{name}' beside `nat`, which runs one of that name"
            faults.append((node.at / "services" / name).fault(found, "another name", of_key=True))


def _pool(written: NatFile, outside: Interface, at: At, faults: list[Fault]) -> tuple[IPv4Address, ...]:
    """The outside addresses that mappings get: as given, else the first one."""
    own = [address.ip for address in outside.addresses if isinstance(address.ip, IPv4Address)]
    if not own:
        found = f"no IPv4 address on '{written.outside}'"
        faults.append((at / "outside").fault(found, "an outside that NAT can write"))
    if written.pool is None:
        return tuple(own[:1])
    if written.upnp and written.pool != own[:1]:
        found = "`upnp` beside a `pool` that is not the first outside address, the only one that it knows"
        faults.append((at / "upnp").fault(found, "one or the other"))
    pool: list[IPv4Address] = []
    for index, address in enumerate(written.pool):
        place = at / "pool" / index
        if address in pool:
            faults.append(place.fault(f"{address} twice", "each address once"))
        elif address not in own:
            allowed = f"an IPv4 address of its link to '{written.outside}': {listed(map(str, own))}"
            faults.append(place.fault(f"{address}", allowed))
        else:
            pool += [address] if isinstance(address, IPv4Address) else []
    return tuple(pool)


def _check_blocks(
    node: NodeDraft,
    outside: Interface,
    behaviour: Behaviour,
    pool: tuple[IPv4Address, ...],
    directory: Directory,
    at: At,
    faults: list[Fault],
) -> None:
    """Every inside address has a block of its own (RFC 7422), so there must be as many."""
    size, ports = behaviour.port_block, behaviour.ports
    if size is None:
        return
    blocks = (ports.last - ports.first + 1) // size
    place = at / "port_block"
    if blocks == 0:
        found = f"blocks of {size} ports in the range {ports.first}-{ports.last}"
        faults.append(place.fault(found, f"at most its {ports.last - ports.first + 1}"))
        return
    inside = {interface.network for interface in node.interfaces} - {outside.network}
    subscribers = {
        address.ip
        for other in directory.nodes.values()
        for interface in other.interfaces
        for address in interface.addresses
        if other is not node and interface.network in inside and address.version == 4
    }
    if len(subscribers) > blocks * len(pool) > 0:
        found = f"{blocks * len(pool)} blocks of {size} ports for {len(subscribers)} inside addresses"
        faults.append(place.fault(found, "a smaller block, a wider range, or a longer `pool`"))
