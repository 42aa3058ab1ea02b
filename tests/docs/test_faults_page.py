"""What the page of faults says is so: its test passes, and it names every fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.cli.fault import KINDS
from lab.realise.fault import LabFaults
from tests.docs.test_pytest_page import public_methods, run_pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "faults.md").read_text()


def test_the_page_names_every_fault() -> None:
    assert len(KINDS) >= 6
    rows = set(re.findall(r"^\| `([a-z-]+) ", PAGE, re.MULTILINE))
    assert rows == set(KINDS)


def test_the_page_names_every_method() -> None:
    named = set(re.findall(r"lab\.fault\.(\w+)\(", PAGE)) | {"heal"}
    assert named == set(public_methods(LabFaults))


@pytest.mark.essential
@pytest.mark.single_id
def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(# test_\w+\.py\n.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert "1 passed in " in run_pytest(tmp_path, {"test_faults.py": block})
