"""The certifier against NATs that are set up by hand, not in the lab's own words: it must not believe, but see.

two inside hosts -- NAME (router with a ruleset of this file) -- internet -- observer       for each ruleset
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.certify.certificate import Certificate, Verdict
from lab.certify.judge import judge
from lab.certify.probing import measure
from lab.certify.seen import Seen
from lab.certify.subject import Subject, subject
from lab.realise.lab import Lab

pytestmark = pytest.mark.alone

TRIES = 3
PATIENCE = 2.8  # seconds: twice a timer of 2 s and more

KEEP_OUT = """
    chain input {
        type filter hook input priority filter; policy accept;
        ct state established,related accept
        iifname "internet" drop
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ct status dnat accept
        iifname "internet" drop
    }
"""
MASQUERADE = 'chain post { type nat hook postrouting priority srcnat; oifname "internet" masquerade; }'
CONE = """
    map cone { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 300s; }
    chain pre {
        type nat hook prerouting priority dstnat;
        %s ip daddr 198.51.100.0/24 meta l4proto udp dnat ip to udp dport map @cone
    }
    chain post {
        type nat hook postrouting priority srcnat;
        oifname "internet" meta l4proto udp update @cone { udp sport : ip saddr . udp sport }
        oifname "internet" masquerade
        %s
    }
