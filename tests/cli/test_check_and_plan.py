"""`lab check` and `lab plan`: exact texts, exit codes, keys for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

GOOD = """\
name: pair
networks:
  lan: {prefixes: [192.0.2.0/24]}
nodes:
  a:
    links: {lan: auto}
    services: {web: {run: python3 -m http.server 80, ready: {tcp: 80}}}
  b: {links: {lan: auto}}
"""

BAD = """\
name: pair
networks:
  lan: {prefixes: [192.0.2.0/24]}
nodes:
  a: {links: {lna: auto}}
  b: {linkz: {lan: auto}}
"""

# What the CLI shows of a plan's end; the plan itself has golden files of its own.
LAST_STEP = "start a/web: python3 -m http.server 80; restart never; ready once tcp *:80 of a is bound, within 10 s"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    return file


@pytest.mark.essential
def test_check_counts_what_a_good_file_holds(lab: Any, good: Path) -> None:
    result = lab("check", good, code=0)
    assert (result.stdout, result.stderr) == ("ok: pair: 2 nodes, 1 network, 1 service\n", "")


def test_check_names_every_fault_of_every_file_on_stderr(lab: Any, good: Path, bad: Path) -> None:
    result = lab("check", bad, good, code=2)
    assert result.stdout == "ok: pair: 2 nodes, 1 network, 1 service\n"
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{bad}:5:15: nodes.a.links.lna: ")
    assert "did you mean 'lan'?" in lines[0]
    assert lines[1].startswith(f"{bad}:6:7: nodes.b.linkz: ")


def test_check_as_json_has_the_documented_keys(lab: Any, good: Path, bad: Path) -> None:
    result = lab("check", "--json", good, bad, code=2)
    ok, faulty = json.loads(result.stdout)
    counts = {"nodes": 2, "networks": 1, "services": 1}
    assert ok == {"file": str(good), "ok": True, "name": "pair", **counts, "faults": []}
    assert (faulty["file"], faulty["ok"]) == (str(bad), False)
    assert [(fault["line"], fault["column"], fault["path"]) for fault in faulty["faults"]] == [
        (5, 15, "nodes.a.links.lna"),
        (6, 7, "nodes.b.linkz"),
    ]
    assert all(fault["file"] == str(bad) and fault["text"] for fault in faulty["faults"])


@pytest.mark.parametrize("file", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_a_fault_not_a_traceback(lab: Any, tmp_path: Path, file: str) -> None:
    assert str(tmp_path / file) in lab("check", tmp_path / file, code=2).stderr


def test_plan_numbers_every_step(lab: Any, good: Path) -> None:
    text = lab("plan", good, code=0).stdout
    head, *steps = text.splitlines()
    assert steps[-1] == f"{len(steps)}  {LAST_STEP}"
    assert head == f"lab pair: {len(steps)} steps"
    assert [int(step.split()[0]) for step in steps] == list(range(1, len(steps) + 1))


def test_plan_without_services_starts_none(lab: Any, good: Path) -> None:
    kinds = [step["step"] for step in json.loads(lab("plan", "--json", good, code=0).stdout)["steps"]]
    without = json.loads(lab("plan", "--json", "--no-services", good, code=0).stdout)
    assert "StartService" in kinds
    assert without["name"] == "pair"
    assert [step["step"] for step in without["steps"]] == [kind for kind in kinds if kind != "StartService"]


def test_plan_of_a_bad_file_names_its_faults(lab: Any, bad: Path) -> None:
    result = lab("plan", bad, code=2)
    assert result.stdout == ""
    assert f"{bad}:5:15: nodes.a.links.lna" in result.stderr
