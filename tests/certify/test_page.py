"""Certificates as Markdown."""

from __future__ import annotations

from lab.certify.certificate import Certificate, Row, Verdict
from lab.certify.page import to_markdown


def row(topic: str, verdict: Verdict, *, is_met: bool | None = None, why: str = "") -> Row:
    measured = None if verdict is Verdict.NOT_MEASURED else "b|c"
    return Row(topic, "a", measured, verdict, "4787 REQ-1" if is_met is not None else "", is_met, why)


def test_what_differs_stands_first_and_nothing_breaks_the_table() -> None:
    rows = (
        row("mapping", Verdict.HOLDS, is_met=True),
        row("unknown", Verdict.NOT_MEASURED, why="too long"),
        row("wrong", Verdict.DIFFERS, is_met=False),
    )
    good = Certificate("good", "home", "internet", "kernel", None, rows[:2])
    bad = Certificate("bad", "home", "internet", "kernel", None, rows, ("echo: no route",))
    assert to_markdown([good, bad]) == (
        "# NAT, measured\n\n"
        "| router | mapping | filtering | port allocation | hairpin | as declared | differs in |\n"
        "|---|---|---|---|---|---|---|\n"
        "| good | b\\|c |  |  |  | yes |  |\n"
        "| bad | b\\|c |  |  |  | no | wrong |\n\n"
        "## good: from home to internet\n\n"
        "| property | declared | measured | verdict | RFC |\n|---|---|---|---|---|\n"
        "| mapping | a | b\\|c | holds | 4787 REQ-1 met |\n"
        "| unknown | a | (too long) | not measured |  |\n\n"
        "## bad: from home to internet\n\n"
        "RFC requirements that are not met: 4787 REQ-1.\n\n"
        "Could not be put: echo: no route.\n\n"
        "| property | declared | measured | verdict | RFC |\n|---|---|---|---|---|\n"
        "| wrong | a | b\\|c | differs | 4787 REQ-1 **not met** |\n"
        "| mapping | a | b\\|c | holds | 4787 REQ-1 met |\n"
        "| unknown | a | (too long) | not measured |  |\n"
    )