"""
RULES = {
    "plain": KEEP_OUT + MASQUERADE,
    "random": KEEP_OUT + MASQUERADE.replace("masquerade;", "masquerade random;"),
    "ranged": KEEP_OUT + MASQUERADE.replace("masquerade;", "meta l4proto { tcp, udp } masquerade to :20000-24999;"),
    "by-address": KEEP_OUT
    + "".join(f"chain p{n} {{ meta l4proto {{ tcp, udp }} masquerade to :{n}0000-{n}9999; }}\n" for n in range(1, 6))
    + 'chain post { type nat hook postrouting priority srcnat; oifname "internet" '
    "jhash ip daddr mod 5 seed 0x7 vmap { 0: goto p1, 1: goto p2, 2: goto p3, 3: goto p4, 4: goto p5 }; }",
    "cone": KEEP_OUT + CONE % ('iifname "internet"', ""),
    "hairpin-in": KEEP_OUT + CONE % ("", ""),
    "hairpin-out": KEEP_OUT + CONE % ("", 'oifname != "internet" ct status dnat snat ip to 198.51.100.7'),
    "forgetful": KEEP_OUT
    + MASQUERADE
    + """
    ct timeout short { protocol udp; l3proto ip; policy = { unreplied: 2, replied: 2 }; }
    ct timeout brief {
        protocol tcp; l3proto ip; policy = { established: 2, syn_sent: 1, syn_recv: 1, close: 1, retrans: 2, unack: 2 };
    }
    chain timers {
        type filter hook forward priority mangle;
        meta l4proto udp ct timeout set "short"
        meta l4proto tcp ct timeout set "brief"
    }
    """,
    "hostile": MASQUERADE
    + """
    set sessions { type ipv4_addr; size 65535; flags dynamic; }
    chain input {
        type filter hook input priority filter; policy accept;
        ct state established,related accept
        iifname "internet" meta l4proto tcp reject with tcp reset
        iifname "internet" drop
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        icmp type { destination-unreachable, time-exceeded } drop
        icmp type echo-reply drop
        oifname "internet" ct state new add @sessions { ip saddr ct count over 160 } drop
    }
    chain early { type filter hook prerouting priority -450; ip frag-off & 0x1fff != 0 drop; }
    chain ageing { type filter hook postrouting priority mangle; oifname "internet" ip ttl set 60; }
    """,
}
SESSIONS = 160
UNDECLARED: dict[str, Any] = {"hostile": {"sessions": SESSIONS}, "forgetful": {"timers": {"udp": 2.0}}}


def topology() -> dict[str, Any]:
    routers = {
        name: {"role": "router", "links": {"internet": f"198.51.100.{number}", name: "auto"}}
        for number, name in enumerate(RULES, 1)
    }
    networks = {name: {"prefixes": [f"192.168.{number}.0/24"]} for number, name in enumerate(RULES, 1)}
    return {"networks": {"internet": {"prefixes": ["198.51.100.0/24"]}} | networks, "nodes": routers}


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    made = module_up(topology())
    for name, rules in RULES.items():
        made[name].run(["nft", "-f", "-"], input=f"table ip own {{\n{rules}\n}}\n", check=True)
    return made


@pytest.fixture(scope="module")
def judged(lab: Lab) -> dict[str, tuple[Subject, Seen]]:
    """Every router measured at once; what is declared only tells which timers and caps to try.

    A busy machine is late: then the timers are not known, and all is measured again, from other addresses.
    """
    wanted = [replace(subject(lab.facts, name, "internet"), declared=UNDECLARED.get(name)) for name in RULES]
    for seed in range(4787, 4787 + TRIES):
        seen = measure(lab, wanted, PATIENCE, seed=seed)
        found = {each.router: (each, seen[each.router]) for each in wanted}
        if are_timers_known(*found["forgetful"]):
            break
    return found


def are_timers_known(about: Subject, seen: Seen) -> bool:
    certificate = judge(replace(about, declared=DECLARED["forgetful"]), seen)
    topics = ("UDP timer", "TCP timer, open", "TCP timer, opening", "refresh")
    return all(certificate.row(topic).measured is not None for topic in topics)


@pytest.fixture
def certificate(judged: dict[str, tuple[Subject, Seen]]) -> Callable[[str], Certificate]:
    def of(name: str) -> Certificate:
        about, seen = judged[name]
        return judge(replace(about, declared=None), seen)

    return of


def words(certificate: Certificate, *topics: str) -> list[str | None]:
    return [certificate.row(topic).measured for topic in topics]


BEHAVIOUR = ("mapping", "filtering", "port allocation", "TCP mapping", "TCP filtering")
INDEPENDENT, BY_ADDRESS, BY_PORT = "endpoint_independent", "address_dependent", "address_and_port_dependent"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", [INDEPENDENT, BY_PORT, "preserve", INDEPENDENT, BY_PORT]),
        ("random", [BY_PORT, BY_PORT, "random", BY_PORT, BY_PORT]),
        ("ranged", [INDEPENDENT, BY_PORT, "preserve", INDEPENDENT, BY_PORT]),
        ("by-address", [BY_ADDRESS, BY_PORT, "preserve", BY_ADDRESS, BY_PORT]),
        ("cone", [INDEPENDENT, INDEPENDENT, "preserve", INDEPENDENT, BY_PORT]),
    ],
)
def test_mapping_filtering_and_ports_are_seen_as_they_are(
    certificate: Callable[[str], Certificate], name: str, expected: list[str]
) -> None:
    assert words(certificate(name), *BEHAVIOUR) == expected


def test_all_ports_lie_in_the_range_and_the_range_is_not_just_assumed(
    certificate: Callable[[str], Certificate],
) -> None:
    low, high = map(int, str(certificate("ranged").row("outside ports").measured).split("-"))
    assert 20000 <= low < high <= 24999
    low, high = map(int, str(certificate("plain").row("outside ports").measured).split("-"))
    assert low < 1024
    assert high > 25000


def test_the_kernel_lets_hosts_share_a_port_and_then_maps_otherwise(certificate: Callable[[str], Certificate]) -> None:
    plain = certificate("plain")
    assert words(plain, "port overloading", "two hosts, one source port") == ["yes", "works"]
    assert plain.row("port overloading").is_met is False
    conflict = plain.row("mapping after a port conflict")
    assert (conflict.measured != INDEPENDENT, conflict.is_met) == (True, False)
    assert certificate("random").row("port overloading").verdict is Verdict.NOT_MEASURED


def test_hairpins_are_told_apart(certificate: Callable[[str], Certificate]) -> None:
    assert words(certificate("hairpin-in"), "hairpin", "TCP hairpin") == ["internal_source", "none"]
    assert words(certificate("hairpin-out"), "hairpin", "TCP hairpin") == ["external_source", "none"]
    assert words(certificate("plain"), "hairpin", "TCP hairpin") == ["none", "none"]
    assert words(certificate("cone"), "hairpin", "TCP hairpin") == ["none", "none"]


def test_timers_are_measured_and_long_ones_are_not(certificate: Callable[[str], Certificate]) -> None:
    forgetful, plain = certificate("forgetful"), certificate("plain")
    low, _, _, high, _ = str(forgetful.row("UDP timer").measured).split()
    assert 1 <= float(low) < 2.05
    assert 1.95 < float(high) < 3.5
    assert forgetful.row("UDP timer").is_met is False
    assert forgetful.row("refresh").verdict is Verdict.NOT_MEASURED  # nothing is declared, so nothing was tried
    for topic in ("UDP timer", "TCP timer, open", "TCP timer, opening", "ICMP timer"):
        row = plain.row(topic)
        assert (row.verdict, row.is_met) == (Verdict.NOT_MEASURED, None)
        assert row.why.startswith("longer than the patience: alive after 2.")
    for topic in ("TCP timer, open", "TCP timer, opening"):
        assert forgetful.row(topic).verdict is Verdict.SEEN


def test_a_hostile_router_is_seen_to_be_one(certificate: Callable[[str], Certificate]) -> None:
    hostile = certificate("hostile")
    topics = ("ICMP errors inwards", "ICMP errors outwards", "echo of two hosts", "fragments in order")
    assert words(hostile, *topics) == ["drop", "drop", "fails", "lost"]
    assert words(hostile, "SYN that nobody waits for", "hops taken off, out and in") == ["reset", "4, 1"]
    assert hostile.row("hops taken off, out and in").verdict is Verdict.DIFFERS
    assert not hostile.is_as_declared
    plain = certificate("plain")
    assert words(plain, *topics) == ["pass", "pass", "works", "pass"]
    assert words(plain, "SYN that nobody waits for", "hops taken off, out and in") == ["silence", "1, 1"]
    assert words(plain, "TCP simultaneous open", "fragments out of order") == ["works", "pass"]


def test_a_cap_is_counted(judged: dict[str, tuple[Subject, Seen]]) -> None:
    about, seen = judged["hostile"]
    row = judge(replace(about, declared={"sessions": SESSIONS}), seen).row("sessions of one host")
    assert (row.measured, row.verdict) == (str(SESSIONS), Verdict.HOLDS)


# A right declaration of some routers, then wrong ones, each with the only row that may differ.
DECLARED: dict[str, dict[str, Any]] = {
    "plain": {
        "mapping": INDEPENDENT,
        "filtering": BY_PORT,
        "ports": {"first": 1, "last": 65535, "allocation": "preserve", "parity": False},
        "hairpin": "none",
        "icmp_errors": "pass",
        "unsolicited_tcp": "drop",
        "overloading": True,
        "timers": {"udp": 120.0, "tcp_established": 7440.0, "tcp_transitory": 120.0, "icmp": 30.0},
    },
    "forgetful": {"timers": {"udp": 2.0}, "refresh": "both"},
    "random": {"mapping": BY_PORT, "ports": {"first": 1, "last": 65535, "allocation": "random", "parity": False}},
    "hostile": {"icmp_errors": "drop", "unsolicited_tcp": "reject", "sessions": SESSIONS},
    "hairpin-out": {"hairpin": "external_source"},
}
LIES: list[tuple[str, str, Any, set[str]]] = [
    ("plain", "mapping", BY_PORT, {"mapping", "TCP mapping"}),
    ("plain", "mapping", BY_ADDRESS, {"mapping", "TCP mapping"}),
    ("plain", "filtering", INDEPENDENT, {"filtering", "TCP filtering"}),
    ("plain", "filtering", BY_ADDRESS, {"filtering", "TCP filtering"}),
    (
        "plain",
        "ports",
        {"first": 1024, "last": 29999, "allocation": "random", "parity": True},
        {"port allocation", "outside ports", "port parity"},
    ),
    ("plain", "port_block", 512, {"port block"}),
    ("plain", "hairpin", "external_source", {"hairpin", "TCP hairpin"}),
    ("plain", "icmp_errors", "drop", {"ICMP errors inwards", "ICMP errors outwards"}),
    ("plain", "unsolicited_tcp", "reject", {"SYN that nobody waits for"}),
    ("plain", "overloading", False, {"port overloading"}),
    ("plain", "timers", {"udp": 1.0}, {"UDP timer", "UDP timer, to port 53"}),
    ("forgetful", "timers", {"udp": 30.0}, {"UDP timer", "UDP timer, to port 53"}),
    ("forgetful", "refresh", "outbound", {"refresh"}),
    ("random", "mapping", INDEPENDENT, {"mapping", "TCP mapping"}),
    (
        "random",
        "ports",
        {"first": 1, "last": 65535, "allocation": "preserve", "parity": True},
        {"port allocation", "port parity"},
    ),
    ("hostile", "icmp_errors", "pass", {"ICMP errors inwards", "ICMP errors outwards"}),
    ("hostile", "unsolicited_tcp", "drop", {"SYN that nobody waits for"}),
    ("hostile", "sessions", SESSIONS + 8, {"sessions of one host"}),
    ("hostile", "sessions", SESSIONS - 8, {"sessions of one host"}),
    ("hairpin-out", "hairpin", "internal_source", {"hairpin"}),
    ("hairpin-out", "hairpin", "none", {"hairpin"}),
]
ALWAYS = {"hops taken off, out and in"}  # of "hostile"
OF_UDP_ALONE = {"TCP hairpin"}  # "hairpin-out" does it for UDP only


@pytest.mark.parametrize("name", DECLARED)
def test_a_right_declaration_holds(judged: dict[str, tuple[Subject, Seen]], name: str) -> None:
    assert differing(judged[name], DECLARED[name]) - ALWAYS - OF_UDP_ALONE == set()


@pytest.mark.parametrize(("name", "key", "lie", "rows"), LIES, ids=[f"{n} {k}: {v}" for n, k, v, _ in LIES])
def test_a_wrong_declaration_differs_in_its_own_rows(
    judged: dict[str, tuple[Subject, Seen]], name: str, key: str, lie: Any, rows: set[str]
) -> None:
    declared = json.loads(json.dumps(DECLARED[name])) | {key: lie}
    found = differing(judged[name], declared)
    assert found - ALWAYS - (OF_UDP_ALONE - rows) == rows
    about, seen = judged[name]
    assert not judge(replace(about, declared=declared), seen).is_as_declared


def differing(judged: tuple[Subject, Seen], declared: dict[str, Any]) -> set[str]:
    about, seen = judged
    certificate = judge(replace(about, declared=declared), seen)
    return {row.topic for row in certificate.rows if row.verdict is Verdict.DIFFERS}
