"""`lab link`: what it shows, what it changes, and what it refuses with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.realise.asking import wait_until
from tests.cli.conftest import LabCommand, Up

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   nas, tv -- home -- router -- line (a cable) -- isp
networks:
  home: {prefixes: [192.0.2.0/24]}
  line: {prefixes: [198.51.100.0/30], point_to_point: true}
nodes:
  router: {role: router, links: {home: auto, line: {delay: 10ms}}}
  isp: {links: {line: auto}}
  nas: {links: {home: auto}}
  tv: {links: {home: auto}}
"""


ALL = ["router:home", "router:line", "isp:line", "nas:home", "tv:home"]


@pytest.fixture(scope="module")
def running(module_up: Up) -> str:
    return module_up(TOPOLOGY)


@pytest.fixture
def name(running: str, lab: LabCommand) -> str:
    lab("link", "reset", "--lab", running, code=0)
    return running


def links(lab: LabCommand, name: str, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab("link", *words, "--json", "--lab", name, code=0).stdout)
    return found


def asked_of_both(text: str) -> str:
    """The column ASKED in one line: where its cells are broken depends on what was measured meanwhile."""
    titles, *rows = text.partition("\n\n")[2].splitlines()
    start, end = titles.index("ASKED"), titles.index("MEASURED")
    return " ".join(word for row in rows for word in row[start:end].split())


def test_all_links_are_listed_with_what_is_asked_and_by_what_means(lab: LabCommand, name: str) -> None:
    lines = lab("link", "--lab", name, code=0).stdout.splitlines()
    assert lines[0].split() == ["LINK", "STATE", "ASKED", "BY", "NODE", "SENT", "NODE", "RECEIVED"]
    assert [line.split()[0] for line in lines[1:]] == ALL
    assert "delay=10ms each way" in lines[2]
    assert "linkwire" in lines[2]


def test_set_changes_the_directions_that_are_named_and_clear_takes_it_away(lab: LabCommand, name: str) -> None:
    (changed,) = links(lab, name, "nas:home", "set", "delay=20ms", "loss=1%", "--from", "nas")
    assert changed["asked"] == {"egress": "delay=20ms loss=1%", "ingress": ""}
    assert changed["declared"] == {"egress": "", "ingress": ""}
    text = lab("link", "nas:home", "show", "--lab", name, code=0).stdout
    assert text.startswith("nas:home  up  (linkwire, since ")
    assert "nas receives  nothing" in text
    lab("link", "nas:home", "clear", "--from", "nas", "--lab", name, code=0)
    assert links(lab, name, "nas:home")[0]["backend"] == "none"


def test_a_preset_may_be_changed_beside_and_reset_brings_back_what_was_declared(lab: LabCommand, name: str) -> None:
    (changed,) = links(lab, name, "line", "set", "preset=dsl", "delay=15ms", "--from", "isp")
    assert changed["link"] == "router:line"
    assert changed["asked"] == {"egress": "delay=10ms", "ingress": "delay=15ms jitter=2ms rate=1.5mbit queue=250ms"}
    text = lab("link", "router:line", "--lab", name, code=0).stdout
    assert asked_of_both(text) == "delay=10ms delay=15ms jitter=2ms rate=1.5mbit queue=250ms (declared: delay=10ms)"
    assert [link["link"] for link in links(lab, name, "reset")] == ALL
    assert links(lab, name, "router:line")[0]["asked"]["ingress"] == "delay=10ms"


def test_links_go_down_and_up_and_flap(lab: LabCommand, name: str) -> None:
    lab("link", "tv:home", "down", "--lab", name, code=0)
    assert "down" in lab("link", "tv:home", "--lab", name, code=0).stdout
    assert links(lab, name, "tv:home", "up")[0]["state"] == "up"
    flapping = links(lab, name, "tv:home", "flap", "--down", "10s", "--up", "50ms", "--times", "2")
    assert [(link["state"], link["pending"]) for link in flapping] == [("down", 1)]


def test_a_probe_measures_round_trips(lab: LabCommand, name: str) -> None:
    (probed,) = links(lab, name, "router:line", "show", "--probe")
    assert (probed["round_trips"]["by"], probed["round_trips"]["to"]) == ("router", "isp")
    assert probed["round_trips"]["answered"] == probed["round_trips"]["asked"] == 20
    assert 20 <= probed["round_trips"]["min_ms"] < 1000  # milliseconds, as the key says
    assert probed["measured"]["egress"]["frames"] >= 20
    assert 10 <= probed["measured"]["egress"]["delay_mean_ms"] < 1000
    assert "20 of 20 echo requests to isp answered" in lab("link", "line", "--probe", "--lab", name, code=0).stdout


