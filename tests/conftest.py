"""For all tests: the mark `root` means what it says, and properties are asked of the same cases each time."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# No time limits: a busy machine may take long for any one case.
settings.register_profile("lab", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root where there is none."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))
