"""Verdicts: nothing holds that was not measured, and what cannot be known is not called met."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from lab.certify.certificate import Certificate, Verdict
from lab.certify.comparing import compared
from lab.certify.judge import judge
from lab.certify.sampling import FIRST_OF_CAP
from lab.certify.seen import (
    Conflict,
    ForwardSeen,
    HairpinSeen,
    Idle,
    MappingSeen,
    Refreshed,
    Sample,
    Seen,
    Silence,
)
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
    assert not found.is_as_declared  # nor is there anything to say that it is


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
        ((0, 0), Verdict.NOT_MEASURED),  # an earlier certificate has left all
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


def test_an_error_after_six_seconds_is_what_the_rfc_asks_for() -> None:
    row = "SYN that nobody waits for"
    late, early = (certificate(Seen(unmapped_syn=Silence("unreachable", seconds))).row(row) for seconds in (6.2, 5.8))
    assert (late.is_met, early.is_met) == (True, False)
    assert certificate(Seen(unmapped_syn=Silence("reset", 6.2))).row(row).is_met is False


A, B = ("192.168.1.9", 5), ("192.168.1.8", 5)
OUTSIDE, ROUTER = ("198.51.100.1", 6), ("192.168.1.1", 6)


@pytest.mark.parametrize(
    ("declared", "at_mapping", "at_forward", "verdict"),
    [
        ("none", None, None, Verdict.HOLDS),
        ("none", None, ROUTER, Verdict.DIFFERS),
        ("none", None, A, Verdict.DIFFERS),
        ("forwards", None, ROUTER, Verdict.HOLDS),
        ("forwards", None, None, Verdict.DIFFERS),
        ("internal_source", A, A, Verdict.HOLDS),
        ("internal_source", A, ROUTER, Verdict.DIFFERS),
        ("internal_source", A, None, Verdict.DIFFERS),
        ("external_source", OUTSIDE, OUTSIDE, Verdict.HOLDS),
        ("external_source", OUTSIDE, A, Verdict.DIFFERS),
        ("external_source", OUTSIDE, None, Verdict.DIFFERS),
    ],
)
def test_a_hairpin_is_judged_at_forwards_too(
    declared: str,
    at_mapping: tuple[str, int] | None,
    at_forward: tuple[str, int] | None,
    verdict: Verdict,
) -> None:
    seen = Seen(
        outside_addresses=("198.51.100.1",),
        mapping=(MappingSeen(B, (OUTSIDE,) * 4),),
        hairpin=HairpinSeen(at_mapping, A, OUTSIDE),
        forwards=(ForwardSeen("udp 9 -> nas:9", arrived=True, hairpin=at_forward, sender=A),),
    )
    assert certificate(seen, hairpin=declared).row("hairpin").verdict is verdict


def conflicts(first: tuple[str, int], second: tuple[str, int]) -> tuple[Conflict, ...]:
    return (Conflict(first, second, answers_apart=True),) * 8


def test_that_two_hosts_work_does_not_meet_a_requirement_but_a_shared_port_fails_one() -> None:
    same, other = conflicts(OUTSIDE, ("198.51.100.1", 7)), conflicts(OUTSIDE, OUTSIDE)
    found = certificate(Seen(same_peer=same, other_peer=other))
    row = found.row("two hosts, one source port")
    assert (row.measured, row.requirement, row.is_met) == ("works", "", None)
    assert found.unmet == ("4787 REQ-3",)
    assert certificate(Seen(same_peer=other), overloading=False).row("port overloading").verdict is Verdict.DIFFERS


def test_a_handshake_alone_does_not_meet_all_sequences_of_tcp() -> None:
    assert certificate(Seen(tcp_handshake=True)).row("TCP handshake").is_met is None
    assert certificate(Seen(tcp_handshake=False)).unmet == ("5382 REQ-2",)


def ports(address: str, became: Iterable[int]) -> Sample:
    pairs = tuple(((address, 2048 + 97 * n), ("198.51.100.1", port)) for n, port in enumerate(became))
    return Sample(pairs, len(pairs))


def test_ports_that_were_kept_say_nothing_of_parity() -> None:
    """Of 32, one moved: that it stays even is a coin toss."""
    kept = [2048 + 97 * n for n in range(31)]
    row = certificate(Seen(neighbour=ports("192.168.1.8", [*kept, 5055]))).row("port parity")
    assert row.verdict is Verdict.NOT_MEASURED


@pytest.mark.parametrize(("counted", "verdict"), [(64, Verdict.HOLDS), (63, Verdict.DIFFERS), (100, Verdict.DIFFERS)])
def test_a_host_has_no_more_sessions_than_its_block_has_ports(counted: int, verdict: Verdict) -> None:
    caps = (Sample(ports("192.168.1.9", range(counted)).pairs, 116),)
    assert certificate(Seen(caps=caps), port_block=64).row("sessions of one host").verdict is verdict


def test_a_block_smaller_than_declared_differs() -> None:
    chance = random.Random(7422)
    mine = ports("192.168.1.9", chance.sample(range(1, 513), 32))
    near = ports("192.168.1.9", chance.sample(range(1, 513), 16))
    theirs, fewer = (ports("192.168.1.8", chance.sample(range(513, 513 + width), 32)) for width in (512, 256))
    random_ports = {"first": 1, "last": 65535, "allocation": "random", "parity": False}
    verdicts = [
        certificate(Seen(spread=mine, near=near, neighbour=each), ports=random_ports).row("port block").verdict
        for each in (theirs, fewer)
    ]
    assert verdicts == [Verdict.HOLDS, Verdict.DIFFERS]


def test_ipv6_without_an_answer_is_not_filtered() -> None:
    seen = Seen(ipv6={"outbound": "passes", "inside": "fd00::9", "address": "fd00::9"})
    rows = [certificate(seen).row(topic) for topic in ("IPv6 filtering", "IPv6 that nobody asked for")]
    assert [row.verdict for row in rows] == [Verdict.NOT_MEASURED] * 2


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
    assert found.unmet == ("4787 REQ-1", "4787 REQ-12", "5382 REQ-2a")
    assert not found.is_as_declared
    assert all(row.is_met is None for row in found.rows if not row.requirement)


def test_a_certificate_is_plain_values() -> None:
    plain = certificate(Seen()).plain()
    assert json.loads(json.dumps(plain))["rows"][0]["verdict"] == "not measured"
    assert plain["as_declared"] is False
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


def test_an_outside_address_that_was_not_met_is_not_said_to_be() -> None:
    spread = ports("192.168.1.9", range(2000, 2032))
    about = replace(SUBJECT, declared=DECLARED)
    one, two, stray = (
        judge(about, Seen(outside_addresses=pool, spread=spread)).row("outside address")
        for pool in (("198.51.100.1",), ("198.51.100.1", "198.51.100.2"), ("198.51.100.2",))
    )
    assert (one.verdict, one.why) == (Verdict.HOLDS, "")
    assert (two.verdict, two.why) == (Verdict.HOLDS, "1 of 2 met")
    assert stray.verdict is Verdict.DIFFERS
