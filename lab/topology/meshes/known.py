"""What a mesh driver is, and what it may refer to when it makes the service of a member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.topology.model import Address, Mesh, MeshMember, Network, Service


@dataclass(frozen=True, slots=True)
class Seen:
    """Another member, and where it can be sent to beforehand: without a question to a lighthouse."""

    member: MeshMember
    addresses: tuple[Address, ...]  # of a neighbour those on shared networks, of a lighthouse those with a way; or none
    hears: bool  # what the member sends there beforehand gets in
    is_heard: bool  # what it sends to the member beforehand gets in


@dataclass(frozen=True, slots=True)
class MeshSetting:
    """Where the service of a member stands."""

    mesh: Mesh
    member: MeshMember
    others: tuple[Seen, ...]
    neighbours: frozenset[str]  # nodes that share a network with the member
    networks: tuple[Network, ...]  # all of the lab
    meshes: tuple[Mesh, ...]  # all of the lab
    number: int  # of the mesh, from 0


@dataclass(frozen=True, slots=True)
class KnownDriver:
    """An entry of the list of drivers."""

    port: int  # UDP, of the first mesh; each further one has the next
    service: Callable[[MeshSetting], Service]
