"""Certificates as Markdown, for evidence and reports. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lab.certify.certificate import Certificate, Row, Verdict

_HEADS = ("mapping", "filtering", "port allocation", "hairpin")


def to_markdown(certificates: Iterable[Certificate]) -> str:
    """A line for each router, then all rows of each; what differs stands first."""
    found = list(certificates)
    heads = "".join(_line(each) for each in found)
    titles = ("router", *_HEADS, "as declared", "differs in")
    parts = ["# NAT, measured\n", f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n{heads}"]
    return "\n".join([*parts, *(_section(each) for each in found)])


def _line(certificate: Certificate) -> str:
    differing = [row.topic for row in certificate.rows if row.verdict is Verdict.DIFFERS]
    measured = {row.topic: row.measured or "" for row in certificate.rows}
    words = (measured.get(topic, "") for topic in _HEADS)
    answer = "no" if differing else "yes" if certificate.is_measured else "not measured"
    cells = (certificate.router, *words, answer, ", ".join(differing))
    return f"| {' | '.join(map(_cell, cells))} |\n"


def _section(certificate: Certificate) -> str:
    unmet = f"RFC requirements that are not met: {', '.join(certificate.unmet)}.\n\n" if certificate.unmet else ""
    failures = "".join(f"Could not be put: {failure}.\n\n" for failure in certificate.failures)
    rows = sorted(certificate.rows, key=lambda row: row.verdict is not Verdict.DIFFERS)
    table = "| property | declared | measured | verdict | RFC |\n|---|---|---|---|---|\n" + "".join(map(_row, rows))
    return f"## {certificate.router}: from {certificate.inside} to {certificate.outside}\n\n{unmet}{failures}{table}"


def _row(row: Row) -> str:
    measured = (row.measured or "") + (f" ({row.why})" if row.why else "")
    met = {True: " met", False: " **not met**", None: ""}[row.is_met]
    cells = (row.topic, row.declared or "", measured.strip(), str(row.verdict), row.requirement + met)
    return f"| {' | '.join(map(_cell, cells))} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
