"""Progress beside a terminal: a line for each thing told, none while nothing is."""

from __future__ import annotations

import re

import pytest

from lab.cli.live_line import LiveLine


def test_a_line_comes_once_there_is_something_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    line = LiveLine(silent=False)
    line._draw()
    assert capsys.readouterr().err == ""
    line.show("names", 0, 1, "")
    for _ in range(2):
        line._draw()
    assert re.fullmatch(r" +\d+\.\d s  names 0/1\n", capsys.readouterr().err)
    line.show("services", 0, 1, "a/web")
    line._draw()
    assert capsys.readouterr().err.endswith(" s  services 0/1, waiting for a/web\n")
