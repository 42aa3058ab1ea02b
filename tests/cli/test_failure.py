"""Commands with `--json` that fail: the error for programs on standard output, for people on standard error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ExitCode

FAULTY = "nodes: {a: {rol: host}, b: {links: {lan: auto}}}\n"
ALONE = "nodes: {a: {}}\n"
FAILING = """\
nodes:
  a:
    services:
      bad: {run: [sh, -c, "echo these are my last words; exit 3"], ready: {tcp: 80}}
"""


def failure(result: Any) -> dict[str, Any]:
    """What a failed command said for programs, which is what it said for people."""
    found: dict[str, Any] = json.loads(result.stdout)
    assert found.keys() == {"error", "kind", "exit_code", "faults", "lacking"}
    assert found["exit_code"] == result.returncode
    assert result.stderr.endswith(f"lab: error: {found['error']}\n")
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "topology.yaml"


@pytest.mark.parametrize("word", ["up", "plan"])
def test_faults_of_a_file_are_those_of_check(lab: Any, file: Path, word: str) -> None:
    file.write_text(FAULTY)
    found = failure(lab(word, "--json", file, code=ExitCode.WRONG_INPUT))
    (checked,) = json.loads(lab("check", "--json", file, code=ExitCode.WRONG_INPUT).stdout)
    assert found["faults"] == checked["faults"]
    assert [(fault["line"], fault["column"], fault["path"]) for fault in found["faults"]] == [
        (1, 13, "nodes.a.rol"),
        (1, 37, "nodes.b.links.lan"),
    ]
    assert (found["kind"], found["lacking"]) == ("TopologyError", [])


def test_without_json_nothing_is_printed(lab: Any, file: Path) -> None:
    file.write_text(FAULTY)
    assert lab("up", file, code=ExitCode.WRONG_INPUT).stdout == ""


def test_a_name_that_is_taken(lab: Any, up: Any, file: Path) -> None:
    name = up(ALONE)
    file.write_text(ALONE)
    found = failure(lab("up", "--json", "--name", name, file, code=ExitCode.WRONG_INPUT))
    assert (found["kind"], found["faults"], found["lacking"]) == ("UsageError", [], [])
    assert f"a lab named {name!r} is already up" in found["error"]


def test_a_name_that_no_lab_may_have(lab: Any, file: Path) -> None:
    file.write_text(ALONE)
    found = failure(lab("up", "--json", "--name", "Bad Name", file, code=ExitCode.WRONG_INPUT))
    assert found["kind"] == "UsageError"


@pytest.mark.parametrize(
    "words",
    [
        ("inspect",),
        ("inspect", "nobody"),
        ("reach", "--from", "nobody"),
        ("nat", "nobody"),
        ("link", "nobody:lan"),
        ("fault", "kill", "nobody"),
        ("mesh", "nobody"),
        ("capture", "nobody", "-w", "never.pcapng"),
    ],
    ids=" ".join,
)
def test_each_command_that_asks_a_lab(lab: Any, up: Any, words: tuple[str, ...]) -> None:
    name = up(ALONE) if len(words) > 1 else "nowhere"
    found = failure(lab(*words, "--json", "--lab", name, code=ExitCode.WRONG_INPUT))
    assert found["kind"] == "UsageError"
    assert name in found["error"] or "nobody" in found["error"]


@pytest.mark.parametrize("words", [("ps", "--bogus"), ("nat", "--patience", "soon"), ("check",)], ids=" ".join)
def test_arguments_that_no_command_has(lab: Any, words: tuple[str, ...]) -> None:
    found = failure(lab(*words, "--json", code=ExitCode.WRONG_INPUT))
    assert (found["kind"], found["faults"]) == ("UsageError", [])
    assert found["error"].startswith(f"{words[0]}: ")
    assert f"\nusage: lab {words[0]} " in found["error"]


def test_the_words_of_another_program_are_its_own(lab: Any) -> None:
    assert lab("exec", "--lab", "nowhere", "a", "--", "ip", "--json", code=ExitCode.WRONG_INPUT).stdout == ""


@pytest.mark.parametrize("word", ["up", "plan", "inspect", "reach", "nat", "link", "fault", "mesh", "capture", "ps"])
def test_the_help_says_what_a_failure_prints(lab: Any, word: str) -> None:
    assert "--json if it fails: error (what standard error says, too), kind (" in lab(word, "--help", code=0).stdout


def test_a_service_that_fails(lab: Any, name: str, file: Path) -> None:
    file.write_text(FAILING)
    found = failure(lab("up", "--json", "-q", "--name", name, file, code=ExitCode.FAILED))
    assert found["kind"] == "RealiseError"
    assert "these are my last words" in found["error"]
