"""Addresses of the lab's links, and whose they are: what the endpoints that a mesh uses mean."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address
from typing import Any

from lab.mesh.paths import Way


class Underlay:
    """The links of a running lab, from its facts."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._owner: dict[str, str] = {}
        self._on: dict[str, dict[str, set[str]]] = {}  # addresses by node, by network that is not the internet
        self._translated: list[tuple[IPv6Network, str]] = []  # prefixes that routers translate others' addresses to
        internet = {network["name"] for network in facts["networks"] if network["internet"]}
        for node in facts["nodes"]:
            networks = self._on.setdefault(node["name"], {})
            for link in node["interfaces"]:
                for address in link["addresses"]:
                    bare = address.partition("/")[0]
                    self._owner.setdefault(bare, node["name"])
                    if link["network"] not in internet:
                        networks.setdefault(link["network"], set()).add(bare)
            prefixes = (node.get("nat") or {}).get("ipv6_prefix")
            if prefixes is not None:
                self._translated.append((IPv6Network(prefixes["outside"]), node["name"]))

    def owner(self, address: str) -> str | None:
        """The node that has an address, as far as the lab gave it, or that translates another one to it."""
        if address in self._owner:
            return self._owner[address]
        return next((node for prefix, node in self._translated if ip_address(address) in prefix), None)

    def way(self, node: str, peer: str, address: str) -> Way:
        """LAN if the address is one of the peer's on a network of both."""
        own, its = self._on.get(node, {}), self._on.get(peer, {})
        is_near = any(address in its[network] for network in own.keys() & its.keys())
        return Way.LAN if is_near else Way.DIRECT


def spelled(address: str, port: int) -> str:
    """198.51.100.1:4242, [2001:db8::1]:4242."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
