"""What the page on links says is so: its presets, its commands, its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.cli.link import ACTIONS
from lab.plan.link_backend import Backend
from lab.topology.impairment import UNIMPAIRED, changed
from lab.topology.impairment_presets import PRESETS, with_preset
from lab.topology.impairment_text import duration_text, rate_text

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "links.md").read_text()
ROWS = {
    cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
    for cells in re.findall(r"^\| (.*?) \|(.*)\|(.*)\|(.*)\|(.*)\|$", PAGE, re.MULTILINE)
}


def test_every_preset_has_its_row() -> None:
    assert ROWS.keys() >= PRESETS.keys()


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"pppoe"}))
def test_a_row_has_the_figures_of_its_preset(name: str) -> None:
    up, down = (changed(UNIMPAIRED, with_preset(name, way, {}), 1500) for way in ("egress", "ingress"))
    assert ROWS[name][:3] == [rate_text(up.rate), rate_text(down.rate), duration_text(up.delay)]
    assert ("jitter " + duration_text(up.jitter) in ROWS[name][3]) == bool(up.jitter)


def test_every_action_and_backend_is_named() -> None:
    assert [action for action in ACTIONS if action not in PAGE] == []
    assert [each for each in Backend if each is not Backend.NONE and f"| `{each}` |" not in PAGE] == []
