"""The matrix of many nodes and services: alignment, blocks that fit, colours, marks."""

from __future__ import annotations

import io
import re

import pytest

from lab.cli.matrix import matrix, outcomes
from lab.cli.style import Style
from lab.probe.outcome import Attempt, Outcome
from lab.probe.question import Question, Target
from lab.probe.reach import Answer, Reachability
from tests.cli.conftest import StyleOf

NODES = tuple(f"node-{number}" for number in range(20))


@pytest.fixture
def style(style_of: StyleOf) -> Style:
    return style_of(80, colour=True)


def measured(outcome: Outcome = Outcome.REACHED, six: Outcome | None = None) -> Reachability:
    targets = tuple(Target(node, f"service-{n}", "tcp", 80 + n) for node in NODES for n in range(2))
    targets += tuple(Target(node, "", "icmp", None) for node in NODES)
    answers = []
    for source in NODES:
        for target in targets:
            if target.port is None and target.node == source:
                continue
            for version, found in ((4, outcome), (6, six)):
                attempts = () if found is None else (Attempt("192.0.2.1", found, None, ""),)
                answers.append(Answer(Question(source, target, version, ()), attempts))
    return Reachability("big", 1.0, NODES, targets, tuple(answers))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_every_line_fits_and_every_target_has_a_column(style_of: StyleOf, width: int) -> None:
    text = plain(matrix(measured(), 1.0, style_of(width, colour=True)))
    body = text.partition("\n4 6 reached")[0]
    assert max(map(len, body.splitlines())) <= width
    assert len(re.findall(r"service-[01]", body)) == 40
    assert len(re.findall(r"tcp/8[01]", body)) == 40
    rows = [line for line in body.splitlines() if re.match(r"node-\d+ ", line)]
    cells = [cell for row in rows for cell in row.split()[1:]]
    assert cells.count("4") == 20 * 40 + 20 * 19
    assert cells.count("-") == 20


def test_cells_stand_under_their_heads(style: Style) -> None:
    lines = plain(matrix(measured(), 1.0, style)).splitlines()
    places = [match.start() for match in re.finditer("tcp/", lines[2])]
    assert places
    for row in lines[3:23]:
        assert [match.start() for match in re.finditer(r"\b4\b", row[8:])] == [place - 8 for place in places]


@pytest.mark.parametrize(
    ("four", "six", "cell"),
    [
        (Outcome.REACHED, Outcome.REACHED, "\x1b[32m4 6\x1b[0m"),
        (Outcome.REACHED, None, "\x1b[32m4\x1b[0m"),
        (Outcome.REACHED, Outcome.FILTERED, "\x1b[33m4\x1b[0m"),
        (Outcome.REFUSED, Outcome.REACHED, "\x1b[33m  6\x1b[0m"),
        (Outcome.REFUSED, Outcome.FILTERED, "\x1b[31mx\x1b[0m"),
        (Outcome.UNREACHABLE, Outcome.UNREACHABLE, "\x1b[31mu\x1b[0m"),
        (Outcome.UNREACHABLE, Outcome.FILTERED, "\x1b[2m.\x1b[0m"),
        (Outcome.NO_ANSWER, Outcome.UNREACHABLE, "\x1b[33m?\x1b[0m"),
        (Outcome.NOT_ASKED, None, "\x1b[2m-\x1b[0m"),
    ],
)
def test_a_cell_says_what_was_found(style: Style, four: Outcome, six: Outcome | None, cell: str) -> None:
    row = matrix(measured(four, six), 1.0, style).splitlines()[3]
    assert row.startswith("\x1b[36mnode-0\x1b[0m")
    assert cell in row


def test_without_a_terminal_or_with_no_color_there_is_no_colour(
    style_of: StyleOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b" not in matrix(measured(), 1.0, style_of(80))
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" not in matrix(measured(), 1.0, Style(io.StringIO()))


def test_the_legend_explains_only_marks_that_occur(style: Style) -> None:
    text = plain(matrix(measured(Outcome.NO_ANSWER), 1.0, style))
    assert "? no answer" in text
    assert "x refused" not in text


@pytest.mark.parametrize(
    ("four", "six", "is_warned"),
    [
        (Outcome.UNREACHABLE, Outcome.FILTERED, True),
        (Outcome.UNREACHABLE, Outcome.UNREACHABLE, False),
        (Outcome.REACHED, Outcome.FILTERED, False),
    ],
)
def test_silence_beside_unreachable_is_not_taken_at_its_word(
    style: Style, four: Outcome, six: Outcome, *, is_warned: bool
) -> None:
    text = plain(matrix(measured(four, six), 1.0, style))
    assert ("a . may be a u that was not sent" in text) is is_warned
    assert "best outcome over all addresses and both IP versions" in text


def test_a_port_forward_is_a_column_of_its_router(style: Style) -> None:
    forward, echo = Target("router", "443->nas", "tcp", 443, ("192.0.2.1",)), Target("router", "", "icmp", None)
    answers = tuple(
        Answer(Question("a", target, 4, ("192.0.2.1",)), (Attempt("192.0.2.1", Outcome.REACHED, 1.0, ""),))
        for target in (forward, echo)
    )
    lines = plain(matrix(Reachability("x", 1.0, ("a",), (forward, echo), answers), 1.0, style)).splitlines()
    assert [line.rstrip() for line in lines[:4]] == [
        "services  router",
        "          443->nas",
        "          tcp/443",
        "a         4",
    ]


def test_the_summary_counts_every_question(style: Style) -> None:
    found = measured(Outcome.REACHED, Outcome.FILTERED)
    total = 20 * 40 + 20 * 19
    assert outcomes(found) == {
        str(each): total if each in (Outcome.REACHED, Outcome.FILTERED) else 0 for each in Outcome
    }
    assert matrix(found, 1.25, style).endswith(
        f"big: {2 * total} questions in 1.25 s: {total} reached, {total} filtered"
    )


def test_a_lab_without_nodes_has_an_empty_matrix(style: Style) -> None:
    text = plain(matrix(Reachability("void", 1.0, (), (), ()), 0.0, style))
    assert text.endswith("void: 0 questions in 0.00 s: none")
