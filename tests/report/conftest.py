"""A word for the names of labs that no other process uses."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def worker() -> str:
    return str(os.getpid())
