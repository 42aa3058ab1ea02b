"""`lab conform`: what a product does with PROXY headers, beside what the specification asks."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from lab.cli.live_line import LiveLine
from lab.cli.parser import Parser
from lab.errors import ExitCode

if TYPE_CHECKING:
    from lab.conform.asking import Outcome

_PATIENCE = 3.0  # seconds


def run(words: list[str]) -> int:
    """Ask and show."""
    parser = Parser(
        "conform",
        "Ask a proxy or server that takes PROXY headers what it takes: headers of both versions as the specification\n"
        "has them, and as it forbids them, each with a line behind it. This listens as its backend, and sees what\n"
        "comes through. Let the product take headers from this host, lead to the backend, and send it a PROXY header\n"
        "of its own (v1 or v2): else it is not seen whom it takes for the client.",
        notes="HAProxy: `bind 127.0.0.1:8443 accept-proxy` and `server lab 127.0.0.1:9000 send-proxy-v2`.\n"
        "--json: to, held, asked, addresses_seen, outcomes (each: name, section, must, did, holds).\n"
        "Sections are those of the PROXY protocol's specification. Exit code 0 if all is as it asks, else 1.",
        example="lab conform --to 127.0.0.1:8443 --backend 127.0.0.1:9000",
    )
    parser.add_argument("--to", metavar="ADDRESS:PORT", required=True, help="where the product takes PROXY headers")
    parser.add_argument(
        "--backend", metavar="[ADDRESS:]PORT", required=True, help="where it leads; this listens there (127.0.0.1)"
    )
    parser.add_argument(
        "--patience", metavar="SECONDS", type=float, default=_PATIENCE, help="until what has not come does not; 3"
    )
    parser.add_argument("--all", action="store_true", help="show what is as it must be, too")
    parser.add_json()
    options = parser.parse_args(words)
    if not 0 < options.patience <= 600:
        parser.error(f"--patience {options.patience:g}: from above 0 to 600 seconds")
    from lab.conform.asking import conform
    from lab.conform.cases import cases

    to, backend = _address(parser, "--to", options.to), _address(parser, "--backend", options.backend, "127.0.0.1")
    asked = cases()
    with LiveLine(silent=options.json) as line:
        found = conform(
            to,
            backend,
            asked,
            patience=options.patience,
            progress=lambda done: line.show("headers answered", done, len(asked), "those that are held back"),
        )
    if options.json:
        print(json.dumps(_plain(options.to, found), indent=2))
    else:
        print(_text(found, in_full=options.all), end="")
    return ExitCode.OK if all(each.holds for each in found) else ExitCode.FAILED


def _address(parser: Parser, option: str, text: str, default: str = "") -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = (host or default).removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        parser.error(f"{option} {text!r}: ADDRESS:PORT, as in 127.0.0.1:8443 or [::1]:8443")
    return host, int(port)


def _plain(to: str, found: list[Outcome]) -> dict[str, object]:
    outcomes = [
        {
            "name": each.case.name,
            "section": each.case.section,
            "must": each.case.must.value,
            "did": each.did,
            "holds": each.holds,
        }
        for each in found
    ]
    held, seen = sum(each.holds for each in found), any(each.is_told for each in found)
    return {"to": to, "held": held, "asked": len(found), "addresses_seen": seen, "outcomes": outcomes}


def _text(found: list[Outcome], *, in_full: bool) -> str:
    from lab.cli.style import Style
    from lab.cli.table import table

    style = Style(sys.stdout)
    shown = [each for each in found if in_full or not each.holds]
    rows = [
        [each.case.name, each.case.section, each.case.must.value, each.did, "yes" if each.holds else "NO"]
        for each in shown
    ]
    colours = {"yes": "green", "NO": "red"}
    titles = ("HEADER", "SECTION", "MUST", "DID", "HOLDS")
    text = table(titles, rows, style, lambda column, word: colours.get(word, "") if column == len(titles) - 1 else "")
    musts = [each for each in found if each.case.must.may_take != each.case.must.may_refuse]
    free = [each for each in found if each not in musts]
    taken, refused = ([each for each in musts if each.case.must.may_take is may] for may in (True, False))
    score = (
        f"takes {sum(each.holds for each in taken)} of {len(taken)} that it must take, "
        f"refuses {sum(each.holds for each in refused)} of {len(refused)} that it must refuse; "
        f"is right in {sum(each.holds for each in free)} of {len(free)} that it may take or refuse\n"
    )
    if not any(each.is_told for each in found):
        score += "whom it takes for the client was not seen: its backend got no PROXY header\n"
    return (text + "\n" if shown else "") + score
