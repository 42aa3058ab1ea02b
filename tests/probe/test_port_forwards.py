"""Port forwards as `reach` finds them: open to the outside of one NAT, closed to whoever is beyond a second one.

outside --- wan 198.51.100.0/24 --- carrier (NAT) --- access 100.64.0.0/24 --- home (NAT, forwards) --- lan --- nas
   |                                                 |
company (NAT, forwards) --- office --- intranet   neighbour
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.probe.outcome import Outcome
from lab.probe.reach import Reachability, reach
from lab.realise.lab import Lab

WEB = {"run": "python3 -m http.server 80", "ready": {"tcp": 80}}
TOPOLOGY: dict[str, Any] = {
    "networks": {
        "wan": {"prefixes": ["198.51.100.0/24"], "internet": True},
        "access": {"prefixes": ["100.64.0.0/24"]},
        "lan": {"prefixes": ["192.168.1.0/24"]},
        "office": {"prefixes": ["192.168.2.0/24"]},
    },
    "nodes": {
        "carrier": {
            "role": "router",
            "links": {"wan": "198.51.100.1", "access": "100.64.0.1"},
            "nat": {"outside": "wan"},
        },
        "home": {
            "role": "router",
            "links": {"access": "100.64.0.2", "lan": "192.168.1.1"},
            "nat": {"outside": "access", "forwards": [{"tcp": 80, "to": "nas"}, {"tcp": 81, "to": "nas:9"}]},
        },
        "nas": {"links": {"lan": "192.168.1.10"}, "services": {"web": WEB}},
        "neighbour": {"links": {"access": "100.64.0.9"}},
        "company": {
            "role": "router",
            "links": {"wan": "198.51.100.7", "office": "192.168.2.1"},
            "nat": {"outside": "wan", "forwards": [{"tcp": 8080, "to": "intranet:80"}]},
        },
        "intranet": {"links": {"office": "192.168.2.10"}, "services": {"web": WEB}},
        "outside": {"links": {"wan": "198.51.100.10"}},
    },
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Reachability]:
    folder = tmp_path_factory.mktemp("forwards")
    file: Path = folder / "topology.yaml"
    file.write_text(json.dumps(TOPOLOGY))
    with Lab.up(file, name=f"forwards-{worker_id}-{folder.stat().st_ino}") as lab:
        yield reach(lab, timeout=5.0, sources=["outside", "neighbour", "nas"])


@pytest.mark.essential
@pytest.mark.parametrize(
    ("source", "router", "forward", "outcome"),
    [
        ("outside", "company", "8080->intranet:80", Outcome.REACHED),
        ("nas", "company", "8080->intranet:80", Outcome.REACHED),  # out through two NATs, in through a third
        ("neighbour", "home", "80->nas", Outcome.REACHED),
        ("neighbour", "home", "81->nas:9", Outcome.REFUSED),  # forwarded to where nobody listens
        ("outside", "home", "80->nas", Outcome.UNREACHABLE),  # no route to the carrier's addresses
        ("nas", "home", "80->nas", Outcome.REFUSED),  # from inside it is the router itself: no hairpin
    ],
)
def test_a_forward_is_open_to_the_outside_of_its_own_nat(
    measured: Reachability, source: str, router: str, forward: str, outcome: Outcome
) -> None:
    (answer,) = (
        answer
        for answer in measured.answers
        if (answer.question.source, answer.question.target.node, answer.question.target.service)
        == (source, router, forward)
    )
    assert answer.outcome is outcome, answer
    assert [attempt.address for attempt in answer.attempts] == [
        {"company": "198.51.100.7", "home": "100.64.0.2"}[router]
    ]


def test_without_the_forward_the_host_is_out_of_reach(measured: Reachability) -> None:
    """The control: what answered was the forward."""
    direct = [
        answer.outcome
        for answer in measured.answers
        if answer.question.target.service == "web" and answer.question.source == "outside" and answer.attempts
    ]
    assert direct == [Outcome.UNREACHABLE, Outcome.UNREACHABLE]
