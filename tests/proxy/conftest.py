"""Proxies for tests: `start(config)` runs one on an address of its own until the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.proxy.running import Proxy, running

Start = Callable[..., Proxy]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda *words, **more: stack.enter_context(running(*words, **more))


@pytest.fixture(scope="module")
def module_start() -> Iterator[Start]:
    """As `start`, for a proxy that all tests of a file share."""
    with ExitStack() as stack:
        yield lambda *words, **more: stack.enter_context(running(*words, **more))
