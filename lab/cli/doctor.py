"""`lab doctor`: what this host can do for a lab, found by trying, and the lines that mend the rest."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from lab.cli.failure import plain_finding
from lab.cli.parser import Parser
from lab.cli.style import Style
from lab.cli.table import table
from lab.errors import ExitCode

if TYPE_CHECKING:
    from lab.host import Finding

_COLOUR = {"ok": "green", "limited": "yellow", "missing": "red", "not needed": "dim", "not tried": "dim"}


def run(words: list[str]) -> int:
    """Examine the host; 3 if no lab can come up here."""
    parser = Parser(
        "doctor",
        "Try what this host can do for a lab, and say how to mend the rest. Changes nothing, needs no privilege.",
        notes="--json: able (can a lab come up at all?), findings (each: name, features, status: ok, limited,\n"
        "missing, not needed or not tried; found, mend, required). Exit code 3 if not able.",
        example="lab doctor",
    )
    parser.add_json(may_fail=False)  # what it finds is its answer
    options = parser.parse_args(words)
    from lab.host import examine, required

    findings = examine()
    lacking = required(findings)
    if options.json:
        print(json.dumps({"able": not lacking, "findings": [plain_finding(each) for each in findings]}, indent=2))
    else:
        _tell(findings, lacking, Style(sys.stdout))
    return ExitCode.HOST_NOT_ABLE if lacking else ExitCode.OK


def _tell(findings: tuple[Finding, ...], lacking: list[Finding], style: Style) -> None:
    status_of = {each.name: str(each.status) for each in findings}
    rows = [[each.name, str(each.status), each.found] for each in findings]
    colour = {word: paint for status, paint in _COLOUR.items() for word in status.split()}
    print(
        table(
            ["WHAT", "STATUS", "FOUND"], rows, style, lambda column, word: colour.get(word, "") if column == 1 else ""
        )
    )
    for each in findings:
        if each.mend and status_of[each.name] in ("missing", "limited"):
            features = ", ".join(str(feature) for feature in each.features)
            print(f"{style.paint(each.name, 'bold')} is {each.status} (for {features}); mend it with:\n    {each.mend}")
    if lacking:
        names = ", ".join(each.name for each in lacking)
        print(style.paint(f"this host cannot run a lab: {names}", "bold", "red"))
    else:
        print(style.paint("this host can run labs", "bold", "green"))
