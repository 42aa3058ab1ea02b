"""`lab reach`: the matrix of a small lab, as text and for programs."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from lab.cli.reach import _has_full_neighbour_table
from lab.errors import ExitCode
from lab.probe.outcome import Attempt, Outcome
from lab.probe.question import Question, Target
from lab.probe.reach import Answer, Reachability

TOPOLOGY = """\
networks:
  lan: {prefixes: [192.0.2.0/24, "2001:db8:1::/64"]}
nodes:
  a:
    links: {lan: auto}
    services: {web: {run: python3 -m http.server --bind 0.0.0.0 80, ready: {tcp: 80}}}
  b: {links: {lan: {only: ipv4}}}
  dark: {links: {lan: auto}, firewall: {input: drop}}
"""


@pytest.fixture(scope="module")
def running(module_up: Any) -> str:
    name: str = module_up(TOPOLOGY)
    return name


@pytest.mark.essential
def test_the_matrix_as_text(lab: Any, running: str) -> None:
    text = lab("reach", "--lab", running, "--timeout", "5", code=0).stdout
    head, summary = text.rstrip("\n").rsplit("\n", 1)
    assert head == (
        "services  a\n"
        "          web\n"
        "          tcp/80\n"
        "a         4\n"
        "b         4\n"
        "dark      4\n"
        "\n"
        "ping  a    b    dark\n"
        "a     -    4    .\n"
        "b     4    -    .\n"
        "dark  4 6  4    -\n"
        "\n"
        "4 6 reached by IPv4, by IPv6\n"
        "x refused\n"
        "u unreachable: no route, or a router or firewall said so\n"
        ". silence for 5 s\n"
        "- not asked: itself, or no address\n"
        "A cell shows the best outcome over all addresses and both IP versions.\n"
        'Kernels ration their "unreachable" answers: a . may be a u that was not sent.\n'
    )
    assert summary.startswith(f"{running}: 18 questions in ")


def test_the_matrix_as_json_has_the_documented_keys(lab: Any, running: str) -> None:
    found = json.loads(lab("reach", "--json", "--lab", running, "--timeout", "5", "--from", "b", code=0).stdout)
    assert found.keys() == {"lab", "timeout", "seconds", "summary", "answers"}
    assert (found["lab"], found["timeout"]) == (running, 5)
    assert 5 <= found["seconds"] < 100
    assert len(found["answers"]) == sum(found["summary"].values()) == 6
    for answer in found["answers"]:
        assert answer.keys() == {
            "from", "to", "service", "protocol", "port", "version",
            "outcome", "address", "milliseconds", "detail", "attempts",
        }  # fmt: skip
        assert answer["from"] == "b"
    web = found["answers"][0]
    assert (web["to"], web["service"], web["protocol"], web["port"], web["version"]) == ("a", "web", "tcp", 80, 4)
    assert (web["outcome"], web["address"], len(web["attempts"])) == ("reached", "192.0.2.1", 1)
    assert found["answers"][1]["outcome"] == "unreachable"


def test_an_unknown_source_is_wrong_input(lab: Any, running: str) -> None:
    result = lab("reach", "--lab", running, "--from", "z", code=ExitCode.WRONG_INPUT)
    assert result.stderr.startswith("lab: error: no node 'z'")


@pytest.mark.parametrize(("number", "is_full"), [(errno.ENOBUFS, True), (errno.EHOSTUNREACH, False)])
def test_full_neighbour_tables_are_noticed(*, number: int, is_full: bool) -> None:
    """From the value: filling them for real would starve the other tests' labs, which share them."""
    target = Target("a", "", "icmp", None)
    attempt = Attempt.failed("192.0.2.1", number)
    assert (attempt.outcome is Outcome.NOT_ASKED) is is_full
    measured = Reachability(
        "x", 1.0, ("b",), (target,), (Answer(Question("b", target, 4, ("192.0.2.1",)), (attempt,)),)
    )
    assert _has_full_neighbour_table(measured) is is_full
