"""Spare a short command what it does not need: garbage collection, and pydantic's search for plugins."""

from __future__ import annotations

import gc
import sys
from types import ModuleType


def quick_start() -> None:
    """To be called by the command alone, before anything imports pydantic; never by a library.

    A command that ends in a moment makes no garbage worth a search for it: 15 of the 210 ms of CPU that `lab check` of
    the homelab took. pydantic looks for plugins among all installed distributions, and imports the standard library's
    mail parser to read their metadata: 25 ms more. A topology has no use for plugins.
    """
    gc.disable()
    none = ModuleType("pydantic.plugin._loader")
    none.get_plugins = tuple  # type: ignore[attr-defined]
    sys.modules.setdefault("pydantic.plugin._loader", none)
