"""Labs from inline topologies, as for `lab.realise`."""

from __future__ import annotations

from tests.realise.conftest import Up, module_up, up

__all__ = ["Up", "module_up", "up"]
