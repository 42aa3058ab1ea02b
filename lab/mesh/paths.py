"""What two members say of the way between them, and whether they agree: plain values, nothing is asked here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any

from lab.errors import LabError


class Way(StrEnum):
    """How the packets of a member get to another one."""

    LAN = "LAN"  # to its address on a network that both are attached to and that is not the internet
    DIRECT = "direct"  # to another address of it, or of a NAT before it
    RELAYED = "relayed"  # to a third member, which passes them on
    NONE = "none"  # there is no tunnel: none was needed yet, or none could be made


@dataclass(frozen=True, slots=True)
class View:
    """What `node` says of its way to `peer`."""

    node: str
    peer: str
    way: Way
    endpoint: str | None = None  # "198.51.100.1:4242": where its packets go
    owner: str | None = None  # the node with the endpoint's address: the peer, or its NAT; None: nobody has it
    relays: tuple[str, ...] = ()
    since: float | None = None  # seconds since the epoch; None: the program does not say

    @property
    def is_stale(self) -> bool:
        """Whether packets go where nobody is: a peer has left, and the program has not noticed yet."""
        return self.endpoint is not None and self.owner is None


Views = dict[str, dict[str, View] | str]
"""By member: its view of each peer, or why it could not be asked."""

Answers = dict[str, str | LabError]
"""By member: what its program answered, or why it did not."""

Logs = Callable[[str], str]
"""The log of a member's program."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two members; a view is None if its node could not be asked."""

    first: str
    second: str
    views: tuple[View | None, View | None]

    @property
    def ways(self) -> tuple[Way | None, Way | None]:
        """The way there and the way back."""
        first, second = self.views
        return (first.way if first else None, second.way if second else None)

    @property
    def agrees(self) -> bool:
        """Whether both ends were asked, name the same kind of way, and send to somebody."""
        return not self.differs and not any(view.is_stale for view in self.views if view is not None)

    @property
    def differs(self) -> bool:
        """Whether an end was not asked, or the two name different kinds of way."""
        return self.ways[0] is None or self.ways[0] != self.ways[1]

    @property
    def way(self) -> Way | None:
        """The way that both ends name; None if they do not agree."""
        return self.ways[0] if self.agrees else None

    @property
    def since(self) -> float | None:
        """When the later of the two ends took its present way."""
        known = [view.since for view in self.views if view is not None and view.since is not None]
        return max(known, default=None)


@dataclass(frozen=True, slots=True)
class MeshPaths:
    """All ways of a mesh at one moment."""

    lab: str
    mesh: str
    driver: str
    members: tuple[str, ...]
    pairs: tuple[Pair, ...]
    silent: tuple[tuple[str, str], ...]  # members that could not be asked, and why

    def between(self, first: str, second: str) -> Pair:
        """The pair of two members, `first` before `second` as asked.

        Raises:
            KeyError: they are not two members.
        """
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair
            if (pair.first, pair.second) == (second, first):
                return Pair(first, second, (pair.views[1], pair.views[0]))
        raise KeyError(f"{first} and {second} are not two members of {self.mesh}: {', '.join(self.members)}")


def gathered(lab: str, mesh: dict[str, Any], views: Views) -> MeshPaths:
    """The ways from what each member said: its views by peer, or why it could not be asked."""
    members = tuple(member["node"] for member in mesh["members"])
    pairs = tuple(
        Pair(first, second, (_view(views, first, second), _view(views, second, first)))
        for first, second in combinations(members, 2)
    )
    silent = tuple((node, said) for node, said in views.items() if isinstance(said, str))
    return MeshPaths(lab, mesh["name"], mesh["driver"], members, pairs, silent)


def _view(views: Views, node: str, peer: str) -> View | None:
    said = views[node]
    if isinstance(said, str):
        return None
    return said.get(peer, View(node, peer, Way.NONE))
