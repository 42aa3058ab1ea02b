"""The declared behaviour of a router's NAT as plain values: what a running lab says, and what is measured against."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lab.topology.model import Ipv6Passage, Policy
from lab.topology.nat_behaviour import Dependence

if TYPE_CHECKING:
    from lab.topology.model import Firewall, Interface, Node, PrefixTranslation


def nat_facts(node: Node) -> dict[str, Any] | None:
    """Every knob under its name in the topology file; times in seconds. None: the node does not translate."""
    nat = node.nat
    if nat is None:
        return None
    knobs = {name: _plain(value) for name, value in asdict(nat.behaviour).items()}
    return {
        "engine": str(nat.engine),
        "preset": nat.preset,
        "outside": next(_side(link) for link in node.interfaces if link.name == nat.outside),
        "inside": [_side(link) for link in node.interfaces if link.name != nat.outside],
        "pool": [str(address) for address in nat.pool],
        **knobs,
        "icmp_errors": "pass" if nat.behaviour.icmp_errors else "drop",
        "upnp": nat.upnp,
        "ipv6_prefix": _prefixes(nat.ipv6_prefix),
        "ipv6_filtering": _ipv6_filtering(node.firewall),
        "forwards": [
            {
                "protocol": str(forward.protocol),
                "port": forward.port,
                "address": str(forward.address),
                "to_port": forward.to_port,
            }
            for forward in nat.forwards
        ],
    }


def _ipv6_filtering(firewall: Firewall) -> str | None:
    """Whose IPv6 comes in through the firewall, in the words of `filtering`; None: some addresses are exceptions."""
    if any(allow.destination is not None and allow.destination.version == 6 for allow in firewall.allow):
        return None
    is_open = firewall.ipv6 is Ipv6Passage.OPEN
    if is_open or (firewall.forward is Policy.ACCEPT and firewall.ipv6 is Ipv6Passage.AS_IPV4):
        return str(Dependence.ENDPOINT_INDEPENDENT)
    return str(Dependence.ADDRESS_AND_PORT_DEPENDENT)  # known connections only


def _prefixes(translation: PrefixTranslation | None) -> dict[str, str] | None:
    if translation is None:
        return None
    return {"inside": str(translation.inside), "outside": str(translation.outside)}


def _side(interface: Interface) -> dict[str, Any]:
    addresses = [str(address) for address in interface.addresses]
    return {"interface": interface.name, "network": interface.network, "addresses": addresses}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, str) else value
