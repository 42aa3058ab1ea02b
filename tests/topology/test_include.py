"""Limits of `include`, and the name of a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import TopologyError
from lab.topology.include import MOST_DEPTH, MOST_FILES
from lab.topology.load import load_topology


def test_depth_is_bounded(tmp_path: Path) -> None:
    for depth in range(MOST_DEPTH + 2):
        (tmp_path / f"{depth}.yaml").write_text(f"include: [{depth + 1}.yaml]\n")
    (tmp_path / f"{MOST_DEPTH + 2}.yaml").write_text("nodes: {n: {}}\n")
    with pytest.raises(TopologyError, match=f"{MOST_DEPTH}.yaml:1:11: .* is included {MOST_DEPTH + 1} deep"):
        load_topology(tmp_path / "0.yaml", "lab")
    assert load_topology(tmp_path / "2.yaml", "lab").nodes[0].name == "n"


def test_number_of_files_is_bounded(tmp_path: Path) -> None:
    for number in range(MOST_FILES):
        (tmp_path / f"part{number}.yaml").write_text(f"nodes: {{n{number}: {{}}}}\n")
    included = [f"part{number}.yaml" for number in range(MOST_FILES)]
    (tmp_path / "top.yaml").write_text(f"include: [{', '.join(included[:-1])}]\n")
    assert len(load_topology(tmp_path / "top.yaml").nodes) == MOST_FILES - 1
    (tmp_path / "top.yaml").write_text(f"include: [{', '.join(included)}]\n")
    with pytest.raises(TopologyError, match=f"one file more than {MOST_FILES}"):
        load_topology(tmp_path / "top.yaml")


def test_a_given_name_goes_before_the_written_one_and_that_before_the_files(tmp_path: Path) -> None:
    path = tmp_path / "Two_Lans.yaml"
    path.write_text("nodes: {n: {}}\n")
    assert load_topology(path).name == "two-lans"
    path.write_text("name: written\nnodes: {n: {}}\n")
    assert load_topology(path).name == "written"
    assert load_topology(path, "given").name == "given"


@pytest.mark.parametrize("name", ["", "A", "a b", "x" * 33, "-a", "a\n", "../a"])
def test_a_given_name_keeps_the_rule(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("nodes: {n: {}}\n")
    with pytest.raises(TopologyError, match=r"t.yaml:1:1: name: "):
        load_topology(path, name)


def test_a_files_name_that_is_no_labs_name_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "my lab.yaml"
    path.write_text("nodes: {n: {}}\n")
    with pytest.raises(TopologyError, match="`name:` gives another"):
        load_topology(path)
