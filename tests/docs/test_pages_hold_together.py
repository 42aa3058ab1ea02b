"""Pages as their readers meet them: links lead to a file and a heading that are there, rows have all their cells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "docs", "reports", "reports/baseline", "proxy/fuzz")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """Without the blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> set[str]:
    """By what a link names them: as GitHub has it, small letters, digits, `-` and `_`, with `-` for a space."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_there_are_pages() -> None:
    assert len(PAGES) > 10


@EACH
def test_a_link_leads_somewhere(page: Path) -> None:
    for path, heading in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", prose(page)):
        if path.startswith("https://"):
            continue
        to = (page.parent / path) if path else page
        assert to.exists(), path
        assert not heading or heading in headings(to), f"{path}#{heading}"


@EACH
def test_rows_of_a_table_have_as_many_cells_as_its_head(page: Path) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", prose(page), re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, table
