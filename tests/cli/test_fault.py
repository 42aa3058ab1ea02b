"""`lab fault`: what it says and answers; that the faults are real is held to in tests/realise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.errors import ExitCode
from lab.realise.lab import Lab

pytestmark = pytest.mark.essential

TOPOLOGY: dict[str, Any] = {
    "networks": {"lan": {"prefixes": ["192.0.2.0/24"]}},
    "nodes": {
        "nas": {"links": {"lan": "auto"}, "services": {"web": {"run": "sleep 1000", "restart": "always"}}},
        "pi": {"links": {"lan": "auto"}},
    },
}


@pytest.fixture(scope="module")
def running(module_up: Callable[..., str]) -> str:
    return module_up(TOPOLOGY)


@pytest.fixture
def name(running: str) -> Any:
    yield running
    handle = Lab(running)
    handle.heal()
    handle.close()


def state(name: str) -> str:
    handle = Lab(name)
    (web,) = handle.services()
    handle.close()
    return str(web["state"])


def test_a_fault_is_brought_about_shown_and_healed(lab: Any, name: str) -> None:
    said = lab("fault", "kill", "nas/web", "--lab", name, code=0).stdout
    assert said.startswith("nas/web: ended by SIGKILL; its `restart: always` is held back; `lab fault heal ")
    assert state(name) == "held"
    shown = lab("fault", "--lab", name, code=0).stdout.splitlines()
    assert shown[0].split() == ["NUMBER", "FAULT", "WHERE", "SINCE", "UNTIL", "WHAT"]
    number, *rest = shown[1].split()
    assert (rest[0], rest[1], rest[3]) == ("kill", "nas/web", "healed")
    assert lab("fault", "heal", number, "--lab", name, code=0).stdout.startswith(
        "healed: kill nas/web, in force since "
    )
    assert state(name) == "ready"
    assert lab("fault", "--lab", name, code=0).stdout == "no fault is in force\n"
    assert lab("fault", "heal", "--lab", name, code=0).stdout == "no fault is in force\n"


def test_faults_of_the_network_are_said_in_words(lab: Any, name: str) -> None:
    said = lab("fault", "partition", "nas", "pi", "--lab", name, "--for", "1min", code=0).stdout
    assert said == "nas pi: nothing passes between their addresses; dropped in nas, pi\n"
    assert lab("fault", "--lab", name, code=0).stdout.splitlines()[1].split()[1:4] == ["partition", "nas", "pi"]


def test_heal_without_a_number_heals_all(lab: Any, name: str) -> None:
    lab("fault", "kill", "nas/web", "--lab", name, code=0)
    lab("fault", "pause", "pi", "--lab", name, code=0)
    said = lab("fault", "heal", "--lab", name, code=0).stdout.splitlines()
    assert [line.split(",")[0] for line in said] == ["healed: pause pi", "healed: kill nas/web"]


def test_heal_mends_links_too(lab: Any, name: str) -> None:
    lab("link", "nas:lan", "down", "--lab", name, code=0)
    assert lab("fault", "heal", "--lab", name, code=0).stdout == "healed: link nas:lan, as declared again\n"
    lab("exec", "--lab", name, "nas", "--", "ping", "-c1", "-w30", "pi", code=0)


def test_all_of_it_as_json(lab: Any, name: str) -> None:
    done = json.loads(lab("fault", "pause", "--for", "1min", "pi", "--json", "--lab", name, code=0).stdout)
    (fault,) = done["faults"]
    assert (fault["kind"], fault["targets"], fault["note"]) == ("pause", ["pi"], done["note"])
    assert fault["until"] - fault["since"] == pytest.approx(60)
    assert json.loads(lab("fault", "--json", "--lab", name, code=0).stdout) == {"faults": [fault]}
    assert json.loads(lab("fault", "heal", "--json", "--lab", name, code=0).stdout) == {"faults": [fault], "mended": []}
    done = json.loads(lab("fault", "restart", "nas/web", "--json", "--lab", name, code=0).stdout)
    assert done == {"faults": [], "note": "restarted"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kil", "nas"], "fault: no fault is called 'kil'; did you mean 'kill'?; there are: kill, pause, restart"),
        (["kill"], "fault: kill takes NODE[/SERVICE], not nothing"),
        (["kill", "nas", "pi"], "fault: kill takes NODE[/SERVICE], not nas pi"),
        (["kill", "nass"], "no node is called 'nass'; did you mean 'nas'?; there are: nas, pi"),
        (["pause", "nas/wep"], "no service of nas is called 'wep'; did you mean 'web'?"),
        (["restart", "nas", "--for", "5s"], "fault: --for belongs to a fault that lasts; restart is over at once"),
        (["kill", "nas", "--for", "5"], "--for '5'; a duration with its unit, as 500ms, 10s or 1min"),
        (["partition", "nas"], "fault: partition takes ONE OTHER, not nas"),
        (
            ["partition", "nas", "lam"],
            "no node or network is called 'lam'; did you mean 'lan'?; there are: nas, pi, lan",
        ),
        (["flush-nat", "nas"], "nas has no NAT, and so no outside; routers with NAT: none"),
        (["flush-nat", "nas", "--for", "5s"], "fault: --for belongs to a fault that lasts; flush-nat is over at once"),
        (["change-address", "a", "b", "c"], "fault: change-address takes ROUTER [ADDRESS], not a b c"),
        (["heal", "x"], "fault: heal takes numbers of faults, as `lab fault` shows them, not 'x'"),
        (["heal", "9999"], "no fault 9999 is in force; none is"),
        (["--for", "5s"], "fault: --for belongs to a fault that lasts"),
    ],
)
def test_wrong_words_are_wrong_input(lab: Any, name: str, words: list[str], message: str) -> None:
    result = lab("fault", *words, "--lab", name, code=ExitCode.WRONG_INPUT)
    assert f"lab: error: {message}" in result.stderr
    assert lab("fault", "--lab", name, code=0).stdout == "no fault is in force\n"
