"""Proxies for tests: `start(config)` runs one on an address of its own until the test ends."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.proxy.running import Proxy, running
from tests.realise.conftest import Up, labs_in

Start = Callable[..., Proxy]
Keys = Callable[..., str]
NUMBERS = itertools.count(1)


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
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """`keys(one, two)`: a file of them; `at` an earlier one, whose keys they replace."""

    def write(*secrets: bytes, at: str = "") -> str:
        path = Path(at) if at else tmp_path_factory.mktemp("keys") / "hop.key"
        new = path.with_name("new")
        new.write_text("# hop\n" + "".join(f"{secret.hex()}\n" for secret in secrets))
        new.chmod(0o600)
        new.replace(path)
        return str(path)

    return write


@pytest.fixture(scope="module")
def lab_folder() -> Iterator[Path]:
    """Where a lab's topology and its proxies' files are, which its nodes see; short, for a socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="ep-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def module_up(lab_folder: Path) -> Iterator[Up]:
    """`module_up(topology)`: a lab for the tests of a file, whose nodes see `lab_folder`."""
    with ExitStack() as stack:
        yield labs_in(lab_folder, stack)


@pytest.fixture
def folder(lab_folder: Path) -> Path:
    """A folder of one test, which the nodes see, too."""
    made = lab_folder / str(next(NUMBERS))
    made.mkdir()
    return made
