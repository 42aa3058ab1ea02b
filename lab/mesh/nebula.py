"""What a member's nebula says of its tunnels: its host map, asked by ssh on loopback, and the times of its log."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.mesh.paths import View, Way
from lab.mesh.underlay import Underlay, spelled

if TYPE_CHECKING:
    from lab.mesh.paths import Answers, Logs, Views

_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
# What nebula logs when a tunnel begins to use an address or a relay.
_CHANGES = ("Handshake message received", "Handshake message sent", "Host roamed to new udp ip/port.")


def question(mesh: dict[str, Any]) -> list[str]:
    """The command that asks, to be run in the member's node."""
    key = f"/run/lab/services/{mesh['name']}/status_key"
    options = [word for option in (*_OPTIONS, "ConnectTimeout=3") for word in ("-o", option)]
    return ["ssh", "-F", "none", "-i", key, *options, "-p", str(mesh["port"]), "lab@127.0.0.1", "list-hostmap -json"]


def views(answers: Answers, logs: Logs, mesh: dict[str, Any], underlay: Underlay) -> Views:
    """Each member's view of each peer that it has a tunnel to."""
    name_of = {member["address"].partition("/")[0]: member["node"] for member in mesh["members"]}
    found: Views = {}
    for node, answer in answers.items():
        if isinstance(answer, LabError):
            found[node] = str(answer)
            continue
        try:
            entries = [entry for entry in json.loads(answer) or [] if entry["vpnIp"] in name_of]
            began = _times(logs(node), name_of)
            said = [_view(node, entry, name_of, underlay, began) for entry in entries]
            found[node] = {view.peer: view for view in said}
        except (ValueError, KeyError, TypeError):
            found[node] = f"no host map of nebula: {answer[:200]!r}"
    return found


def _view(
    node: str, entry: dict[str, Any], name_of: dict[str, str], underlay: Underlay, began: dict[str, float]
) -> View:
    peer, remote = name_of[entry["vpnIp"]], entry["currentRemote"]
    since = began.get(peer)
    if remote is not None:  # nebula prefers an address to its relays
        way = underlay.way(node, peer, remote["ip"])
        at = spelled(remote["ip"], remote["port"])
        return View(node, peer, way, at, underlay.owner(remote["ip"]), since=since)
    relays = tuple(name_of.get(relay, relay) for relay in entry["currentRelaysToMe"])
    return View(node, peer, Way.RELAYED, relays=relays, since=since) if relays else View(node, peer, Way.NONE)


def _times(log: str, name_of: dict[str, str]) -> dict[str, float]:
    """When each peer's tunnel last began to use an address or a relay; lines that are not nebula's are passed over."""
    began: dict[str, float] = {}
    for line in log.splitlines():
        try:
            said = json.loads(line)
            if said.get("msg") in _CHANGES and said.get("handshake", {}).get("stage", 2) == 2:
                began[name_of[said["vpnIp"]]] = datetime.fromisoformat(said["time"]).timestamp()
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return began
