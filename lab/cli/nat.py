"""`lab nat`: measure what routers with NAT do, beside what was declared of them."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lab.cli.live_line import LiveLine
from lab.cli.parser import Parser
from lab.cli.running_lab import chosen
from lab.errors import ExitCode

if TYPE_CHECKING:
    from lab.certify.certificate import Certificate
    from lab.realise.lab import Lab

LONGEST_PATIENCE = 600.0  # seconds


def run(words: list[str]) -> int:
    """Measure and show."""
    parser = Parser(
        "nat",
        "Certify the NAT of routers: probes on both sides of each, in nodes that come for it and go with it, measure\n"
        "how it maps, filters, chooses ports, forgets, hairpins, treats TCP, ICMP and fragments; each beside what the\n"
        "topology declares and the requirement of RFC 4787 (UDP), 5382 (TCP), 5508 (ICMP) or 6888 (carriers) that\n"
        "speaks of it. Without ROUTER: all routers with NAT, a line for each.",
        notes="A timer is measured if 1.4 times what is declared is no longer than the patience; of others it is only\n"
        "known that they are longer. Nothing holds that was not measured.\n"
        "--json: lab, patience, seconds, certificates (each: router, inside, outside, engine, preset, as_declared,\n"
        "unmet, failures, rows (each: topic, declared, measured, verdict, requirement, is_met, why)). Verdicts:\n"
        "holds, differs, not measured, seen (nothing declared).\n"
        "Exit code 0 if all that was measured is as declared, 1 if anything differs or nothing passes that could tell.",
        example="lab nat home-router --patience 10s",
    )
    parser.add_lab()
    parser.add_argument(
        "--patience", metavar="TIME", default="3s", help="longest wait for an idle mapping; default: 3s"
    )
    parser.add_argument("routers", metavar="ROUTER", nargs="*")
    form = parser.add_mutually_exclusive_group()
    parser.add_json(group=form)
    form.add_argument("--markdown", action="store_true", help="all rows of all as a page, for reports")
    options = parser.parse_args(words)
    patience = _patience(parser, options.patience)
    from lab.certify.certify import certify_nat
    from lab.realise.lab import Lab

    lab = Lab(chosen(options.lab))
    began = time.monotonic()
    try:
        with _answers_of_a_running(lab), LiveLine(silent=options.json or options.markdown) as line:
            total = len(options.routers) or sum(1 for node in lab.facts["nodes"] if node["nat"])
            line.show("routers certified", 0, total, "idle mappings to end")
            found = certify_nat(lab, options.routers, patience=patience)
    finally:
        lab.close()
    seconds = time.monotonic() - began
    if options.json:
        plain = {"lab": lab.name, "patience": patience, "seconds": round(seconds, 3)}
        print(json.dumps(plain | {"certificates": [each.plain() for each in found]}, indent=2))
    elif options.markdown:
        from lab.certify.page import to_markdown

        print(to_markdown(found), end="")
    else:
        print(_text(found, seconds, in_full=bool(options.routers)))
    return ExitCode.OK if all(each.is_as_declared for each in found) else ExitCode.FAILED


@contextlib.contextmanager
def _answers_of_a_running(lab: Lab) -> Iterator[None]:
    """If the lab has ended meanwhile, that is the error: what was measured of it, or failed, tells nothing."""
    try:
        yield
    except OSError:
        lab.refresh()
        raise
    lab.refresh()


def _patience(parser: Parser, text: str) -> float:
    from lab.topology.faults import Wrong
    from lab.topology.units import parse_duration

    try:
        seconds = parse_duration(text)
    except Wrong as wrong:
        parser.error(f"--patience {wrong}")
    if seconds > LONGEST_PATIENCE:
        parser.error(f"--patience {text}: at most {LONGEST_PATIENCE:g}s")
    return seconds


def _text(found: list[Certificate], seconds: float, *, in_full: bool) -> str:
    from lab.cli.certificate_table import certificate_table, overview
    from lab.cli.style import Style

    style = Style(sys.stdout)
    if in_full:
        return "\n".join(certificate_table(each, style) for each in found) + f"measured in {seconds:.1f} s"
    if not found:
        return "no router of this lab has `nat`"
    return overview(found, style) + f"measured in {seconds:.1f} s; `lab nat ROUTER` shows all rows of one"
