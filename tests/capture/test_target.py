"""What is to be captured, in words; a wrong one is answered with what there is."""

from __future__ import annotations

from typing import Any

import pytest

from lab.capture.target import targets
from lab.errors import UsageError


def node(name: str, *interfaces: str) -> dict[str, Any]:
    found = [each.partition("@") for each in interfaces]
    return {"name": name, "interfaces": [{"name": each[0], "network": each[2] or each[0]} for each in found]}


FACTS: dict[str, Any] = {
    "name": "home",
    "networks": [{"name": name} for name in ("home", "isp", "both", "empty")],
    "nodes": [node("nas", "home", "both"), node("router", "lan@home", "isp"), node("both", "isp"), node("lone")],
}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["nas:home"], ["nas:home"]),
        (["router:lan"], ["router:lan"]),
        (["router:home"], ["router:lan"]),  # the network names the link
        (["nas:lo"], ["nas:lo"]),
        (["nas:wg0"], ["nas:wg0"]),  # which the topology does not know
        (["nas"], ["nas:home", "nas:both"]),
        (["home"], ["nas:home", "router:lan"]),
        (["router:lan", "home", "router"], ["router:lan", "nas:home", "router:isp"]),
        ([], ["nas:home", "nas:both", "router:lan", "router:isp", "both:isp"]),
    ],
)
def test_words_name_interfaces_each_once(words: list[str], found: list[str]) -> None:
    assert [str(target) for target in targets(FACTS, words)] == found


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("nsa", r"nothing is called 'nsa' in lab home; did you mean 'nas'\? Nodes: both, lone, nas, router; networks"),
        ("", "nothing is called ''"),
        ("nsa:home", "no node 'nsa' in lab home; did you mean 'nas'"),
        ("nas:", r"nas has no interface ''. It has: home, both, lo"),
        ("nas:" + 16 * "a", "nas has no interface"),
        ("both", "'both' is a node and a network of lab home; name interfaces, as both:IFACE"),
        ("empty", "there is no interface to capture at: empty has none"),
        ("lone", "there is no interface to capture at: lone has none"),
    ],
)
def test_a_word_that_names_nothing_is_answered_with_what_there_is(word: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        targets(FACTS, [word])
