"""A certificate of a lab in which something has failed says "not measured", never that anything holds or differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from threading import Timer
from typing import Any

import pytest

from lab.certify.certificate import Certificate, Verdict
from lab.certify.certify import certify_nat
from lab.realise.lab import Lab

pytestmark = pytest.mark.alone

KERNEL: dict[str, Any] = {"sessions": 300, "timers": {"udp": "1s"}}
NATBOX: dict[str, Any] = {"preset": "full_cone", "timers": {"udp": "1s"}}
PATIENCE = 1.4  # seconds: enough for the UDP timers


@contextmanager
def cut_after(lab: Lab, link: str, seconds: float) -> Iterator[None]:
    def cut() -> None:
        with closing(Lab(lab.name)) as own:
            own.link(link).down()

    timer = Timer(seconds, cut)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        lab.link(link).up()


Happens = Callable[[Lab], AbstractContextManager[object]]
# Router, its NAT, and what happens to it.
FAULTS: dict[str, tuple[dict[str, Any], Happens]] = {
    "no-outside": (KERNEL, lambda lab: lab.link("no-outside:internet").cut()),
    "no-inside": (KERNEL, lambda lab: lab.link("no-inside:lan-no-inside").cut()),
    "paused": (KERNEL, lambda lab: lab.fault.pause("paused")),
    "off": ({"sessions": 300}, lambda lab: lab.fault.kill("off")),
    "hanging": (NATBOX, lambda lab: lab.fault.pause("hanging/nat")),
    "dead": (NATBOX, lambda lab: lab.fault.kill("dead/nat")),
}


def topology() -> dict[str, Any]:
    """inside -- lan-NAME -- NAME (router) -- internet       for each fault"""
    routers = {
        name: {
            "role": "router",
            "links": {"internet": "auto", f"lan-{name}": "auto"},
            "nat": nat | {"outside": "internet", "forwards": [{"tcp": 443, "to": f"inside-{name}"}]},
        }
        for name, (nat, _) in FAULTS.items()
    }
    hosts = {f"inside-{name}": {"links": {f"lan-{name}": "auto"}} for name in FAULTS}
    networks = {f"lan-{name}": {"prefixes": [f"192.168.{number}.0/24"]} for number, name in enumerate(FAULTS, 1)}
    routers["few"] = {
        "role": "router",
        "links": {"internet": "auto", "lan-few": "auto"},
        "nat": {"outside": "internet", "preset": "full_cone", "sessions": 5},
    }
    networks["lan-few"] = {"prefixes": ["192.168.99.0/24"]}
    routers["narrow"] = {
        "role": "router",
        "links": {"internet": "auto", "lan-narrow": "auto"},
        "nat": {"outside": "internet", "preset": "full_cone", "ports": {"range": "40000-40031"}},
    }
    networks["lan-narrow"] = {"prefixes": ["192.168.100.0/24"]}
    return {"networks": {"internet": {"prefixes": ["198.51.100.0/24"]}} | networks, "nodes": routers | hosts}


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(topology())


def test_of_a_router_that_nothing_passes_nothing_holds_or_differs(lab: Lab) -> None:
    with ExitStack() as stack:
        for _, happens in FAULTS.values():
            stack.enter_context(happens(lab))
        found = certify_nat(lab, list(FAULTS), patience=PATIENCE)
    assert [each.router for each in found] == list(FAULTS)
    for each in found:
        assert_nothing_is_said(each)


def test_what_is_cut_while_it_is_measured_is_not_judged(lab: Lab) -> None:
    with cut_after(lab, "no-outside:internet", 1.2):
        (found,) = certify_nat(lab, ["no-outside"], patience=2 * PATIENCE)
    assert_nothing_is_said(found)


def test_what_is_healed_is_as_declared(lab: Lab) -> None:
    for each in certify_nat(lab, list(FAULTS), patience=PATIENCE):
        assert differing(each) == []
        assert each.row(f"forward tcp 443 -> inside-{each.router}:443").verdict is Verdict.HOLDS
        assert (each.row("UDP timer").verdict is Verdict.HOLDS) is (each.router != "off")


def test_a_cap_that_the_probes_would_meet_is_all_that_is_measured(lab: Lab) -> None:
    found, narrow = certify_nat(lab, ["few", "narrow"], patience=0.5)
    assert_nothing_is_said(narrow)  # so few ports would fail most probes
    measured = {row.topic: row.verdict for row in found.rows if row.measured is not None}
    assert measured.pop("sessions of one host") is Verdict.HOLDS
    assert set(measured) <= {"outside address", "outside ports"}
    assert found.unmet == ()


def test_a_long_way_is_no_cap(lab: Lab) -> None:
    with lab.link("paused:internet").impaired(delay="250ms"), lab.link("off:internet").impaired(delay="250ms"):
        short, long = certify_nat(lab, ["paused", "off"], patience=PATIENCE)
    assert (differing(short), differing(long)) == ([], [])
    assert short.row("sessions of one host").verdict is Verdict.NOT_MEASURED  # the first end before the last
    assert long.row("sessions of one host").verdict is Verdict.HOLDS


def assert_nothing_is_said(certificate: Certificate) -> None:
    assert {row.verdict for row in certificate.rows} == {Verdict.NOT_MEASURED}
    assert certificate.unmet == ()
    assert len(certificate.failures) == 1
    assert not certificate.is_as_declared


def differing(certificate: Certificate) -> list[str]:
    found = (row for row in certificate.rows if row.verdict is Verdict.DIFFERS)
    return [f"{row.topic}: {row.declared}, but {row.measured}" for row in found]
