"""Which lab a command means; in a network namespace of its own, where no other test's labs are (unix(7))."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ExitCode

pytestmark = pytest.mark.root

TOPOLOGY = "nodes: {a: {}}\n"


@pytest.fixture
def alone(lab: Any, tmp_path: Path) -> Iterator[Any]:
    """`lab` among no labs but its own."""
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.readline()  # it is there
        (tmp_path / "one.yaml").write_text(TOPOLOGY)

        def run(*words: str, env: dict[str, str] | None = None, code: int) -> Any:
            argv = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", *lab.argv(*words)]
            result = subprocess.run(
                argv, env=lab.environment(**env or {}), cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert result.returncode == code, result
            return result

        yield run
        run("down", "--all", code=0)
        holder.stdin.close()


def test_without_a_lab_there_is_nothing_to_choose(alone: Any) -> None:
    result = alone("exec", "a", "--", "true", code=ExitCode.WRONG_INPUT)
    assert result.stderr == "lab: error: no lab is running; `lab up TOPOLOGY` starts one\n"
    assert alone("ps", code=0).stdout == "no lab is running; `lab up TOPOLOGY` starts one\n"
    assert alone("ps", "--json", code=0).stdout == "[]\n"
    assert alone("down", "--all", code=0).stdout == "no lab is running\n"
    alone("down", code=ExitCode.WRONG_INPUT)


def test_the_only_lab_is_meant(alone: Any) -> None:
    alone("up", "-q", "one.yaml", code=0)
    assert alone("exec", "a", "--", "hostname", code=0).stdout == "a\n"
    assert alone("ps", code=0).stdout.splitlines()[1].split()[:4] == ["one", "ready", "1", "0/0"]
    assert alone("down", code=0).stdout.startswith("one ended in ")


def test_of_two_labs_one_must_be_chosen(alone: Any) -> None:
    alone("up", "-q", "one.yaml", code=0)
    alone("up", "-q", "--name", "two", "one.yaml", code=0)
    for words in (
        ["exec", "a", "--", "true"],
        ["inspect"],
        ["reach"],
        ["fault"],
        ["logs", "a"],
        ["shell", "a"],
        ["down"],
        ["graph"],
    ):
        result = alone(*words, code=ExitCode.WRONG_INPUT)
        assert result.stderr == (
            "lab: error: 2 labs are running: one, two; choose with --lab NAME or HOMELAB_LAB=NAME\n"
        )
    for words, listed in ((["ps"], ["one", "two"]), (["ps", "--lab", "two"], ["two"])):
        found = json.loads(alone(*words, "--json", env={"HOMELAB_LAB": "one"}, code=0).stdout)
        assert sorted(each["name"] for each in found) == listed
    complaint = alone("ps", "--lab", "too", code=ExitCode.WRONG_INPUT).stderr
    assert "no lab named 'too' is up; did you mean 'two'? running: one, two." in complaint
    assert alone("inspect", "--lab", "two", code=0).stdout.startswith("two ")
    assert alone("inspect", env={"HOMELAB_LAB": "two"}, code=0).stdout.startswith("two ")
    assert alone("inspect", "--lab", "one", env={"HOMELAB_LAB": "two"}, code=0).stdout.startswith("one ")
    assert alone("down", env={"HOMELAB_LAB": "two"}, code=0).stdout.startswith("two ended")
    assert alone("down", "--all", code=0).stdout.startswith("one ended")
