"""Runs of pytest within a test: a rootdir of its own with topologies and the plugin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.realise import registry

ROOT = Path(__file__).resolve().parents[2]
PAIR = """
#   a -- lan -- b
networks: {lan: {prefixes: [192.0.2.0/24]}}
nodes:
  a: {links: {lan: auto}}
  b: {links: {lan: auto}, services: {web: {run: "sh -c 'echo web is here; exec sleep 1000'", ready: {log: here}}}}
"""


@dataclass(frozen=True)
class Ran:
    """What a run of pytest said."""

    code: int
    output: str
    folder: Path

    def counts(self) -> dict[str, int]:
        """The last line, as {"passed": 2, "failed": 1}."""
        last = self.output.strip().splitlines()[-1]
        return {word.rstrip("s") if word == "errors" else word: int(n) for n, word in re.findall(r"(\d+) (\w+)", last)}

    def pages(self) -> list[Path]:
        """The pages of the evidence."""
        return sorted(self.folder.glob("reports/*/*/index.md"))


@dataclass(frozen=True)
class Project:
    """A folder with tests and topologies."""

    folder: Path

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *options: str, timeout: float = 300) -> Ran:
        """Run pytest with the plugin and no other (but xdist where it is asked for)."""
        plugins = ["-p", "lab.pytest_plugin", *(["-p", "xdist"] if "-n" in options else [])]
        command = [sys.executable, "-m", "pytest", *plugins, "-p", "no:cacheprovider", "--color=no", *options]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ran(done.returncode, done.stdout + done.stderr, self.folder)

    def labs_up(self) -> list[str]:
        """Labs of this project's topologies: they begin with the project's own word."""
        return [name for name in registry.names() if name.startswith(self.word)]

    @property
    def word(self) -> str:
        return f"p{os.getpid()}x"  # none of these begins with another


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("pytest.ini", "[pytest]\naddopts = --strict-markers\n")
    made.write(f"topologies/{made.word}.yaml", PAIR)
    return made
