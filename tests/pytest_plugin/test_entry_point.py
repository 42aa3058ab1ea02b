"""The plugin is loaded by every run of pytest where the lab is installed: it must bring nothing of weight."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "pydantic",
    "pyroute2",
    "yaml",
    "cryptography",
    "asyncio",
    "lab.realise",
    "lab.topology",
    "lab.plan",
    "lab.report",
)


def test_the_plugin_is_found_by_pytest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"lab": "lab.pytest_plugin"}


def test_the_plugin_imports_nothing_of_weight() -> None:
    code = f"""
import sys, pytest
before = set(sys.modules)
import lab.pytest_plugin
print(sorted(name for name in set(sys.modules) - before if name.startswith({HEAVY!r})), len(set(sys.modules) - before))
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    heavy, count = said.rsplit(" ", 1)
    assert heavy == "[]"
    assert int(count) <= 5
