"""Labs from inline topologies: `up(text)` makes one real, the end of the test (or module) ends it."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.errors import UsageError
from lab.realise import registry
from lab.realise.lab import Lab

Up = Callable[..., Lab]
NUMBERS = itertools.count(1)


def own_name() -> str:
    """A lab's name that no other test has."""
    return f"t-{os.getpid()}-{next(NUMBERS)}"


def labs_in(folder: Path, stack: ExitStack) -> Up:
    def up(topology: str | dict[str, Any], **options: Any) -> Lab:
        """A lab of a topology, as YAML text or as its values; one whose test is killed ends too."""
        options.setdefault("name", own_name())
        file = folder / f"{options['name']}.yaml"
        file.write_text(topology if isinstance(topology, str) else json.dumps(topology))
        lab = stack.enter_context(Lab.up(file, **options))
        lab.hold()
        return lab

    return up


def open_files(lab: Lab) -> int:
    """How many its supervisor has."""
    return len(list(Path(f"/proc/{registry.supervisor_of(lab._channel)}/fd").iterdir()))


def has_node(lab: Lab, name: str) -> bool:
    """Whether its supervisor knows such a node, be it one that the topology has not."""
    try:
        lab.ask({"ask": "bound", "node": name, "protocol": "tcp", "port": 1, "address": ""})
    except UsageError:
        return False
    return True


@pytest.fixture
def name() -> str:
    return own_name()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with ExitStack() as stack:
        yield labs_in(tmp_path, stack)


@pytest.fixture(scope="module")
def module_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """As `up`, for labs that the tests of a file only read."""
    with ExitStack() as stack:
        yield labs_in(tmp_path_factory.mktemp("topologies"), stack)
