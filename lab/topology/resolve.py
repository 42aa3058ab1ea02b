"""As written -> as meant: the one place where a topology gets its meaning; all faults are gathered on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.directory import Directory
from lab.topology.draft import draft_nodes
from lab.topology.firewall import resolve_firewall
from lab.topology.impaired_links import impaired_links
from lab.topology.interfaces import attach
from lab.topology.mesh_paths import Paths
from lab.topology.model import Node, Topology
from lab.topology.nat import resolve_nat
from lab.topology.nat_prefix import seen_prefixes
from lab.topology.networks import check_cables, resolve_networks
from lab.topology.node_names import hosts_entries, resolvers, sysctls
from lab.topology.routes import Station, work_out
from lab.topology.service import resolve_services
from lab.topology.static_routes import given_routes, merge

if TYPE_CHECKING:
    from pathlib import Path

    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.include import Gathered
    from lab.topology.model import Mesh, Service
    from lab.topology.source import At


def resolve(name: str, file: Path, gathered: Gathered, top: At, faults: list[Fault]) -> Topology:
    """The topology; complete and consistent only if no fault was added."""
    _check_nodes(gathered, top, faults)
    networks = resolve_networks(gathered, faults)
    nodes = draft_nodes(gathered, networks, faults)
    check_cables(gathered, nodes, faults)
    attach(nodes, faults)
    directory = Directory(gathered, networks, nodes)
    stations = [_station(node) for node in nodes.values()]
    worked_out = work_out(networks.values(), stations, seen_prefixes(nodes.values()))
    routes = {node.name: merge(worked_out[node.name], given_routes(node, faults)) for node in nodes.values()}
    meshes, of_meshes = _meshes(directory, Paths(nodes, routes), faults)
    services, ssh = resolve_services(name, directory, of_meshes, faults)
    meant: list[Node] = []
    for node in nodes.values():
        nat = resolve_nat(node, directory, faults)
        meant.append(
            Node(
                name=node.name,
                role=node.role,
                image=node.written.image,
                interfaces=node.interfaces,
                routes=routes[node.name],
                nat=nat,
                firewall=resolve_firewall(node, nat, directory, faults),
                dns=resolvers(node, gathered.dns, top, directory, faults),
                hosts=hosts_entries(node, directory, faults),
                sysctls=sysctls(node, faults),
                services=services.get(node.name, ()),
            )
        )
    return Topology(name, file, tuple(networks.values()), tuple(meant), ssh, impaired_links(nodes, faults), meshes)


def _meshes(
    directory: Directory, paths: Paths, faults: list[Fault]
) -> tuple[tuple[Mesh, ...], dict[str, tuple[Service, ...]]]:
    """Nothing of the kind is imported for a topology without."""
    if not directory.gathered.meshes:
        return (), {}
    from lab.topology.mesh import resolve_meshes
    from lab.topology.mesh_services import mesh_services

    meshes = resolve_meshes(directory, paths, faults)
    return meshes, mesh_services(meshes, directory, paths)


def _check_nodes(gathered: Gathered, top: At, faults: list[Fault]) -> None:
    """A lab has a machine at least; of `nodes:` or `include:` with faults nobody knows what they would hold."""
    source = top.source
    is_unsure = "nodes" in source.tree.keys and source.data.get("nodes") != {}
    if gathered.nodes or is_unsure or (faults and "include" in source.tree.keys):
        return
    faults.append((top / "nodes").fault("no nodes", "at least one, as `nodes: {nas: {}}`", of_key=True))


def _station(node: NodeDraft) -> Station:
    nat = node.written.nat
    return Station(node.name, node.role, node.interfaces, nat.outside if nat is not None else None)
