"""Port forwards that hosts inside ask for, by UPnP-IGD, NAT-PMP or PCP: Debian's miniupnpd as a router's service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.plan.nat.kernel import UPNP_CHAINS
from lab.plan.step import Ready, StartService
from lab.topology.nat import UPNP_SERVICE

if TYPE_CHECKING:
    from lab.topology.model import Interface, Nat, Node

CONFIG = "miniupnpd.conf"
_HTTP_PORT = 5000
_NATPMP_PORT = 5351  # RFC 6886 section 3.1, and of PCP too
_READY_TIMEOUT = 10.0  # seconds


def upnp_service(node: Node, nat: Nat) -> StartService:
    """It listens inside only; ports below 1024 are not to be had, nor forwards to another host than who asks."""
    return StartService(
        node=node.name,
        service=UPNP_SERVICE,
        argv=("miniupnpd", "-d", "-f", CONFIG, "-P", "miniupnpd.pid"),
        files=((CONFIG, _configuration(node, nat)),),
        user="",
        environment=(),
        restart="on-failure",
        after=(),
        ready=Ready("port", node=node.name, protocol="udp", port=_NATPMP_PORT),
        ready_timeout=_READY_TIMEOUT,
        changes_user=False,
    )


def _configuration(node: Node, nat: Nat) -> str:
    """miniupnpd.conf(5); the uuid tells routers apart, and a router's first MAC address does so too."""
    inside = [link for link in node.interfaces if link.name != nat.outside and _prefixes_of(link)]
    own = next(link.mac for link in node.interfaces).replace(":", "")
    forward, prerouting, postrouting = UPNP_CHAINS
    lines = [
        f"ext_ifname={nat.outside}",
        *(f"listening_ip={link.name}" for link in inside),
        f"port={_HTTP_PORT}",
        "enable_upnp=yes",
        "enable_natpmp=yes",
        "secure_mode=yes",
        f"friendly_name={node.name}",
        f"uuid=00000000-0000-4000-8000-{own}",
        "upnp_table_name=lab",
        "upnp_nat_table_name=lab",
        f"upnp_forward_chain={forward}",
        f"upnp_nat_chain={prerouting}",
        f"upnp_nat_postrouting_chain={postrouting}",
        *(f"allow 1024-65535 {prefix} 1024-65535" for link in inside for prefix in _prefixes_of(link)),
        "deny 0-65535 0.0.0.0/0 0-65535",
    ]
    return "\n".join(lines) + "\n"


def _prefixes_of(link: Interface) -> list[str]:
    return [str(address.network) for address in link.addresses if address.version == 4]
