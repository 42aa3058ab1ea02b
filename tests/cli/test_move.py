"""`lab move`: what it says; that the host has really moved is held to in tests/realise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.errors import ExitCode

pytestmark = pytest.mark.essential

TOPOLOGY: dict[str, Any] = {
    "networks": {"home": {"prefixes": ["192.168.1.0/24"]}, "cafe": {"prefixes": ["10.0.0.0/24"]}},
    "nodes": {
        "laptop": {"links": {"home": "192.168.1.20"}},
        "both": {"links": {"home": "auto", "cafe": "auto"}},
        "server": {"links": {"cafe": "10.0.0.10"}},
    },
}


@pytest.fixture(scope="module")
def name(module_up: Callable[..., str]) -> str:
    return module_up(TOPOLOGY)


def test_it_says_where_the_host_is_and_by_which_address(lab: Any, name: str) -> None:
    assert lab("move", "laptop", "cafe", "--lab", name, code=0).stdout == "laptop is in cafe: home has 10.0.0.2/24\n"
    node = json.loads(lab("inspect", "laptop", "--json", "--lab", name, code=0).stdout)
    assert node["interfaces"][0]["network"] == "cafe"
    lab("exec", "--lab", name, "server", "--", "ping", "-c1", "-w30", "laptop", code=0)
    assert (
        lab("move", "laptop", "home", "--lab", name, code=0).stdout == "laptop is in home: home has 192.168.1.20/24\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["laptop", "caf"], "no network is called 'caf'; did you mean 'cafe'?; there are: home, cafe"),
        (["lptop", "cafe"], "no node is called 'lptop'; did you mean 'laptop'?; there are: laptop, both, server"),
        (["laptop", "cafe", "--from", "cafe"], "laptop is not attached to 'cafe'; say which it leaves: home"),
        (["both", "cafe"], "both is attached to cafe already"),
        (["laptop"], "move: the following arguments are required: NETWORK"),
    ],
)
def test_wrong_words_are_wrong_input(lab: Any, name: str, words: list[str], message: str) -> None:
    assert f"lab: error: {message}" in lab("move", *words, "--lab", name, code=ExitCode.WRONG_INPUT).stderr
