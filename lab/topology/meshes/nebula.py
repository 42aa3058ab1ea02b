"""Nebula: lighthouses tell members of each other's addresses, both ends punch holes, relays help where that fails.

The configuration is of the version that Debian 12 has, 1.6.1. Keys and certificates are the lab's; the plan puts them
into the service's folder, together with the part of the configuration that names the key for questions.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from lab.topology.meshes.known import KnownDriver
from lab.topology.model import Port, Protocol, ReadyLog, Restart, Service, ServiceFile

if TYPE_CHECKING:
    from lab.topology.meshes.known import MeshSetting
    from lab.topology.model import Address

PORT = 4242
READY_TIMEOUT = 15.0  # seconds
MTU = 1300  # bytes: 1500 less what IPv6, UDP, nebula and a relay's nebula add, and room for a tunnel of the carrier's

# Shorter than nebula's own (100 ms; 5 s; 10 s; 10 s; 1 s), so that a lab shows in seconds what takes minutes outside.
_TIMERS = {
    "handshakes": {"try_interval": "50ms", "retries": 15},
    "timers": {"connection_alive_interval": 1, "pending_deletion_interval": 2},
}
_REPORT_INTERVAL = 2  # seconds between two reports of a member's addresses to the lighthouses
_PUNCH_DELAY = "100ms"  # a hole is punched a moment after the other end has opened its own


def service(setting: MeshSetting) -> Service:
    """Ready once a lighthouse has answered the member's handshake; a lighthouse, once its interface is there."""
    mesh, member = setting.mesh, setting.member
    lighthouses = [seen.member for seen in setting.others if seen.member.is_lighthouse]
    if member.is_lighthouse or not lighthouses:
        ready = ReadyLog('"msg":"Nebula interface is active"')
    else:
        answered = "|".join(re.escape(str(each.address.ip)) for each in lighthouses)
        ready = ReadyLog(rf'"msg":"Handshake message received".*"vpnIp":"(?:{answered})"')
    return Service(
        name=mesh.name,
        argv=("nebula", "-config", "config"),
        files=(ServiceFile("config/mesh.yml", json.dumps(configuration(setting), indent=2) + "\n"),),
        ports=(Port(Protocol.UDP, mesh.port),) if member.is_lighthouse else (),
        ready=ready,
        ready_timeout=READY_TIMEOUT,
        restart=Restart.ON_FAILURE,
        user=None,
        environment=(),
        after=() if member.is_lighthouse else tuple(f"{each.node}/{mesh.name}" for each in lighthouses),
        certificate=(),
        changes_user=False,
    )


def configuration(setting: MeshSetting) -> dict[str, Any]:
    """The values of nebula's configuration file, but for the keys that may ask it."""
    mesh, member = setting.mesh, setting.member
    lighthouses = [str(seen.member.address.ip) for seen in setting.others if seen.member.is_lighthouse]
    relays = [str(seen.member.address.ip) for seen in setting.others if seen.member.is_relay]
    anything = [{"port": "any", "proto": "any", "host": "any"}]
    return {
        "pki": {"ca": "ca.crt", "cert": "host.crt", "key": "host.key"},
        "static_host_map": {
            str(seen.member.address.ip): [_endpoint(address, seen.member.port) for address in seen.addresses]
            for seen in setting.others
            if seen.addresses
        },
        "lighthouse": {
            "am_lighthouse": member.is_lighthouse,
            "interval": _REPORT_INTERVAL,
            "hosts": [] if member.is_lighthouse else lighthouses,
            "local_allow_list": {"interfaces": {re.escape(other.name): False for other in setting.meshes}},
            # Never through another overlay: that path would fall with it, or lead in a circle.
            "remote_allow_list": {"0.0.0.0/0": True, "::/0": True}
            | {str(other.prefix): False for other in setting.meshes},
        },
        "listen": {"host": "::", "port": member.port},
        "punchy": {"punch": True, "respond": True, "delay": _PUNCH_DELAY},
        "preferred_ranges": [
            str(prefix) for network in setting.networks if not network.internet for prefix in network.prefixes
        ],
        # One relay cannot be reached through another (nebula's documentation of `relay`).
        "relay": {
            "am_relay": member.is_relay,
            "use_relays": bool(relays),
            "relays": [] if member.is_relay else relays,
        },
        "tun": {"dev": mesh.name, "mtu": MTU},
        **_TIMERS,
        "logging": {"level": "info", "format": "json", "timestamp_format": "2006-01-02T15:04:05.000000Z07:00"},
        "firewall": {"outbound": anything, "inbound": anything},
    }


def _endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


KNOWN = KnownDriver(PORT, service)
