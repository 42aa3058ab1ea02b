"""docs/nat.md: every property that is measured has its row there, with its requirement, and the example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.certify.judge import judge
from lab.certify.seen import ForwardSeen, Sample, Seen
from lab.certify.subject import Subject
from tests.docs.test_pytest_page import run_pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "nat.md").read_text()
DECLARED = {
    "ipv6_prefix": {"inside": "::/64", "outside": "::/64"},
    "ports": {"first": 1, "last": 2, "allocation": "preserve", "parity": True},
    "sessions": 9,
    "port_block": 9,
}


def rows() -> dict[str, set[str]]:
    """Of the page: property -> requirements of its row."""
    found: dict[str, set[str]] = {}
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            names, _, requirements = (cell.strip() for cell in line.strip("|").split("|"))
            found |= {name: set(requirements.split(", ")) for name in re.findall("`([^`]+)`", names)}
    return found


def measured() -> dict[str, str]:
    """Of the code: topic -> requirement, of everything that there can be."""
    about = Subject("r", "home", "internet", "10.0.0.1", ("198.51.100.1", "198.51.100.2"), declared=DECLARED)
    ipv6 = {"outbound": "passes", "address": "::1", "inside": "::1", "filtering": "x", "unsolicited": "x"}
    seen = Seen(
        outside_addresses=about.outside_addresses,
        spread=Sample((), 0),
        forwards=(ForwardSeen("...", arrived=True),),
        ipv6=ipv6,
    )
    return {row.topic: row.requirement for row in judge(about, seen).rows}


def test_the_page_names_what_is_measured_and_nothing_else() -> None:
    assert len(measured()) > 30
    assert sorted(rows()) == sorted(measured())


def test_the_page_names_the_requirements() -> None:
    page = rows()
    for topic, requirement in measured().items():
        assert not requirement or requirement in page[topic], topic


@pytest.mark.alone  # it measures what NAT does
def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(# test_certificate\.py\n.*?)```", PAGE, re.DOTALL)
    assert "1 passed" in run_pytest(tmp_path, {"test_certificate.py": example})
