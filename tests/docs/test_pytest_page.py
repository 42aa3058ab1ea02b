"""What the pages say to people who write tests is so: it compiles, names every method, and the complete blocks pass."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import Lab, Node, Process, pytest_plugin
from lab.realise import registry

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "pytest.md"
README = ROOT / "README.md"
BLOCKS = {
    f"{page.stem}-{number}": match[1]
    for page in (PAGE, README)
    for number, match in enumerate(
        re.finditer(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE), 1
    )
}
COMPLETE = {match[1]: text for text in BLOCKS.values() if (match := re.match(r"# (\w+\.py)\n", text))}
README_TESTS = [text for name, text in BLOCKS.items() if name.startswith("README") and "def test_" in text]
CLASSES = ((Lab, "lab"), (Node, "node"), (Process, "process"))


def run(folder: Path, *command: str) -> str:
    """Run Python in a project that has the topologies of this one; its output, if it exits with 0."""
    for part in ("topologies", "proxy/examples"):  # what topologies refer to
        shutil.copytree(ROOT / part, folder / part)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_pytest(folder: Path, files: dict[str, str], *options: str) -> str:
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    plugins = ["-p", "lab.pytest_plugin", "-p", "no:cacheprovider"]
    return run(folder, "-m", "pytest", *plugins, "--color=no", *options, *files)


def public_methods(kind: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")]


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == len(COMPLETE) + len(README_TESTS)
    assert len(COMPLETE) >= 8
    assert len(README_TESTS) == 1


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
def test_a_block_compiles(block: str) -> None:
    compile(block, "block", "exec")


@pytest.mark.parametrize(("kind", "word"), CLASSES, ids=[word for _, word in CLASSES])
def test_the_page_names_every_public_method_and_no_other(kind: type, word: str) -> None:
    methods = public_methods(kind)
    assert len(methods) >= 5
    named = set(re.findall(rf"`(?:{word}|{kind.__name__})\.(\w+)\(", PAGE.read_text()))
    assert sorted(set(methods) - named) == []
    assert sorted(named - set(methods)) == []


def test_every_option_of_the_plugin_is_named() -> None:
    options = re.findall(r'(?:addini|addoption)\("([\w-]+)"', inspect.getsource(pytest_plugin))
    assert len(options) >= 3
    assert [option for option in options if not re.search(rf"`(?:pytest )?{option}`", PAGE.read_text())] == []


@pytest.mark.essential
@pytest.mark.single_id
def test_the_complete_tests_pass_on_a_real_lab(tmp_path: Path) -> None:
    files = {name: text for name, text in COMPLETE.items() if name.startswith("test_")}
    tests = sum(len(re.findall(r"^def test_", text, re.MULTILINE)) for text in files.values())
    assert tests >= 10
    assert re.search(rf"\b{tests} passed in ", run_pytest(tmp_path, files, "-W", "error"))


@pytest.mark.essential
@pytest.mark.single_id
def test_the_script_without_pytest_runs_and_leaves_no_lab(tmp_path: Path) -> None:
    name = f"page-{os.getpid()}"
    (tmp_path / "ask.py").write_text(COMPLETE["ask.py"].replace("asked-by-hand", name))
    assert "200 OK" in run(tmp_path, "ask.py")
    assert name not in registry.names()


@pytest.mark.essential
def test_the_test_of_the_readme_passes_on_the_homelab(tmp_path: Path) -> None:
    assert "1 passed in " in run_pytest(tmp_path, {"test_readme.py": README_TESTS[0]})
