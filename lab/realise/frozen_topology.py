"""A topology on its way from whoever starts a lab to its supervisor, which looks at it only when it has to change."""

from __future__ import annotations

import base64
import pickle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.topology.model import Topology


def freeze(topology: Topology) -> str:
    """The topology as text for a message."""
    return base64.b64encode(pickle.dumps(topology, pickle.HIGHEST_PROTOCOL)).decode()


def thaw(text: str) -> Topology:
    """The topology again. For the supervisor alone: it is a child of the process that froze it, and obeys it anyway."""
    topology: Topology = pickle.loads(base64.b64decode(text))  # noqa: S301 - of our own making
    return topology
