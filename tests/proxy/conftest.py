"""Proxies for tests: `start(config)` runs one on an address of its own until the test ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

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


@pytest.fixture(scope="module")
def lab_folder() -> Iterator[Path]:
    """Where a lab's topology and its proxies' files are, which its nodes see; short, for a socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="ep-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
