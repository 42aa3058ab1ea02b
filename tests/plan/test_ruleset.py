"""Rulesets: each part of a firewall and of NAT as the line that it becomes, and every text as the real nft takes it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.plan.build import build
from lab.plan.ruleset import ruleset
from lab.plan.step import LoadRuleset
from lab.topology.load import load_topology
from lab.topology.model import Allow, Firewall, Interface, Nat, Node, Policy, PortForward, Protocol, Role
from lab.topology.nat_behaviour import Allocation, Behaviour, Hairpin, Pooling, Ports, Timers, UnsolicitedTcp

OPEN = Firewall(None, Policy.ACCEPT, Policy.ACCEPT, ())
NODE = Node(
    name="gate",
    role=Role.ROUTER,
    image=None,
    interfaces=(),
    routes=(),
    nat=None,
    firewall=OPEN,
    dns=(),
    hosts=(),
    sysctls=(),
    services=(),
)
WEB = IPv4Address("192.168.1.10")
OUTSIDE = (IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2"))
INPUT_BEGIN = ["ct state established,related accept", "ct state invalid drop"]
DISCOVERY = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept"


def text_of(firewall: Firewall = OPEN, nat: Nat | None = None) -> str:
    outside = nat.outside if nat else "wan"
    addresses = (IPv4Interface("203.0.113.1/24"), IPv4Interface("203.0.113.2/24"))
    interface = Interface(outside, "internet", "02:00:00:00:00:01", 1500, addresses)
    return ruleset(replace(NODE, interfaces=(interface,), firewall=firewall, nat=nat))


def chain(text: str, name: str) -> list[str]:
    """The lines of a chain, without its first and last."""
    head, _, rest = text.partition(f"    chain {name} {{\n")
    assert rest, head
    return [line.strip() for line in rest.partition("\n    }")[0].splitlines()]


@cache
def private_network() -> tuple[str, ...]:
    """What to run nft in, so that the host's rules stay out of reach even of a check."""
    argv = ("unshare", "-n") if os.geteuid() == 0 else ("unshare", "-rn")
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if nft is None or subprocess.run([*argv, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no nft, or no network namespace for this user")
    return (*argv, nft)


def nft_accepts(text: str) -> None:
    done = subprocess.run(
        [*private_network(), "-c", "-f", "-"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{done.stderr}\n{text}"


def test_the_judge_can_say_no() -> None:
    with pytest.raises(AssertionError, match="syntax error"):
        nft_accepts("table inet lab { chain x { tcp dport } }")


def test_nft_takes_every_ruleset_of_every_topology(shipped: list[Path], small: list[Path], valid: list[Path]) -> None:
    plans = [build(load_topology(file)) for file in shipped + small + valid]
    texts = {
        step.text for plan in plans for step in plan.steps if isinstance(step, LoadRuleset) and step.program == "nft"
    }
    assert len(texts) >= 10
    for text in sorted(texts):
        nft_accepts(text)


PREFIXES = st.sampled_from([None, ip_network("192.0.2.0/28"), ip_network("2001:db8::/48"), ip_network("192.0.2.1/32")])
ADDRESSES = st.sampled_from([None, WEB, IPv6Address("2001:db8::10")])
PORTS = st.integers(1, 65535)


@st.composite
def exceptions(draw: st.DrawFn) -> Allow:
    protocol = draw(st.sampled_from([None, *Protocol]))
    source, destination = draw(PREFIXES), draw(ADDRESSES)
    if source is not None and destination is not None and source.version != destination.version:
        destination = None  # refused by the topology
    return Allow(protocol, None if protocol is None else draw(PORTS), source, destination)


FIREWALLS = st.builds(
    Firewall,
    outside=st.sampled_from([None, "internet", "a.b-c_d", "fifteen-letters"]),
    input=st.sampled_from(Policy),
    forward=st.sampled_from(Policy),
    allow=st.lists(exceptions(), max_size=4).map(tuple),
)
SECONDS = st.integers(1, 864_000).map(float)
BEHAVIOURS = st.builds(
    Behaviour,
    ports=st.builds(Ports, st.integers(1, 1024), st.integers(1024, 65535), st.sampled_from(Allocation)),
    pooling=st.sampled_from(Pooling),
    sessions=st.none() | st.integers(1, 1_000_000),
    timers=st.builds(Timers, SECONDS, st.none() | SECONDS, SECONDS, SECONDS, SECONDS),
    hairpin=st.sampled_from(Hairpin),
    icmp_errors=st.booleans(),
    unsolicited_tcp=st.sampled_from(UnsolicitedTcp),
)
NATS = st.none() | st.builds(
    Nat,
    outside=st.sampled_from(["internet", "fifteen-letters"]),
    forwards=st.lists(
        st.builds(PortForward, st.sampled_from(Protocol), PORTS, st.just(WEB), PORTS),
        unique_by=lambda forward: (forward.protocol, forward.port),
        max_size=3,
    ).map(tuple),
    pool=st.lists(st.sampled_from(OUTSIDE), unique=True, min_size=1).map(tuple),
    behaviour=BEHAVIOURS,
    upnp=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(FIREWALLS, NATS)
def test_nft_takes_whatever_a_topology_can_ask_for(firewall: Firewall, nat: Nat | None) -> None:
    nft_accepts(text_of(firewall, nat))


def test_a_node_that_neither_filters_nor_translates_has_no_ruleset() -> None:
    assert text_of() == ""
    assert text_of(replace(OPEN, outside="internet", allow=(Allow(Protocol.TCP, 22, None, None),))) == ""


@pytest.mark.parametrize(
    ("policy", "last"),
    [
        (Policy.DROP, ["drop"]),
        (Policy.REJECT, ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"]),
    ],
)
@pytest.mark.parametrize("hook", ["input", "forward"])
def test_a_policy_is_the_last_rule_of_its_own_chain_only(hook: str, policy: Policy, last: list[str]) -> None:
    text = text_of(replace(OPEN, input=policy) if hook == "input" else replace(OPEN, forward=policy))
    assert text.count("chain ") == 1
    lines = chain(text, hook)
    assert lines[0] == f"type filter hook {hook} priority filter; policy accept;"
    assert lines[1:3] == INPUT_BEGIN
    assert lines[-len(last) :] == last


def test_only_what_comes_from_outside_is_filtered() -> None:
    text = text_of(Firewall("internet", Policy.DROP, Policy.DROP, ()))
    for hook in ("input", "forward"):
        assert chain(text, hook)[3] == 'iifname != "internet" accept'


def test_without_an_outside_all_is_filtered_but_a_node_talks_to_itself() -> None:
    text = text_of(Firewall(None, Policy.DROP, Policy.DROP, ()))
    assert chain(text, "input")[1:] == [*INPUT_BEGIN, 'iifname "lo" accept', DISCOVERY, "drop"]
    assert chain(text, "forward")[1:] == [*INPUT_BEGIN, "ct status dnat accept", "drop"]


def test_neighbours_are_discovered_through_every_input_policy() -> None:
    for policy in (Policy.DROP, Policy.REJECT):
        lines = chain(text_of(replace(OPEN, input=policy)), "input")
        assert lines.index(DISCOVERY) < len(lines) - 1


@pytest.mark.parametrize(
    ("allow", "rule"),
    [
        (Allow(Protocol.TCP, 22, None, None), "tcp dport 22 accept"),
        (Allow(Protocol.UDP, 53, None, None), "udp dport 53 accept"),
        (Allow(None, None, None, None), "meta l4proto { icmp, ipv6-icmp } accept"),
        (Allow(Protocol.TCP, 22, ip_network("192.0.2.0/24"), None), "ip saddr 192.0.2.0/24 tcp dport 22 accept"),
        (Allow(Protocol.TCP, 22, ip_network("2001:db8::/64"), None), "ip6 saddr 2001:db8::/64 tcp dport 22 accept"),
    ],
)
def test_an_exception_without_a_destination_is_for_the_node_itself(allow: Allow, rule: str) -> None:
    text = text_of(Firewall(None, Policy.DROP, Policy.DROP, (allow,)))
    assert chain(text, "input")[-2] == rule
    assert rule not in chain(text, "forward")


@pytest.mark.parametrize(
    ("allow", "rule"),
    [
        (Allow(Protocol.TCP, 443, None, WEB), "ip daddr 192.168.1.10 tcp dport 443 accept"),
        (Allow(None, None, None, WEB), "ip daddr 192.168.1.10 meta l4proto { icmp, ipv6-icmp } accept"),
        (
            Allow(Protocol.UDP, 53, ip_network("2001:db8::/64"), IPv6Address("2001:db8:1::5")),
            "ip6 saddr 2001:db8::/64 ip6 daddr 2001:db8:1::5 udp dport 53 accept",
        ),
    ],
)
def test_an_exception_with_a_destination_is_for_what_passes_through(allow: Allow, rule: str) -> None:
    text = text_of(Firewall(None, Policy.DROP, Policy.DROP, (allow,)))
    assert chain(text, "forward")[-2] == rule
    assert rule not in chain(text, "input")
