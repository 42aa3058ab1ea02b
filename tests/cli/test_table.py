"""Tables: alignment, and cells that break between words when the width is short."""

from __future__ import annotations

import io

import pytest

from lab.cli.style import Style
from lab.cli.table import table
from tests.cli.conftest import Screen, StyleOf

ROWS = [["nas", "198.51.100.1/24 2001:db8:1::1/64", "ssh web"], ["laptop", "192.0.2.1/24", "-"]]


def test_columns_are_as_wide_as_their_content(style_of: StyleOf) -> None:
    assert table(["NODE", "ADDRESSES", "SERVICES"], ROWS, style_of(80)) == (
        "NODE    ADDRESSES                         SERVICES\n"
        "nas     198.51.100.1/24 2001:db8:1::1/64  ssh web\n"
        "laptop  192.0.2.1/24                      -\n"
    )


def test_the_widest_cell_breaks_first(style_of: StyleOf) -> None:
    assert table(["NODE", "ADDRESSES", "SERVICES"], ROWS, style_of(40)) == (
        "NODE    ADDRESSES               SERVICES\n"
        "nas     198.51.100.1/24         ssh web\n"
        "        2001:db8:1::1/64\n"
        "laptop  192.0.2.1/24            -\n"
    )


def test_words_stay_whole_where_nothing_fits(style_of: StyleOf) -> None:
    text = table(["NODE", "ADDRESSES", "SERVICES"], ROWS, style_of(20))
    assert "2001:db8:1::1/64" in text
    assert "SERVICES" in text


def test_colour_does_not_move_columns(style_of: StyleOf) -> None:
    expected = table(["NODE", "ADDRESSES", "SERVICES"], ROWS, style_of(60))
    style = style_of(60, colour=True)
    painted = table(["NODE", "ADDRESSES", "SERVICES"], ROWS, style, lambda column, _: "red" if column else "")
    assert "\x1b[31m198.51.100.1/24\x1b[0m" in painted
    stripped = painted.replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert [line.rstrip() for line in stripped.splitlines()] == expected.splitlines()


LABS = [
    ["homelab", "2026-11-25 10:00", "/home/someone/my topologies/of the house/homelab.yaml"],
    ["x", "10:00:00", "-"],
]


def test_a_path_gives_way_in_its_middle_before_anything_is_broken(style_of: StyleOf) -> None:
    assert table(["LAB", "UP SINCE", "FILE"], LABS, style_of(60), path=2) == (
        "LAB      UP SINCE          FILE\n"
        "homelab  2026-11-25 10:00  /home/someone/my…use/homelab.yaml\n"
        "x        10:00:00          -\n"
    )


def test_a_path_that_fits_is_whole(style_of: StyleOf) -> None:
    width = len("homelab  2026-11-25 10:00  ") + len(LABS[0][2])
    assert LABS[0][2] in table(["LAB", "UP SINCE", "FILE"], LABS, style_of(width), path=2)
    assert "…" in table(["LAB", "UP SINCE", "FILE"], LABS, style_of(width - 1), path=2)


def test_an_old_terminal_gets_a_sign_that_it_has(style_of: StyleOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Screen, "encoding", "iso-8859-1")
    assert "~" in table(["LAB", "UP SINCE", "FILE"], LABS, style_of(40), path=2)


def test_some_of_a_path_is_left_where_nothing_fits(style_of: StyleOf) -> None:
    assert table(["LAB", "UP SINCE", "FILE"], LABS, style_of(20), path=2) == (
        "LAB      UP SINCE    FILE\nhomelab  2026-11-25  /home…b.yaml\n         10:00\nx        10:00:00    -\n"
    )


@pytest.mark.parametrize("path", ["/a/" * 100 + "t.yaml", "/a b/ c", "/new\nline/\x1b[31m", "/not utf-8: \udcff"])
def test_without_a_terminal_a_row_with_a_path_is_one_line(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = table(["LAB", "FILE"], [["x", path]], Style(io.StringIO()), path=1)
    shown = path.replace("\n", "?").replace("\x1b", "?").replace("\udcff", "?")
    assert text == f"LAB  FILE\nx    {shown}\n"
    text.encode()
