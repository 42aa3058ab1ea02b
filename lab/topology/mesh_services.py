"""The service of each member of each mesh, made by the mesh's driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.mesh_paths import barred, shared_addresses
from lab.topology.meshes.drivers import DRIVERS
from lab.topology.meshes.known import MeshSetting, Seen

if TYPE_CHECKING:
    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.mesh_paths import Paths
    from lab.topology.model import Address, Mesh, MeshMember, Service


def mesh_services(meshes: tuple[Mesh, ...], directory: Directory, paths: Paths) -> dict[str, tuple[Service, ...]]:
    """By node; in the order of the meshes."""
    services: dict[str, list[Service]] = {}
    networks = tuple(directory.networks.values())
    for number, mesh in enumerate(meshes):
        for member in mesh.members:
            others = tuple(_seen(member, other, directory, paths) for other in mesh.members if other is not member)
            own = directory.nodes[member.node]
            neighbours = frozenset(
                seen.member.node for seen in others if shared_addresses(own, directory.nodes[seen.member.node])
            )
            setting = MeshSetting(mesh, member, others, neighbours, networks, meshes, number)
            services.setdefault(member.node, []).append(DRIVERS[mesh.driver].service(setting))
    return {node: tuple(each) for node, each in services.items()}


def _seen(member: MeshMember, other: MeshMember, directory: Directory, paths: Paths) -> Seen:
    own, its = directory.nodes[member.node], directory.nodes[other.node]
    addresses = _known(own, its, other, paths)
    hears = bool(addresses) and _hears(other, its, own, paths)
    is_heard = bool(_known(its, own, member, paths)) and _hears(member, own, its, paths)
    return Seen(other, addresses, hears, is_heard)


def _known(start: NodeDraft, to: NodeDraft, member: MeshMember, paths: Paths) -> tuple[Address, ...]:
    """Neighbours at shared networks, for they find each other there; other lighthouses wherever a way leads."""
    return shared_addresses(start, to) or (paths.reachable(start, to) if member.is_lighthouse else ())


def _hears(member: MeshMember, node: NodeDraft, other: NodeDraft, paths: Paths) -> bool:
    """Whether the member's own firewall lets in what it did not ask for."""
    closed = barred(node, member.port, to_some=True)
    return not closed or not closed & paths.arrivals(other, node)
