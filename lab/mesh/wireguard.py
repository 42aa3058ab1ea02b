"""What a member's WireGuard says: `wg show NAME dump`, with the hub's part worked out from allowed prefixes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.mesh.paths import View, Way

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.mesh.paths import Answers, Logs, Views
    from lab.mesh.underlay import Underlay

LIVES = 180.0  # seconds that a handshake holds: REJECT_AFTER_TIME of WireGuard's paper, section 6.1


@dataclass(frozen=True, slots=True)
class _Peer:
    """A line of the dump."""

    key: str
    endpoint: str
    allowed: tuple[str, ...]
    handshake: float  # seconds since the epoch; 0: none yet


def question(mesh: dict[str, Any]) -> list[str]:
    """The command that asks, to be run in the member's node."""
    return ["wg", "show", mesh["name"], "dump"]


def views(answers: Answers, _logs: Logs, mesh: dict[str, Any], underlay: Underlay) -> Views:
    """Each member's view of each peer that it can send to. WireGuard does not keep since when."""
    found: Views = {node: str(answer) for node, answer in answers.items() if isinstance(answer, LabError)}
    dumps = {node: answer.splitlines() for node, answer in answers.items() if isinstance(answer, str)}
    node_of: dict[str, str] = {}
    for node, lines in dumps.items():
        try:
            node_of[lines[0].split("\t")[1]] = node
        except IndexError:
            found[node] = f"no dump of WireGuard: {lines!r}"
    address_of = {member["node"]: member["address"].partition("/")[0] for member in mesh["members"]}
    for node, lines in dumps.items():
        if node in found:
            continue
        peers = [_peer(line) for line in lines[1:] if line.count("\t") >= 7]
        said: dict[str, View] = {}
        for other, address in address_of.items():
            view = None if other == node else _view(node, other, address, peers, node_of, underlay)
            if view is not None:
                said[other] = view
        found[node] = said
    return found


def _peer(line: str) -> _Peer:
    key, _, endpoint, allowed, handshake = line.split("\t")[:5]
    return _Peer(key, endpoint, tuple(each for each in allowed.split(",") if each != "(none)"), float(handshake))


def _view(
    node: str, other: str, address: str, peers: Iterable[_Peer], node_of: dict[str, str], underlay: Underlay
) -> View | None:
    """Packets go to the peer with the longest allowed prefix that holds the address (wg(8))."""
    holding = [
        (ip_network(prefix).prefixlen, peer)
        for peer in peers
        for prefix in peer.allowed
        if ip_address(address) in ip_network(prefix)
    ]
    if not holding:
        return None
    _, peer = max(holding, key=lambda each: each[0])
    if time.time() - peer.handshake > LIVES or peer.endpoint == "(none)":
        return None
    through = node_of.get(peer.key, "?")
    if through != other:
        return View(node, other, Way.RELAYED, relays=(through,))
    host = peer.endpoint.rpartition(":")[0].strip("[]")
    return View(node, other, underlay.way(node, other, host), peer.endpoint, underlay.owner(host))