def test_a_probe_that_nobody_answers_says_what_that_may_mean(lab: LabCommand, name: str) -> None:
    links(lab, name, "router:line", "set", "loss=100%")
    said = lab("link", "router:line", "--probe", "--lab", name, code=0).stdout
    assert "none of 20 echo requests to isp answered, nor of those that isp sent: the link loses them, or a" in said


def test_a_probe_of_a_guarded_router_comes_from_the_other_end(lab: LabCommand, up: Up) -> None:
    guarded = up(TOPOLOGY.replace("isp: {links: {line: auto}}", "isp: {links: {line: auto}, firewall: {input: drop}}"))
    said = lab("link", "router:line", "--probe", "--lab", guarded, code=0).stdout
    assert "20 of 20 echo requests from isp to router answered" in said


def test_the_death_of_linkwire_is_told(lab: LabCommand, name: str) -> None:
    pid = lab("exec", "nas", "--lab", name, "--", "pgrep", "-x", "linkwire", code=0).stdout.strip()
    lab("exec", "nas", "--lab", name, "--", "kill", "-9", pid, code=0)
    wait_until(lambda: "cut" in lab("link", "router:line", "--lab", name, code=0).stdout, 30, "its death is known")
    text = lab("link", "router:line", "--lab", name, code=0).stdout
    assert "killed by signal 9" in text
    assert "`lab link router:line set ...` or `clear` mends it" in text

    def state() -> str:
        (listed,) = (each for each in json.loads(lab("ps", "--json", code=0).stdout) if each["name"] == name)
        return str(listed["state"])

    wait_until(lambda: state() == "degraded", 30, "`lab ps` shows it")
    assert {link["state"] for link in links(lab, name, "line", "clear")} == {"up"}


REFUSED = [
    (["nas:home", "set", "loss=120%"], 2, "'120%'; a percentage, as 0.5% or 100%, from 0% to 100%"),
    (["nas:home", "set", "delay=40"], 2, "'40'; a time with its unit"),
    (["nas:home", "set", "dealy=4ms"], 2, "did you mean 'delay'?"),
    (["nas:home", "set", "preset=dls"], 2, "did you mean 'dsl'?"),
    (["nas:home", "set", "preset=dsl", "preset=lte"], 2, "2 presets; one at most"),
    (["nas:home", "set"], 2, "nothing to set"),
    (["nas:home", "set", "delay=1ms", "--from", "tv"], 2, "tv is no sender of link nas:home"),
    (["nas:hom", "set", "delay=1ms"], 2, "no link 'nas:hom' in this lab"),
    (["nas:home", "dwon"], 2, "no action 'dwon'; allowed: show, set"),
    (["down"], 2, "down which link?"),
    (["nas:home", "down", "delay=1ms"], 2, "down takes no words"),
    (["nas:home", "down", "--from", "nas"], 2, "--from has no meaning with down"),
    (["nas:home", "clear", "--backend", "tbf"], 2, "--backend has no meaning with clear; it has with set"),
    (["nas:home", "show", "--down", "2s"], 2, "--down has no meaning with show; it has with flap"),
    (["nas:home", "down", "--up", "2s"], 2, "--up has no meaning with down; it has with flap"),
    (["nas:home", "set", "delay=1ms", "--times", "1"], 2, "--times has no meaning with set; it has with flap"),
    (["nas:home", "clear", "--probe"], 2, "--probe has no meaning with clear"),
    (["nas:home", "flap", "--down", "0s"], 2, "'0s'; a duration"),
]


@pytest.mark.parametrize(("words", "code", "said"), REFUSED, ids=[" ".join(words) for words, _, _ in REFUSED])
def test_what_is_wrong_is_said_and_nothing_changes(
    lab: LabCommand, running: str, words: list[str], code: int, said: str
) -> None:
    assert said in lab("link", *words, "--lab", running, code=code).stderr


def test_the_help_tells_the_words_and_an_example(lab: LabCommand) -> None:
    text = lab("link", "--help", code=0).stdout
    for word in ("delay=40ms", "preset=dsl", "--from NODE", "flap", "--json", "example:"):
        assert word in text


def test_a_lab_with_a_wrong_link_is_refused_before_it_is_built(lab: LabCommand, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(TOPOLOGY.replace("delay: 10ms", "delay: 10ms, loss: 120%"))
    done = lab("up", file, code=2)
    assert "nodes.router.links.line.loss: '120%'; a percentage" in done.stderr
