"""What names may look like, each rule with its words."""

from __future__ import annotations

import re

from lab.topology.faults import Wrong, shown

# Names the kernel keeps: the loopback, and two folders of /proc/sys/net/ipv4/conf.
RESERVED_INTERFACES = frozenset({"lo", "all", "default", ".", ".."})


class NameRule:
    """A pattern with the sentence that explains it."""

    __slots__ = ("_pattern", "_reserved", "_words")

    def __init__(self, pattern: str, words: str, *, reserved: frozenset[str] = frozenset()) -> None:
        self._pattern = re.compile(pattern + r"\Z")
        self._words = words
        self._reserved = reserved

    def check(self, value: object) -> str:
        """The name itself. Raises Wrong with the rule."""
        if not isinstance(value, str):
            raise Wrong(shown(value), f"{self._words}; quote it")
        if not self._pattern.match(value):
            raise Wrong(shown(value), self._words)
        if value in self._reserved:
            raise Wrong(f"'{value}', which the kernel keeps for itself", self._words)
        return value


LAB = NameRule(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", "a lab's name is 1 to 32 of a-z, 0-9 and inner -")
# IFNAMSIZ is 16 with the final zero (linux/if.h).
NETWORK = NameRule(
    r"[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?",
    "a network's name is 1 to 15 of a-z, 0-9 and inner -, as interfaces take it",
    reserved=RESERVED_INTERFACES,
)
MESH = NameRule(
    r"[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?",
    "a mesh's name is 1 to 15 of a-z, 0-9 and inner -, as interfaces take it",
    reserved=RESERVED_INTERFACES,
)
INTERFACE = NameRule(
    r"[A-Za-z0-9_.-]{1,15}",
    "an interface's name is 1 to 15 of letters, digits, _ . and -",
    reserved=RESERVED_INTERFACES,
)
# A label of a host name: RFC 1123 section 2.1, RFC 1035 section 2.3.4.
NODE = NameRule(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", "a node's name is 1 to 63 of a-z, 0-9 and inner -")
SERVICE = NameRule(r"[a-z0-9_][a-z0-9_-]{0,62}", "a service's name is 1 to 63 of a-z, 0-9, _ and -, not - first")
HOST = NameRule(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*",
    "a host name: labels of letters, digits, _ and -, with dots between",
)
USER = NameRule(r"[a-z_][a-z0-9_-]{0,31}", "a user's name is 1 to 32 of a-z, 0-9, _ and -, not a digit first")
VARIABLE = NameRule(
    r"[A-Za-z_][A-Za-z0-9_]*", "an environment variable's name is letters, digits and _, not a digit first"
)
SYSCTL = NameRule(
    r"net(?:\.[A-Za-z0-9_-]+){1,8}", "a sysctl of the node's network, as net.ipv4.tcp_ecn; only net.* is a node's own"
)
IMAGE = NameRule(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", "a container image, as homelab/media:1")
