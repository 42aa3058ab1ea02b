"""What to capture, as a person says it: nodes, their interfaces, networks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lab.errors import UsageError

LOOPBACK = "lo"
_LONGEST_INTERFACE = 15  # bytes of its name (IFNAMSIZ, less the end of the string)


@dataclass(frozen=True, slots=True)
class Target:
    """An interface of a node."""

    node: str
    interface: str
    network: str = ""  # that it is attached to, if the topology says so

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


def targets(facts: dict[str, Any], words: Sequence[str]) -> tuple[Target, ...]:
    """The interfaces that the words mean, each once.

    Args:
        facts: what the lab says of itself.
        words: "nas:home" (an interface, or a network that it is attached to), "nas" (its interfaces but the loopback),
            "home" (all interfaces on a network); none: all of all nodes.

    Raises:
        UsageError: a word names nothing of this lab, or two things.
    """
    found = [target for word in words for target in _meant(facts, word)] if words else list(_all(facts))
    if not found:
        raise UsageError(f"there is no interface to capture at: {', '.join(words) or 'the lab'} has none")
    return tuple(dict.fromkeys(found))


def _meant(facts: dict[str, Any], word: str) -> list[Target]:
    node, colon, interface = word.partition(":")
    nodes = {target.node for target in _all(facts)} | {found["name"] for found in facts["nodes"]}
    networks = {network["name"] for network in facts["networks"]}
    if colon:
        if node not in nodes:
            raise UsageError(f"no node {node!r} in lab {facts['name']}{_near(node, nodes)} It has: {_listed(nodes)}")
        return [_interface(facts, node, interface)]
    if word in nodes and word in networks:
        raise UsageError(f"{word!r} is a node and a network of lab {facts['name']}; name interfaces, as {word}:IFACE")
    if word not in nodes | networks:
        raise UsageError(
            f"nothing is called {word!r} in lab {facts['name']}{_near(word, nodes | networks)} "
            f"Nodes: {_listed(nodes)}; networks: {_listed(networks)}"
        )
    return [target for target in _all(facts) if word in (target.node, target.network)]


def _interface(facts: dict[str, Any], node: str, word: str) -> Target:
    known = [target for target in _all(facts) if target.node == node]
    for target in known:
        if word == target.interface:
            return target
    for target in known:
        if word == target.network:
            return target
    if not 0 < len(word.encode()) <= _LONGEST_INTERFACE or "\0" in word:
        raise no_interface(facts, node, word)
    return Target(node, word)  # the loopback, a tunnel: the kernel knows it or not


def no_interface(facts: dict[str, Any], node: str, word: str) -> UsageError:
    """What to say of an interface that does not exist."""
    names = [target.interface for target in _all(facts) if target.node == node] + [LOOPBACK]
    return UsageError(f"{node} has no interface {word!r}{_near(word, names)} It has: {', '.join(names)}")


def _all(facts: dict[str, Any]) -> Iterator[Target]:
    for node in facts["nodes"]:
        for interface in node["interfaces"]:
            yield Target(node["name"], interface["name"], interface["network"])


def _near(word: str, names: Sequence[str] | set[str]) -> str:
    near = get_close_matches(word, sorted(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
