"""The command as a user types it: a process of its own, with real labs that end with the test."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from lab.cli.style import Style

NUMBERS = itertools.count(1)

Result = subprocess.CompletedProcess[str]
Up = Callable[..., str]
StyleOf = Callable[..., Style]


class Started(subprocess.Popen[str]):
    """A command that runs beside a test, and ends with it if that fails."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, value, traceback)


class LabCommand:
    """`lab WORDS` as a process."""

    def argv(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "lab", *map(str, words)]

    def environment(self, **more: str) -> dict[str, str]:
        """Ours, without what would change the command's mind."""
        ignored = {"HOMELAB_LAB", "HOMELAB_LAB_DEBUG", "NO_COLOR", "COLUMNS"}
        return {name: value for name, value in os.environ.items() if name not in ignored} | more

    def start(self, *words: str | Path, env: dict[str, str] | None = None, **options: Any) -> Started:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return Started(self.argv(*words), env=self.environment(**env or {}), **(streams | options))

    def __call__(
        self,
        *words: str | Path,
        code: int | None = None,
        input: str | None = None,  # noqa: A002
        **options: Any,
    ) -> Result:
        """Run it to its end; with `code`, that must be its exit code. Never a traceback."""
        if input is not None:
            options["stdin"] = subprocess.PIPE
        process = self.start(*words, **options)
        try:
            output, errors = process.communicate(input, timeout=120)
        finally:
            process.kill()
        assert "Traceback" not in (errors or ""), errors
        assert code is None or process.returncode == code, (process.returncode, output, errors)
        return Result(process.args, process.returncode, output, errors)


def own_name() -> str:
    return f"c-{os.getpid()}-{next(NUMBERS)}"


@pytest.fixture
def name() -> str:
    """A lab's name that no other test has."""
    return own_name()


@pytest.fixture(scope="session")
def lab() -> LabCommand:
    return LabCommand()


def ups_in(folder: Path, started: list[str]) -> Up:
    def up(topology: str | dict[str, Any], *words: str) -> str:
        """Bring up a topology under a name of its own, which is returned."""
        name = own_name()
        file = folder / f"{name}.yaml"
        file.write_text(topology if isinstance(topology, str) else json.dumps(topology))
        LabCommand()("up", "-q", "--name", name, *words, file, code=0)
        started.append(name)
        return name

    return up


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started: list[str] = []
    yield ups_in(tmp_path, started)
    for name in started:
        LabCommand()("down", name)


@pytest.fixture(scope="module")
def module_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """As `up`, for labs that the tests of a file only use."""
    started: list[str] = []
    yield ups_in(tmp_path_factory.mktemp("topologies"), started)
    for name in started:
        LabCommand()("down", name)


class Screen(io.StringIO):
    """A terminal in memory."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def style_of(monkeypatch: pytest.MonkeyPatch) -> StyleOf:
    def style(columns: int, *, colour: bool = False) -> Style:
        """That of a terminal so many columns wide."""
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "" if colour else "1")
        return Style(Screen())

    return style
