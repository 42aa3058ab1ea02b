"""Golden pairs: a topology and every step that makes it real, rulesets included.

LAB_WRITE_GOLDEN=1 writes the texts anew; then read them, as they are what the tests hold to be right.
"""

from __future__ import annotations

import os
from pathlib import Path

from lab.plan.build import build
from lab.plan.render import to_text
from lab.topology.load import load_topology

GOLDEN = Path(__file__).parent / "golden"


def test_there_are_golden_files(shipped: list[Path], small: list[Path]) -> None:
    assert {file.stem for file in shipped} >= {"direct", "two_lans", "dual_stack", "homelab"}
    assert len(small) >= 8


def test_every_golden_text_has_its_topology(shipped: list[Path], small: list[Path]) -> None:
    texts = {text.name.removesuffix(".plan.txt") for text in GOLDEN.glob("*.plan.txt")}
    assert texts == {file.stem for file in shipped + small}
    assert len(texts) == len(shipped) + len(small)  # no small one is called as a shipped one


def test_a_topology_is_planned_as_its_golden_text_says(golden_file: Path) -> None:
    golden = GOLDEN / f"{golden_file.stem}.plan.txt"
    text = to_text(build(load_topology(golden_file)))
    if os.environ.get("LAB_WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert text == "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
