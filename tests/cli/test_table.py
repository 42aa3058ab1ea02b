"""Tables: alignment, and cells that break between words when the width is short."""

from __future__ import annotations

import io

import pytest

from lab.cli.style import Style
from lab.cli.table import table

ROWS = [["nas", "198.51.100.1/24 2001:db8:1::1/64", "ssh web"], ["laptop", "192.0.2.1/24", "-"]]


class Screen(io.StringIO):
    """A terminal in memory."""

    def isatty(self) -> bool:
        return True


def styled(monkeypatch: pytest.MonkeyPatch, width: int) -> Style:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    return Style(Screen())


def test_columns_are_as_wide_as_their_content(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table(["NODE", "ADDRESSES", "SERVICES"], ROWS, styled(monkeypatch, 80)) == (
        "NODE    ADDRESSES                         SERVICES\n"
        "nas     198.51.100.1/24 2001:db8:1::1/64  ssh web\n"
        "laptop  192.0.2.1/24                      -\n"
    )


def test_the_widest_cell_breaks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table(["NODE", "ADDRESSES", "SERVICES"], ROWS, styled(monkeypatch, 40)) == (
        "NODE    ADDRESSES               SERVICES\n"
        "nas     198.51.100.1/24         ssh web\n"
        "        2001:db8:1::1/64\n"
        "laptop  192.0.2.1/24            -\n"
    )


def test_words_stay_whole_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    text = table(["NODE", "ADDRESSES", "SERVICES"], ROWS, styled(monkeypatch, 20))
    assert "2001:db8:1::1/64" in text
    assert "SERVICES" in text


def test_colour_does_not_move_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = table(["NODE", "ADDRESSES", "SERVICES"], ROWS, styled(monkeypatch, 60))
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    painted = table(["NODE", "ADDRESSES", "SERVICES"], ROWS, Style(Screen()), lambda column, _: "red" if column else "")
    assert "\x1b[31m198.51.100.1/24\x1b[0m" in painted
    stripped = painted.replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert [line.rstrip() for line in stripped.splitlines()] == expected.splitlines()
