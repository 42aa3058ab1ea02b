"""`lab nat`: certificates for people and for programs, and an exit code that tells."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.certify.certificate import Certificate, Row, Verdict
from lab.cli.certificate_table import certificate_table, overview
from lab.errors import ExitCode
from tests.cli.conftest import StyleOf

TOPOLOGY = """\
networks:
  internet: {prefixes: [198.51.100.0/24]}
  home: {prefixes: [192.168.1.0/24]}
nodes:
  router:
    role: router
    links: {internet: 198.51.100.1, home: 192.168.1.1}
    nat: {outside: internet, timers: {icmp: 1s}}
  nas: {links: {home: auto}}
"""
RULES_OF_ANOTHER_NAT = 'add rule inet lab postrouting oifname "internet" masquerade random'


@pytest.fixture(scope="module")
def running(module_up: Any) -> str:
    name: str = module_up(TOPOLOGY)
    return name


@pytest.mark.essential
@pytest.mark.alone  # it measures a timer
def test_a_certificate_row_by_row(lab: Any, running: str) -> None:
    text = lab("nat", "router", "--lab", running, "--patience", "1500ms", code=0).stdout
    assert text.startswith("router: NAT from home to internet, by the kernel, preset home_router\n\nPROPERTY  ")
    timer = next(line for line in text.splitlines() if line.startswith("ICMP timer")).split()
    assert (timer[2:4], timer[9]) == (["1", "s"], "holds")
    assert 0.4 <= float(timer[4]) < 1.06
    assert float(timer[7]) > 0.94
    lines = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert lines["mapping"] == ["endpoint", "independent", "endpoint", "independent", "holds", "4787", "REQ-1", "met"]
    assert lines["UDP timer"][:2] == ["120", "s"]
    assert "unmeasured" in text
    assert " 0 differs" not in text
    assert text.rstrip().rsplit("\n", 1)[1].startswith("measured in ")


@pytest.mark.alone  # as all that is certified: what is late looks lost
def test_all_routers_a_line_each(lab: Any, running: str) -> None:
    text = lab("nat", "--lab", running, "--patience", "100ms", code=0).stdout.splitlines()
    assert text[0].split() == ["ROUTER", "MAPPING", "FILTERING", "PORTS", "HAIRPIN", "DECLARED", "HOLD/DIFFER/OPEN"]
    assert text[1].startswith("router  endpoint independent  address and port dependent  preserve  none ")
    assert " holds " in text[1]


@pytest.mark.alone
def test_as_json(lab: Any, running: str) -> None:
    plain = json.loads(lab("nat", "router", "--json", "--lab", running, "--patience", "100ms", code=0).stdout)
    assert list(plain) == ["lab", "patience", "seconds", "certificates"]
    (certificate,) = plain["certificates"]
    assert (certificate["router"], certificate["as_declared"]) == ("router", True)
    assert "4787 REQ-8" in certificate["unmet"]
    mapping = next(row for row in certificate["rows"] if row["topic"] == "mapping")
    assert mapping == {
        "topic": "mapping",
        "declared": "endpoint_independent",
        "measured": "endpoint_independent",
        "verdict": "holds",
        "requirement": "4787 REQ-1",
        "is_met": True,
        "why": "",
    }


@pytest.mark.alone
def test_as_a_page(lab: Any, running: str) -> None:
    page = lab("nat", "--markdown", "--lab", running, "--patience", "100ms", code=0).stdout
    line = "| router | endpoint_independent | address_and_port_dependent | preserve | none | yes |  |\n"
    assert page.startswith("# NAT, measured\n\n| router | mapping | ")
    assert line in page
    assert "\n## router: from home to internet\n" in page


@pytest.mark.alone
def test_a_nat_that_is_not_as_declared_fails(lab: Any, up: Any) -> None:
    name = up(TOPOLOGY)
    for words in (["flush", "chain", "inet", "lab", "postrouting"], RULES_OF_ANOTHER_NAT.split()):
        lab("exec", "--lab", name, "router", "--", "nft", *words, code=0)
    text = lab("nat", "router", "--lab", name, "--patience", "100ms", code=ExitCode.FAILED).stdout
    differing = [line.split("  ")[0] for line in text.splitlines() if "  differs" in line]
    assert differing[:3] == ["mapping", "port allocation", "TCP mapping"]
    assert "  differs  " in lab("nat", "--lab", name, "--patience", "100ms", code=ExitCode.FAILED).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nas"], "'nas' has no `nat`; routers with NAT: router"),
        (["ghost"], "'ghost' is no node of this lab; routers with NAT: router"),
        (["--patience", "5"], "nat: --patience "),
        (["--patience", "-1s"], "--patience"),
        (["--patience", "11min"], "nat: --patience 11min: at most 600s"),
    ],
)
def test_wrong_input(lab: Any, running: str, words: list[str], message: str) -> None:
    assert message in lab("nat", "--lab", running, *words, code=ExitCode.WRONG_INPUT).stderr


def test_a_lab_without_nat_has_nothing_to_certify(lab: Any, up: Any) -> None:
    name = up("nodes: {a: {}}\n")
    assert lab("nat", "--lab", name, code=0).stdout == "no router of this lab has `nat`\n"


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_terminal(style_of: StyleOf, width: int) -> None:
    long = "address_and_port_dependent"
    rows = (
        Row("mapping after a port conflict", long, long, Verdict.DIFFERS, "4787 REQ-11", is_met=False),
        *(
            Row(topic, "yes", None, Verdict.NOT_MEASURED, "4787 REQ-3", is_met=None, why="why " * 20)
            for topic in ("mapping", "filtering", "port allocation", "hairpin")
        ),
    )
    certificate = Certificate("home-router", "home", "internet", "natbox", None, rows, ("echo: no",))
    style = style_of(width)
    text = certificate_table(certificate, style) + overview([certificate], style)
    table = [line for line in text.splitlines() if "NAT from" not in line]
    assert max(map(len, table)) <= width
    assert "could not be put: echo: no" in text
