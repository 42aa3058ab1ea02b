"""Every NAT of the grid does what is declared of it: measured by our own certifier, and by coturn's client beside it.

    pc-NAME, (inside hosts) -- lan-NAME -- NAME (NAT) -- internet -- stun (turnserver), (observer)

The two have nothing in common but the packets: the certifier sees both sides of the router, `turnutils_natdiscovery`
asks a STUN server for what it saw (RFC 5780).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product

import pytest

from lab import Certificate, Lab, Verdict, certify_nat

pytestmark = [pytest.mark.topology("nat_grid", scope="module"), pytest.mark.alone]

DEGREES = {
    "ei": "endpoint_independent",
    "ad": "address_dependent",
    "ap": "address_and_port_dependent",
}
PAIRS = [f"{mapping}-{filtering}" for mapping, filtering in product(DEGREES, repeat=2)]
# What each of the others is there for: the rows that must hold, not only not differ.
VARIANTS = {
    "hairpin-in": ["hairpin", "TCP hairpin"],
    "hairpin-out": ["hairpin", "TCP hairpin"],
    "forwards": ["hairpin", "TCP hairpin", "forward tcp 443 -> nas:8443", "forward udp 51820 -> nas:51820"],
    "cgnat": ["port block", "sessions of one host", "refresh", "hairpin", "port allocation"],
    "parity": ["port parity", "port allocation"],
    "sequential": ["port allocation"],
    "random": ["port allocation"],
    "range": ["outside ports", "port allocation"],
    "paired": ["pooling", "outside address"],
    "arbitrary": ["pooling", "outside address"],
    "exclusive": ["port overloading", "refresh"],
    "black-hole": ["ICMP errors inwards", "ICMP errors outwards"],
    "rejecting": ["SYN that nobody waits for"],
    "prefix": ["IPv6 address outside"],
    "symmetric": ["mapping", "port allocation", "sessions of one host"],
    "rfc": ["port parity", "hairpin"],
}
OF_ALL = ["mapping", "filtering", "TCP mapping", "TCP filtering", "outside ports", "ICMP errors inwards"]
SHORT_TIMERS = ["UDP timer", "UDP timer, to port 53", "TCP timer, open", "TCP timer, opening", "ICMP timer", "refresh"]
ASK = ("turnutils_natdiscovery", "-m", "-f", "198.51.100.251")
SERVE = (
    *("turnserver", "-n", "--stun-only", "-L", "198.51.100.251", "-L", "198.51.100.252"),
    *(
        "--no-tls",
        "--no-dtls",
        "--no-tcp",
        "--no-tcp-relay",
        "--no-cli",
        "--log-file",
        "stdout",
        "--pidfile",
        "/run/turn",
    ),
)

Words = dict[str, str | None]
Judged = tuple[dict[str, Certificate], dict[str, Words]]

AGAIN = 3  # times at most
CONFIRMED = 2  # times that a router which differed once must not, before that is taken for a lost packet

MEASURED: dict[str, Judged] = {}  # by lab: all tests of this file share one


@pytest.fixture
def judged(lab: Lab) -> Judged:
    if lab.name not in MEASURED:
        MEASURED[lab.name] = measure(lab)
    return MEASURED[lab.name]


def measure(lab: Lab) -> Judged:
    """All certificates, and what coturn's client says behind each of the pairs: one after the other, as both hurry."""
    certificates = certified(lab)
    doubtful = [name for name, found in certificates.items() if differing(found)]
    for _ in range(CONFIRMED):
        if doubtful:
            again = certified(lab, doubtful)
            certificates |= again
            doubtful = [name for name in doubtful if not differing(again[name])]  # the others differ twice: so they do
    return certificates, ask_coturn(lab)


def certified(lab: Lab, names: Sequence[str] = ()) -> dict[str, Certificate]:
    """What is not measured, as on a machine that is late, is measured again; what differs is not."""
    found = {each.router: each for each in certify_nat(lab, names)}
    for _ in range(AGAIN):
        late = [name for name, each in found.items() if is_open(name, each) and not differing(each)]
        if late:
            found |= {each.router: each for each in certify_nat(lab, late)}
    return found


def is_open(name: str, certificate: Certificate) -> bool:
    """Whether a row that is to hold was not measured."""
    rows = (certificate.row(topic) for topic in topics(name))
    return any(row.verdict is Verdict.NOT_MEASURED for row in rows)


def topics(name: str) -> list[str]:
    return [*OF_ALL, *VARIANTS.get(name, SHORT_TIMERS)]


def ask_coturn(lab: Lab) -> dict[str, Words]:
    """Its words behind each of the pairs. It waits briefly, so where they are not the expected it is asked again."""
    said: dict[str, Words] = {}
    with ExitStack() as stack:
        stack.enter_context(lab["stun"].start(SERVE))
        lab["stun"].wait_bound(3479, "udp", "198.51.100.252")
        for _ in range(AGAIN):
            asked = [name for name in PAIRS if said.get(name) != expected(name)]
            clients = {
                name: stack.enter_context(lab[f"pc-{name}"].start(ASK, stdout=subprocess.PIPE)) for name in asked
            }
            said |= {name: words(client.communicate(None, 60)[0]) for name, client in clients.items()}
    return said


def expected(name: str) -> Words:
    mapping, filtering = (DEGREES[word] for word in name.split("-"))
    return {"Mapping": mapping, "Filtering": filtering}


def words(text: str) -> Words:
    return {about: word(text, about) for about in ("Mapping", "Filtering")}


def word(text: str, about: str) -> str | None:
    """ "NAT with Address Dependent Mapping!" in our words."""
    found = re.search(rf"NAT with ([A-Za-z ]+) {about}!", text)
    return found[1].lower().replace(" ", "_") if found else None


def test_the_grid_is_the_whole_of_it(judged: Judged) -> None:
    certificates, said = judged
    assert sorted(certificates) == sorted([*PAIRS, *VARIANTS])
    assert sorted(said) == sorted(PAIRS)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_certified_and_coturn_agrees(judged: Judged, name: str) -> None:
    certificate, said = judged[0][name], judged[1][name]
    measured = {about: certificate.row(about.lower()).measured for about in said}
    assert differing(certificate) == []
    assert (measured, said) == (expected(name), expected(name))
    assert not_held(certificate, topics(name)) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_certified(judged: Judged, name: str) -> None:
    certificate = judged[0][name]
    assert differing(certificate) == []
    assert not_held(certificate, topics(name)) == []


def test_what_asks_for_everything_meets_everything(
    judged: Judged,
) -> None:
    """The preset `rfc`, as far as its timers, which are too long to be waited for, do not matter."""
    assert judged[0]["rfc"].unmet == ()
    assert "4787 REQ-1" in judged[0]["symmetric"].unmet


def differing(certificate: Certificate) -> list[str]:
    found = (row for row in certificate.rows if row.verdict is Verdict.DIFFERS)
    return [f"{row.topic}: {row.declared}, but {row.measured}" for row in found]


def not_held(certificate: Certificate, wanted: list[str]) -> list[str]:
    found = (certificate.row(topic) for topic in wanted)
    return [f"{row.topic}: {row.verdict}: {row.why}" for row in found if row.verdict is not Verdict.HOLDS]
