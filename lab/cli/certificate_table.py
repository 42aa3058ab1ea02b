"""NAT certificates as text: all rows of one router, or a line for each router."""

from __future__ import annotations

from textwrap import wrap

from lab.certify.certificate import Certificate, Row, Verdict
from lab.cli.style import Style
from lab.cli.table import table

_COLOURS = {"holds": "green", "differs": "red", "unmeasured": "yellow", "seen": "dim", "met": "green", "unmet": "red"}
_VERDICTS = {Verdict.NOT_MEASURED: "unmeasured"}


def certificate_table(certificate: Certificate, style: Style) -> str:
    """The rows under a line that says what was measured, and above one that counts the verdicts."""
    preset = f", preset {certificate.preset}" if certificate.preset else ""
    engine = f", by {_ENGINES.get(certificate.engine or '', certificate.engine or 'whatever runs there')}{preset}"
    head = (
        f"{style.paint(certificate.router, 'bold')}: NAT from {certificate.inside} to {certificate.outside}{engine}\n\n"
    )
    rows = [
        [row.topic, _declared(row), _measured(row), _VERDICTS.get(row.verdict, str(row.verdict)), _requirement(row)]
        for row in certificate.rows
    ]
    titles = ["PROPERTY", "DECLARED", "MEASURED", "VERDICT", "RFC"]
    shown = table(titles, rows, style, lambda column, word: _COLOURS.get(word, "") if column > 2 else "")
    failures = "".join(f"could not be put: {failure}\n" for failure in certificate.failures)
    return f"{head}{shown}\n{failures}{_summary(certificate, style.width)}\n"


def overview(certificates: list[Certificate], style: Style) -> str:
    """A line for each router."""
    rows = [
        [
            each.router,
            *(
                _words(each.row(topic).measured or "-")
                for topic in ("mapping", "filtering", "port allocation", "hairpin")
            ),
            _declared_or_not(each),
            _tally(each),
        ]
        for each in certificates
    ]
    titles = ["ROUTER", "MAPPING", "FILTERING", "PORTS", "HAIRPIN", "DECLARED", "HOLD/DIFFER/OPEN"]
    text = table(titles, rows, style, lambda column, word: _COLOURS.get(word, "") if column == 5 else "")
    failures = "".join(f"{each.router}: {failure}\n" for each in certificates for failure in each.failures)
    return f"{text}\n{failures}"


def _declared_or_not(certificate: Certificate) -> str:
    if certificate.count(Verdict.DIFFERS):
        return "differs"
    return "holds" if certificate.count(Verdict.HOLDS) else "unmeasured"


def _tally(certificate: Certificate) -> str:
    verdicts = (Verdict.HOLDS, Verdict.DIFFERS, Verdict.NOT_MEASURED)
    return "/".join(str(certificate.count(verdict)) for verdict in verdicts)


_ENGINES = {"kernel": "the kernel", "natbox": "natbox"}


def _declared(row: Row) -> str:
    return _words(row.declared) if row.declared is not None else "-"


def _measured(row: Row) -> str:
    if row.measured is None:
        return f"- ({row.why})"
    return _words(row.measured) + (f" ({row.why})" if row.why else "")


def _requirement(row: Row) -> str:
    return row.requirement + {True: " met", False: " unmet", None: ""}[row.is_met]


def _words(text: str) -> str:
    """As people say it, so that a narrow table can break it."""
    return text.replace("_", " ")


def _counts(certificate: Certificate) -> str:
    counts = {verdict: certificate.count(verdict) for verdict in Verdict}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def _summary(certificate: Certificate, width: int) -> str:
    unmet = ", ".join(requirement.replace(" ", "\N{NO-BREAK SPACE}") for requirement in certificate.unmet)
    text = _counts(certificate) + (f"; RFC requirements unmet: {unmet}" if unmet else "")
    return "\n".join(wrap(text, width, break_on_hyphens=False)).replace("\N{NO-BREAK SPACE}", " ")
