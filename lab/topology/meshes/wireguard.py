"""WireGuard with static peers: the first lighthouse is the hub that passes on what members cannot send each other.

Neighbours send to each other at their addresses on networks that they share. Nobody asks anybody for addresses, and no
holes are punched: what WireGuard does not do is not added to it here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lab.topology.meshes.known import KnownDriver
from lab.topology.model import Port, Protocol, ReadyLog, Restart, Service, ServiceFile

if TYPE_CHECKING:
    from lab.topology.meshes.known import MeshSetting, Seen
    from lab.topology.model import MeshMember

PORT = 51820
KEEPALIVE = 5  # seconds: also what makes the first handshake, so that a peer who was told nothing learns an endpoint
OTHER_KEEPALIVE = 8  # of the second of two that both have to begin
READY_TIMEOUT = 15.0  # seconds


def service(setting: MeshSetting) -> Service:
    """Ready once the hub has answered the member's handshake; a lighthouse, once its interface is there."""
    mesh, member = setting.mesh, setting.member
    hub = None if member.is_lighthouse else _hub(setting)
    forwards = ("--forward",) if member.is_lighthouse else ()
    awaited = ("--await", hub.member.node) if hub is not None else ()
    return Service(
        name=mesh.name,
        argv=(
            *("python3", "-m", "lab.mesh.wireguard_end", mesh.name, str(member.address), str(member.port)),
            *forwards,
            *awaited,
        ),
        files=(ServiceFile("peers.json", json.dumps(peers(setting), indent=2) + "\n"),),
        ports=(Port(Protocol.UDP, mesh.port),) if member.is_lighthouse else (),
        ready=ReadyLog("^ready$"),
        ready_timeout=READY_TIMEOUT,
        restart=Restart.ON_FAILURE,
        user=None,
        environment=(),
        after=(f"{hub.member.node}/{mesh.name}",) if hub is not None else (),
        certificate=(),
        changes_user=False,
    )


def peers(setting: MeshSetting) -> list[dict[str, Any]]:
    """The peers of a member: node, allowed prefixes, endpoint, and keepalive; no endpoint where none is known.

    A lighthouse has all members as peers. Any other member has the lighthouses and its neighbours.
    """
    hub = None if setting.member.is_lighthouse else _hub(setting)
    wanted = [
        seen
        for seen in setting.others
        if setting.member.is_lighthouse or seen.member.is_lighthouse or seen.member.node in setting.neighbours
    ]
    return [
        {
            "node": seen.member.node,
            "allowed": [str(setting.mesh.prefix)] if seen is hub else [f"{seen.member.address.ip}/32"],
            "endpoint": _endpoint(seen),
            "keepalive": _keepalive(setting.member, seen),
        }
        for seen in wanted
    ]


def _hub(setting: MeshSetting) -> Seen | None:
    return next((seen for seen in setting.others if seen.member.is_lighthouse and seen.addresses), None)


def _keepalive(member: MeshMember, seen: Seen) -> int | None:
    """Where one is enough, one of two keeps alive: it makes the handshake.

    Two that begin at once and keep alive at the same intervals undo each other's handshakes for minutes: each lets
    its own go for the other's. But whom the other cannot send to, as behind a firewall or NAT, has to begin.
    """
    if not seen.addresses or (seen.is_heard and not seen.hears):
        return None
    is_first = _rank(member) < _rank(seen.member)
    if seen.is_heard:
        return KEEPALIVE if is_first else None
    return KEEPALIVE if is_first or seen.hears else OTHER_KEEPALIVE


def _rank(member: MeshMember) -> tuple[bool, bytes]:
    return member.is_lighthouse, member.address.ip.packed


def _endpoint(seen: Seen) -> str | None:
    if not seen.addresses:
        return None
    address = min(seen.addresses, key=lambda each: each.version)
    return f"[{address}]:{seen.member.port}" if address.version == 6 else f"{address}:{seen.member.port}"


KNOWN = KnownDriver(PORT, service)
