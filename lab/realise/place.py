"""Where a process or socket of the lab lives: the open namespaces of a node."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from lab.syscalls import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, setns


@dataclass(frozen=True, slots=True)
class Place:
    """A node's namespaces as open descriptors of the supervisor; they end when it ends."""

    name: str
    network: int
    uts: int
    mounts: int

    def enter(self) -> None:
        """Move this process in for good; only for a freshly forked child."""
        setns(self.network, CLONE_NEWNET)
        setns(self.uts, CLONE_NEWUTS)
        setns(self.mounts, CLONE_NEWNS)

    def enter_network(self) -> None:
        """Move the supervisor's thread into the node's network.

        The supervisor has no network of its own that it goes back to: whatever it does in one, it enters first.
        """
        setns(self.network, CLONE_NEWNET)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this node: it belongs to the node's network wherever its descriptor is sent."""
        self.enter_network()
        return socket.socket(family, kind, protocol)
