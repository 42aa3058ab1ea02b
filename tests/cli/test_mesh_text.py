"""What `lab mesh` prints where the ends of a pair differ: a row for each, and a red line."""

from __future__ import annotations

import re

import pytest

from lab.cli.mesh import text_of
from lab.cli.style import Style
from lab.mesh.paths import MeshPaths, Pair, View, Way
from tests.cli.conftest import StyleOf

RED = "\033[31m"


@pytest.fixture
def style(style_of: StyleOf) -> Style:
    return style_of(100, colour=True)


def paths(*views: View | None, silent: tuple[tuple[str, str], ...] = ()) -> MeshPaths:
    there, back = views
    return MeshPaths("lab", "net", "nebula", ("nas", "phone"), (Pair("nas", "phone", (there, back)),), silent)


def test_ends_that_agree_have_one_row_and_nothing_is_red(style: Style) -> None:
    views = (View("nas", "phone", Way.LAN, "a:1", "phone"), View("phone", "nas", Way.LAN, "b:1", "nas"))
    text = text_of(paths(*views), style)
    assert "nas - phone" in text
    assert RED not in text


def test_ends_that_differ_have_a_row_each_and_a_red_line(style: Style) -> None:
    views = (View("nas", "phone", Way.DIRECT, "198.51.100.80:4242", "cafe"), View("phone", "nas", Way.NONE))
    text = text_of(paths(*views), style)
    assert "nas - phone" not in text
    assert "198.51.100.80:4242 (cafe)" in text
    assert f"{RED}the ends differ: nas -> phone, phone -> nas\033[0m" in text


def test_an_address_that_nobody_has_is_red_and_no_way(style: Style) -> None:
    """As after a move, until the program notices."""
    stale = View("nas", "phone", Way.DIRECT, "192.168.1.12:4242")
    text = text_of(paths(stale, View("phone", "nas", Way.DIRECT, "198.51.100.1:4242", "router")), style)
    row = next(line for line in text.splitlines() if line.startswith("nas -> phone"))
    assert f"{RED}stale\033[0m" in row
    assert "direct" not in row
    assert re.search(r"192\.168\.1\.12:4242 \033\[31m\(nobody\033\[0m \033\[31mhas\033\[0m \033\[31mit\)", row)
    assert f"{RED}sent to an address that nobody has: nas -> phone\033[0m" in text
    assert "the ends differ" not in text


def test_relays_that_differ_at_both_ends_are_both_named(style: Style) -> None:
    views = (View("nas", "phone", Way.RELAYED, relays=("a",)), View("phone", "nas", Way.RELAYED, relays=("b",)))
    assert "a b" in text_of(paths(*views), style)


def test_who_could_not_be_asked_is_red(style: Style) -> None:
    text = text_of(paths(None, View("phone", "nas", Way.NONE), silent=(("nas", "no answer"),)), style)
    assert f"{RED}nas could not be asked: no answer\033[0m" in text
    assert "not asked" in text
