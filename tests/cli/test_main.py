"""What all commands share: help, unknown words, exit codes, pipes that close."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.cli.main import COMMANDS
from lab.errors import ExitCode

TOPOLOGY = "nodes: {a: {}}\n"


@pytest.mark.essential
def test_alone_it_prints_the_short_help(lab: Any) -> None:
    text = lab(code=0).stdout
    assert text == lab("--help", code=0).stdout == lab("help", code=0).stdout
    assert all(f"\n  {word} " in text for word in COMMANDS)


@pytest.mark.parametrize("word", COMMANDS)
def test_the_help_of_every_command_ends_with_an_example(lab: Any, word: str) -> None:
    text = lab(word, "--help", code=0).stdout
    assert text.startswith(f"usage: lab {word}")
    head, example = text.rsplit("example:\n", 1)
    assert head
    assert f"lab {word}" in example
    assert all(line.startswith("  lab ") for line in example.splitlines())
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("word", ["ps", "inspect", "up", "plan", "check", "reach", "doctor", "fault"])
def test_the_help_names_the_keys_of_its_json(lab: Any, word: str) -> None:
    assert "--json: " in lab(word, "--help").stdout


def test_an_unknown_command_is_wrong_input_and_the_near_one_is_named(lab: Any) -> None:
    result = lab("shel", code=ExitCode.WRONG_INPUT)
    assert result.stderr.startswith("lab: error: no command 'shel'; did you mean `lab shell`?\n")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up"], "lab: error: up: the following arguments are required: FILE\n"),
        (["ps", "--jsn"], "lab: error: ps: unrecognized arguments: --jsn\n"),
        (["exec", "a"], "lab: error: exec: no command; `lab shell NODE` opens a shell\n"),
        (["exec", "--env", "A", "a", "--", "true"], "lab: error: exec: --env 'A': KEY=VALUE\n"),
        (["exec", "-t", "-T", "a", "--", "true"], "lab: error: exec: argument -T: not allowed with argument -t\n"),
        (["reach", "--timeout", "0"], "lab: error: reach: --timeout 0: more than 0, at most 60 seconds\n"),
        (["reach", "--timeout", "nan"], "lab: error: reach: --timeout nan: more than 0, at most 60 seconds\n"),
        (["logs", "a", "-n", "-1"], "lab: error: logs: --lines: not less than 0\n"),
        (["down", "--all", "a"], "lab: error: down: either names or --all\n"),
        (["graph", "x.yaml", "--lab", "y"], "lab: error: graph: either FILE or --lab\n"),
        (["graph", "x.yaml", "-o", "a.png"], "lab: error: graph: -o: 'a.png' ends in neither .svg nor .mmd\n"),
    ],
)
def test_wrong_arguments_are_named(lab: Any, words: list[str], message: str) -> None:
    result = lab(*words, code=ExitCode.WRONG_INPUT)
    assert result.stderr.startswith(message)
    assert f"usage: lab {words[0]}" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["exec", "a", "--", "true"],
        ["shell", "a"],
        ["inspect"],
        ["logs", "a"],
        ["reach"],
        ["graph"],
        ["down"],
        ["fault"],
    ],
)
def test_a_lab_that_is_not_running_is_wrong_input(lab: Any, name: str, words: list[str]) -> None:
    result = lab(*words, env={"HOMELAB_LAB": name}, code=ExitCode.WRONG_INPUT)
    # Another test's lab may be near enough to be proposed.
    assert re.match(rf"lab: error: no lab named '{name}' is up; (did you mean '\S+'\? )?running: ", result.stderr)


@pytest.mark.essential
def test_down_of_a_missing_lab_ends_no_other(lab: Any, up: Any, name: str) -> None:
    running = up(TOPOLOGY)
    assert name in lab("down", running, name, code=ExitCode.WRONG_INPUT).stderr
    lab("inspect", "--lab", running, code=0)


def test_a_file_that_cannot_be_written_is_named(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TOPOLOGY)
    picture = tmp_path / "missing" / "a.svg"
    result = lab("graph", tmp_path / "a.yaml", "-o", picture, code=ExitCode.FAILED)
    assert result.stderr == f"lab: error: No such file or directory: {picture}\n"


def test_debugging_shows_the_whole_traceback(lab: Any, tmp_path: Path) -> None:
    process = lab.start("plan", tmp_path / "no.yaml", env={"HOMELAB_LAB_DEBUG": "1"})
    _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.WRONG_INPUT
    assert "Traceback (most recent call last)" in errors
    assert errors.splitlines()[-1].startswith("lab: error: ")


def test_output_into_a_closed_pipe_is_quiet(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("nodes: {a: {count: 3000}}\n")
    with closed_pipe() as stdout:
        result = lab("plan", tmp_path / "a.yaml", stdout=stdout)
    assert (result.returncode, result.stderr) == (141, "")


@contextmanager
def closed_pipe() -> Iterator[int]:
    """The end for writing of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        yield write
    finally:
        os.close(write)
