"""Who is asked for what, worked out from the facts of a lab: every node x every port, every node x every node."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

IPV4, IPV6 = 4, 6


@dataclass(frozen=True, slots=True)
class Target:
    """A port of a service, a router's port forward, or (`protocol` icmp) a node's echo."""

    node: str
    service: str  # "" for icmp; "443->nas" or "8443->nas:443" for a port forward
    protocol: str  # tcp, udp or icmp
    port: int | None  # None for icmp
    forwarded_at: tuple[str, ...] = ()  # of a port forward, the only addresses that it is offered at; IPv4

    def __str__(self) -> str:
        if self.port is None:
            return f"{self.node} {self.protocol}"
        return f"{self.node}/{self.service} {self.protocol}/{self.port}"


@dataclass(frozen=True, slots=True)
class Question:
    """Whether `source` can reach `target` by this IP version, at any of these addresses."""

    source: str
    target: Target
    version: int
    addresses: tuple[str, ...]  # none: the target has no address of this version


def targets(facts: dict[str, Any]) -> tuple[Target, ...]:
    """Every node's service ports and port forwards, in the order of the file, then every node's echo."""
    ports: list[Target] = []
    for node in facts["nodes"]:
        ports += [
            Target(node["name"], service["name"], port["protocol"], port["number"])
            for service in node["services"]
            for port in service["ports"]
        ]
        ports += [_forward(node["name"], forward) for forward in node["forwards"]]
    return (*ports, *(Target(node["name"], "", "icmp", None) for node in facts["nodes"]))


def questions(facts: dict[str, Any], sources: tuple[str, ...]) -> tuple[Question, ...]:
    """Every source x every target x both IP versions; a node does not ping itself, but does ask its own services.

    Port forwards are asked by IPv4 alone, the only version that is translated.
    """
    node_of = {node["name"]: node for node in facts["nodes"]}
    wanted = targets(facts)
    return tuple(
        Question(
            source,
            target,
            version,
            target.forwarded_at or addresses(node_of[source], node_of[target.node], version),
        )
        for source in sources
        for target in wanted
        for version in (IPV4, IPV6)
        if (target.protocol != "icmp" or target.node != source) and not (target.forwarded_at and version == IPV6)
    )


def addresses(source: dict[str, Any], target: dict[str, Any], version: int) -> tuple[str, ...]:
    """The target's addresses on networks shared with the source if there are any, else all of them, in order."""
    shared = {link["network"] for link in source["interfaces"]}
    near: list[str] = []
    every: list[str] = []
    for link in target["interfaces"]:
        for text in link["addresses"]:
            found = ip_interface(text)
            if found.version == version:
                every.append(str(found.ip))
                near += [str(found.ip)] if link["network"] in shared else []
    return tuple(near or every)


def _forward(router: str, forward: dict[str, Any]) -> Target:
    same_port = f":{forward['port']}"
    name = f"{forward['port']}->{forward['to'].removesuffix(same_port)}"
    return Target(router, name, forward["protocol"], forward["port"], tuple(forward["addresses"]))
