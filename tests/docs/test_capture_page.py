"""The page about captures names every part of one, and its tests pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.capture.recording import Recording

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "capture.md").read_text()


def test_the_page_names_every_public_part_and_no_other() -> None:
    parts = {name for name in dir(Recording) if not name.startswith("_")} | {"interfaces", "path"}
    assert set(re.findall(r"`capture\.(\w+)", PAGE)) == parts


@pytest.mark.essential
def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    match = re.search(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert match is not None
    (tmp_path / match[1]).write_text(match[2])
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    shutil.copytree(ROOT / "topologies", tmp_path / "topologies")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "lab.pytest_plugin", "-p", "no:cacheprovider", match[1]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert "2 passed in " in done.stdout, done.stdout + done.stderr
