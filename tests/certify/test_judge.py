"""Verdicts: nothing holds that was not measured, and what cannot be known is not called met."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from lab.certify.certificate import Certificate, Verdict
from lab.certify.comparing import compared
from lab.certify.judge import judge
from lab.certify.sampling import FIRST_OF_CAP
from lab.certify.seen import HairpinSeen, Idle, MappingSeen, Refreshed, Sample, Seen, Silence
from lab.certify.subject import Subject

SUBJECT = Subject("r", "home", "internet", "192.168.1.1", ("198.51.100.1",))
DECLARED = {
    "engine": "kernel",
    "preset": "home_router",
    "mapping": "endpoint_independent",
    "filtering": "address_and_port_dependent",
    "ports": {"first": 1, "last": 65535, "allocation": "preserve", "parity": False},
    "port_block": 512,
    "pooling": "paired",
    "sessions": 100,
    "timers": {"udp": 2.0, "udp_dns": None, "tcp_established": 2.0, "tcp_transitory": 2.0, "icmp": 2.0},
    "refresh": "both",
    "hairpin": "none",
    "icmp_errors": "pass",
    "unsolicited_tcp": "drop",
    "overloading": True,
}


def certificate(seen: Seen, **declared: object) -> Certificate:
    about = Subject("r", "home", "internet", "192.168.1.1", ("198.51.100.1",), declared=DECLARED | declared)
    return judge(about, seen)


def test_of_a_router_that_nothing_passes_nothing_holds() -> None:
    found = certificate(Seen())
    assert {row.verdict for row in found.rows} == {Verdict.NOT_MEASURED}
    assert all(row.why and row.measured is None and row.is_met is None for row in found.rows)
    assert len(found.rows) > 25
    assert found.is_as_declared


def test_without_a_declaration_nothing_holds_or_differs() -> None:
    seen = Seen(idle={"udp": (Idle(1.0, 1.0, alive=True), Idle(2.0, 2.0, alive=False))})
    found = judge(SUBJECT, seen)
    assert {row.verdict for row in found.rows} == {Verdict.SEEN, Verdict.NOT_MEASURED}
    assert found.row("UDP timer").measured == "1 s to 2 s"


def idle(*times: tuple[float, bool]) -> Seen:
    return Seen(idle={"udp": tuple(Idle(seconds, seconds, alive) for seconds, alive in times)})


@pytest.mark.parametrize(
    ("seen", "verdict", "is_met"),
    [
        (idle((1.8, True), (2.2, False)), Verdict.HOLDS, False),
        (idle((1.0, True), (1.6, False)), Verdict.DIFFERS, False),
        (idle((2.4, True), (2.7, False)), Verdict.DIFFERS, False),
        (idle((1.0, True), (2.7, True)), Verdict.DIFFERS, None),
        (idle((1.0, True)), Verdict.NOT_MEASURED, None),
        (idle((1.0, False), (2.0, True)), Verdict.NOT_MEASURED, None),
        (idle((1.0, False)), Verdict.DIFFERS, False),
    ],
)
def test_timers(seen: Seen, verdict: Verdict, *, is_met: bool | None) -> None:
    row = certificate(seen).row("UDP timer")
    assert (row.verdict, row.is_met) == (verdict, is_met)


@pytest.mark.parametrize(("timer", "is_met"), [((110.0, 119.0), False), ((110.0, 130.0), None), ((120.0, 150.0), True)])
def test_a_timer_meets_the_rfc_only_if_it_is_surely_long_enough(
    timer: tuple[float, float], *, is_met: bool | None
) -> None:
    assert certificate(idle((timer[0], True), (timer[1], False))).row("UDP timer").is_met is is_met


@pytest.mark.parametrize(
    ("outbound", "inbound", "measured"),
    [
        (Refreshed(1.3, 2.6, alive=True), Refreshed(1.3, 2.6, alive=True), "both"),
        (Refreshed(1.3, 2.6, alive=True), Refreshed(1.3, 2.6, alive=False), "outbound"),
        (Refreshed(1.3, 2.6, alive=False), Refreshed(1.3, 2.6, alive=False), "none"),
        (Refreshed(2.0, 2.6, alive=False), Refreshed(1.3, 2.6, alive=False), None),  # late
        (Refreshed(1.0, 2.0, alive=True), Refreshed(1.0, 2.0, alive=True), None),  # early
        (None, None, None),
    ],
)
def test_refresh(outbound: Refreshed | None, inbound: Refreshed | None, measured: str | None) -> None:
    row = certificate(Seen(refresh={"outbound": outbound, "inbound": inbound})).row("refresh")
    assert row.measured == measured
    assert (row.verdict is Verdict.NOT_MEASURED) is (measured is None)


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((100, 100), Verdict.HOLDS),
        ((100, 46), Verdict.HOLDS),  # an earlier certificate has left 54
        ((60, 60), Verdict.DIFFERS),
        ((116, 116), Verdict.DIFFERS),
        ((60, 46), Verdict.NOT_MEASURED),
        ((), Verdict.NOT_MEASURED),
    ],
)
def test_a_cap_is_that_of_an_address_without_other_sessions(counts: tuple[int, ...], verdict: Verdict) -> None:
    caps = tuple(sessions(range(count)) for count in counts)
    assert certificate(Seen(caps=caps)).row("sessions of one host").verdict is verdict


def sessions(places: Iterable[int]) -> Sample:
    """Those at these places of 116 got through."""
    pairs = (((("192.168.1.9", FIRST_OF_CAP + place), ("198.51.100.1", 4000 + place))) for place in places)
    return Sample(tuple(pairs), 116)


def test_a_cap_does_not_look_smaller_for_what_the_way_has_lost() -> None:
    lossy = sessions(place for place in range(100) if place not in (7, 50))
    row = certificate(Seen(caps=(lossy,))).row("sessions of one host")
    assert (row.verdict, row.measured, row.why) == (Verdict.HOLDS, "100", "2 of them lost on the way")
    smaller = sessions(place for place in range(98) if place not in (7, 50))
    assert certificate(Seen(caps=(smaller,))).row("sessions of one host").verdict is Verdict.DIFFERS


def test_silence_is_met_only_after_the_six_seconds_of_the_rfc() -> None:
    short, long = (certificate(Seen(unmapped_syn=Silence("silence", seconds))) for seconds in (3.0, 6.1))
    reset = certificate(Seen(unmapped_syn=Silence("reset", 0.01)))
    row = "SYN that nobody waits for"
    assert [each.row(row).is_met for each in (short, long, reset)] == [None, True, False]
    assert [each.row(row).verdict for each in (short, long, reset)] == [Verdict.HOLDS, Verdict.HOLDS, Verdict.DIFFERS]


def test_no_hairpin_is_not_concluded_where_a_filter_would_explain_it() -> None:
    inside, a, b = ("192.168.1.9", 5), ("198.51.100.1", 6), ("198.51.100.1", 7)
    none = HairpinSeen(None, inside, a)
    symmetric, cone = (MappingSeen(inside, outsides) for outsides in ((a, b, a, b), (a, a, a, a)))
    assert certificate(Seen(hairpin=none, mapping=(cone,))).row("hairpin").verdict is Verdict.HOLDS
    assert certificate(Seen(hairpin=none, mapping=(symmetric,))).row("hairpin").verdict is Verdict.NOT_MEASURED


def test_a_row_without_requirement_meets_none_and_unmet_ones_are_listed_in_order() -> None:
    inside, a, b = ("192.168.1.9", 5), ("198.51.100.1", 6), ("198.51.100.1", 7)
    seen = Seen(mapping=(MappingSeen(inside, (a, b, a, b)),), simultaneous_open=False, survives_errors=False)
    found = certificate(seen)
    assert found.unmet == ("4787 REQ-1", "4787 REQ-12", "5382 REQ-2")
    assert not found.is_as_declared
    assert all(row.is_met is None for row in found.rows if not row.requirement)


def test_a_certificate_is_plain_values() -> None:
    plain = certificate(Seen()).plain()
    assert json.loads(json.dumps(plain))["rows"][0]["verdict"] == "not measured"
    assert plain["as_declared"] is True
    with pytest.raises(KeyError):
        certificate(Seen()).row("colour")


def test_equality_of_words_decides_unless_told() -> None:
    assert compared("t", "a", "a").verdict is Verdict.HOLDS
    assert compared("t", True, False).verdict is Verdict.DIFFERS
    assert compared("t", "1-9", "2-3", agrees=True).verdict is Verdict.HOLDS
    assert compared("t", None, "a").verdict is Verdict.SEEN
    assert compared("t", "a", None, is_met=True).is_met is None


@pytest.mark.parametrize(
    ("outside", "verdict", "is_met"),
    [
        ("2001:db8:25:0:cf47::9", Verdict.HOLDS, True),  # what the prefix adds to the checksum, the next word takes
        ("2001:db8:25::9", Verdict.DIFFERS, False),
        ("2001:db8:26:0:cf46::9", Verdict.DIFFERS, True),
        ("fd00:25::9", Verdict.DIFFERS, True),
    ],
)
def test_a_translated_prefix_keeps_the_checksum(outside: str, verdict: Verdict, *, is_met: bool) -> None:
    words = {"outbound": "passes", "inside": "fd00:25::9", "address": outside, "filtering": "x", "unsolicited": "x"}
    prefixes = {"inside": "fd00:25::/64", "outside": "2001:db8:25::/64"}
    row = certificate(Seen(ipv6=words), ipv6_prefix=prefixes).row("IPv6 address outside")
    assert (row.verdict, row.is_met) == (verdict, is_met)
    untranslated = certificate(Seen(ipv6=words | {"address": "fd00:25::9"}), ipv6_prefix=None)
    assert untranslated.row("IPv6 address outside").verdict is Verdict.HOLDS
