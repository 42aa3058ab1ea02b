"""Who is asked for what, worked out from the facts of a lab: every node x every port, every node x every node."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

IPV4, IPV6 = 4, 6


@dataclass(frozen=True, slots=True)
class Target:
    """A port of a service, or (`protocol` icmp) a node's echo."""

    node: str
    service: str  # "" for icmp
    protocol: str  # tcp, udp or icmp
    port: int | None  # None for icmp

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
    """Every service port, in the order of the file, then every node's echo."""
    services = tuple(
        Target(node["name"], service["name"], port["protocol"], port["number"])
        for node in facts["nodes"]
        for service in node["services"]
        for port in service["ports"]
    )
    return services + tuple(Target(node["name"], "", "icmp", None) for node in facts["nodes"])


def questions(facts: dict[str, Any], sources: tuple[str, ...]) -> tuple[Question, ...]:
    """Every source x every target x both IP versions; a node does not ping itself, but does ask its own services."""
    node_of = {node["name"]: node for node in facts["nodes"]}
    wanted = targets(facts)
    return tuple(
        Question(source, target, version, addresses(node_of[source], node_of[target.node], version))
        for source in sources
        for target in wanted
        for version in (IPV4, IPV6)
        if target.protocol != "icmp" or target.node != source
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
