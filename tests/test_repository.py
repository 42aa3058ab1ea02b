"""The files around the code: what the build service, the box and the installer read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOCKS = sorted(ROOT.glob("requirements*.lock"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "Makefile").exists(), reason="runs in a checkout, not on an installed wheel"
)


def test_there_are_workflows_and_locks() -> None:
    assert WORKFLOWS
    assert LOCKS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_each_step_of_a_workflow_runs_or_uses_something(workflow: Path) -> None:
    jobs: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text())["jobs"]
    assert jobs
    for job in jobs.values():
        assert job["runs-on"].startswith("ubuntu-")
        assert job["steps"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_names_versions_and_hashes_only(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    pins = [line for line in lines if line and line[0] not in " #"]
    assert len(pins) > 10
    assert all(re.match(r"[a-z0-9.-]+==[^ ]+( ;.*)? \\$", pin) for pin in pins)
    assert not any("://" in line or "index-url" in line or "find-links" in line for line in lines)
    assert sum("--hash=sha256:" in line for line in lines) >= len(pins)


def test_the_locks_agree_where_both_pin() -> None:
    small, large = (
        {pin.split(" ")[0] for pin in lock.read_text().splitlines() if "==" in pin} for lock in reversed(LOCKS)
    )
    assert small < large


def test_the_build_service_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test"
    assert "make test" in (ROOT / "README.md").read_text()


def test_python_and_rust_packages_have_one_version() -> None:
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rust = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    assert (python["name"], python["version"]) == (rust["name"], rust["version"])


def test_each_program_of_the_workspace_is_shipped() -> None:
    rust = tomllib.loads((ROOT / "Cargo.toml").read_text())
    members = rust["workspace"]["members"]
    assert members
    assert sorted(rust["dependencies"]) == sorted(program["name"] for program in rust["bin"])
    assert sorted(program["path"] for program in rust["bin"]) == sorted(f"{member}/src/main.rs" for member in members)


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")
def test_vagrant_accepts_the_box(tmp_path: Path) -> None:
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=ROOT,
        env={**os.environ, "VAGRANT_HOME": str(tmp_path), "VAGRANT_DOTFILE_PATH": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_every_command_and_page() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if f"({page})" not in readme] == []
    assert [word for word in COMMANDS if f"`lab {word}" not in readme] == []
