"""`lab logs`: of one service, of several, their ends, and what is written later."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from lab.errors import ExitCode

LINES = "for i in 1 2 3 4 5; do echo $0 $i; done; touch written; exec sleep 600"
TALK = {
    "nodes": {
        "a": {
            "services": {
                "one": {"run": ["sh", "-c", LINES, "one"], "ready": {"run": ["test", "-e", "written"]}},
                "two": {"run": ["sh", "-c", LINES, "two"], "ready": {"run": ["test", "-e", "written"]}},
            }
        },
        "b": {},
    }
}
# Writes a line for each connection to its port.
ANSWERER = """\
import socket
with socket.create_server(("127.0.0.1", 80)) as listener:
    while True:
        print("asked", listener.accept()[1])
"""
TALKS_WHEN_ASKED = {
    "nodes": {"a": {"services": {"echo": {"run": ["python3", "-uc", ANSWERER], "ready": {"tcp": 80}}}}},
}


@pytest.fixture(scope="module")
def running(module_up: Any) -> str:
    name: str = module_up(json.dumps(TALK))
    return name


@pytest.mark.essential
def test_the_log_of_a_service(lab: Any, running: str) -> None:
    text = lab("logs", "--lab", running, "a", "one", code=0).stdout
    assert text == "".join(f"one {number}\n" for number in range(1, 6))


@pytest.mark.parametrize(("lines", "expected"), [("0", ""), ("1", "two 5\n"), ("2", "two 4\ntwo 5\n")])
def test_its_last_lines(lab: Any, running: str, lines: str, expected: str) -> None:
    assert lab("logs", "--lab", running, "-n", lines, "a", "two", code=0).stdout == expected


def test_more_lines_than_there_are(lab: Any, running: str) -> None:
    assert len(lab("logs", "--lab", running, "-n", "99", "a", "one", code=0).stdout.splitlines()) == 5


def test_several_services_are_told_apart(lab: Any, running: str) -> None:
    assert lab("logs", "--lab", running, "-n", "1", "a", code=0).stdout == "one | one 5\ntwo | two 5\n"


def test_what_has_no_log_is_wrong_input(lab: Any, running: str) -> None:
    for words, message in (
        (["a", "three"], "service 'three' of node 'a' does not exist; running: one, two"),
        (["b"], "node 'b' runs no services"),
        (["c"], "no node 'c'"),
    ):
        result = lab("logs", "--lab", running, *words, code=ExitCode.WRONG_INPUT)
        assert result.stderr.startswith(f"lab: error: {message}")


@pytest.mark.essential
def test_following_shows_what_is_written_later_until_the_lab_ends(lab: Any, up: Any) -> None:
    name = up(TALKS_WHEN_ASKED)
    process = lab.start("logs", "--lab", name, "-f", "a")
    for _ in range(3):
        ask = "import socket; socket.create_connection(('127.0.0.1', 80))"
        lab("exec", "--lab", name, "a", "--", "python3", "-c", ask, code=0)
        assert process.stdout.readline().startswith("asked ('127.0.0.1'")
    lab("down", name, code=0)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")


def test_following_ends_with_ctrl_c(lab: Any, running: str) -> None:
    process = lab.start("logs", "--lab", running, "-n", "1", "-f", "a", "one")
    assert process.stdout.readline() == "one 5\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "")
