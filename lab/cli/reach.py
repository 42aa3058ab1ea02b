"""`lab reach`: measure who can reach what, and show it as a matrix."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from lab.cli.live_line import LiveLine
from lab.cli.parser import Parser
from lab.cli.running_lab import chosen
from lab.cli.style import Style
from lab.errors import ExitCode

if TYPE_CHECKING:
    from lab.probe.reach import Answer, Reachability

LONGEST_TIMEOUT = 60.0  # seconds
# arp(7): the most entries of all namespaces together; 1024 are too few for 33 nodes that all talk to each other.
MEND_NEIGHBOURS = "sudo sysctl net.ipv4.neigh.default.gc_thresh3=1000000 net.ipv6.neigh.default.gc_thresh3=1000000"


def run(words: list[str]) -> int:
    """Measure and show."""
    parser = Parser(
        "reach",
        "Measure who can reach what: from every node (rows) to every port of a service, every port forward and\n"
        "every node's ICMP echo (columns), by IPv4 and by IPv6, all at once. A port forward stands under its router\n"
        'as "443->nas" and is asked at the outside address. TCP connects; DNS (udp/53) is asked a real question; what\n'
        "another UDP port leaves unanswered stays unknown. A node is asked at its address on a network shared with\n"
        'the asker, else at each of its addresses. Routers limit how often they say "unreachable" (Linux: five times\n'
        "at once, then once a second for each asker), so that part of many such questions ends in silence.",
        notes="--json: lab, timeout, seconds, summary (outcome: count), answers (each: from, to, service, protocol,\n"
        "port, version, outcome, address, milliseconds, detail, attempts). Outcomes: reached, refused, unreachable,\n"
        "filtered (silence), no answer (silence, which UDP leaves open), not asked (could not ask: never a no).\n"
        'A port forward is a service of its router, named "443->nas", "8443->nas:443" if the ports differ.\n'
        "Exit code 0 if the matrix could be measured, whatever is in it; 1, at once, if the lab ends meanwhile.",
        example="lab reach --from phone --from laptop",
    )
    parser.add_lab()
    parser.add_argument("--timeout", metavar="S", type=float, default=1.0, help="seconds for each attempt; default: 1")
    parser.add_argument(
        "--from", dest="sources", metavar="NODE", action="append", default=[], help="only from this one"
    )
    parser.add_json()
    options = parser.parse_args(words)
    if not 0 < options.timeout <= LONGEST_TIMEOUT:
        parser.error(f"--timeout {options.timeout:g}: more than 0, at most {LONGEST_TIMEOUT:g} seconds")
    from lab.probe.reach import reach
    from lab.realise.lab import Lab

    lab = Lab(chosen(options.lab))
    began = time.monotonic()
    with LiveLine(silent=options.json) as line:
        measured = reach(
            lab,
            timeout=options.timeout,
            sources=options.sources,
            progress=lambda done, total: line.show("asked", done, total, ""),
        )
    seconds = time.monotonic() - began
    lab.refresh()  # the silence of a lab that has ended meanwhile tells nothing
    lab.close()
    if options.json:
        print(json.dumps(_plain(measured, seconds), indent=2))
    else:
        from lab.cli.matrix import matrix

        print(matrix(measured, seconds, Style(sys.stdout)))
    if _has_full_neighbour_table(measured):
        print(
            "lab: warning: the host's neighbour tables are full, so not all could be asked (by IPv6 this looks like "
            f"silence);\n  mend it with: {MEND_NEIGHBOURS}",
            file=sys.stderr,
        )
    return ExitCode.OK


def _has_full_neighbour_table(measured: Reachability) -> bool:
    """Whether the kernel had no room for one more neighbour of any lab; IPv4 says so (ENOBUFS), IPv6 drops."""
    full = os.strerror(errno.ENOBUFS)
    return any(attempt.detail == full for answer in measured.answers for attempt in answer.attempts)


def _plain(measured: Reachability, seconds: float) -> dict[str, Any]:
    from lab.cli.matrix import outcomes

    return {
        "lab": measured.lab,
        "timeout": measured.timeout,
        "seconds": round(seconds, 3),
        "summary": outcomes(measured),
        "answers": [_plain_answer(answer) for answer in measured.answers],
    }


def _plain_answer(answer: Answer) -> dict[str, Any]:
    target, best = answer.question.target, answer.best
    return {
        "from": answer.question.source,
        "to": target.node,
        "service": target.service or None,
        "protocol": target.protocol,
        "port": target.port,
        "version": answer.question.version,
        "outcome": str(answer.outcome),
        "address": best.address if best is not None else None,
        "milliseconds": best.milliseconds if best is not None else None,
        "detail": best.detail if best is not None else f"no IPv{answer.question.version} address",
        "attempts": [
            {
                "address": attempt.address,
                "outcome": str(attempt.outcome),
                "milliseconds": attempt.milliseconds,
                "detail": attempt.detail,
            }
            for attempt in answer.attempts
        ],
    }
