"""NAT as nftables text: each knob as the line that it becomes. That nft takes every text, test_ruleset.py asks."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab.plan.nat.kernel import nat_blocks
from lab.topology.model import Nat, PortForward, Protocol
from lab.topology.nat_behaviour import HOME_ROUTER, Allocation, Dependence, Hairpin, Pooling, Ports, Timers

FIRST, SECOND = IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2")
OWN = [str(FIRST), str(SECOND)]
WEB = PortForward(Protocol.TCP, 443, IPv4Address("192.168.1.10"), 8443)
PLAIN = Nat("wan", (WEB,), (FIRST,))
LEAVING = 'meta nfproto ipv4 iifname != "wan" oifname "wan" ip saddr != { 203.0.113.1, 203.0.113.2 }'


def behaving(**knobs: object) -> Nat:
    return replace(PLAIN, behaviour=replace(HOME_ROUTER, **knobs))  # type: ignore[arg-type]


def block(nat: Nat, name: str) -> list[str]:
    """The lines of a chain or object, without its first and last; of a base chain also without its hook."""
    (found,) = (lines for lines in nat_blocks(nat, OWN) if lines[0] == f"{name} {{")
    return [line.strip() for line in found[1:-1] if " hook " not in line]


def test_a_plain_nat_writes_what_leaves_to_its_outside_only_ipv4_and_not_what_is_its_own() -> None:
    assert block(PLAIN, "chain postrouting") == [f"{LEAVING} masquerade"]


def test_a_port_forward_comes_in_from_outside() -> None:
    rule = 'iifname "wan" ip daddr { 203.0.113.1 } tcp dport 443 dnat ip to 192.168.1.10:8443'
    assert block(PLAIN, "chain prerouting") == [rule]


def test_a_port_forward_is_offered_at_every_address_of_the_pool() -> None:
    (rule,) = block(replace(PLAIN, pool=(FIRST, SECOND)), "chain prerouting")
    assert "ip daddr { 203.0.113.1, 203.0.113.2 } tcp dport 443" in rule


def test_a_hairpin_of_forwards_takes_them_from_inside_too_and_speaks_as_the_router() -> None:
    nat = behaving(hairpin=Hairpin.FORWARDS)
    assert block(nat, "chain prerouting") == ["ip daddr { 203.0.113.1 } tcp dport 443 dnat ip to 192.168.1.10:8443"]
    last = 'meta nfproto ipv4 iifname != "wan" oifname != "wan" ct status dnat masquerade'
    assert block(nat, "chain postrouting")[-1] == last


def test_a_mapping_for_each_connection_is_a_random_port() -> None:
    nat = behaving(mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT, ports=Ports(allocation=Allocation.RANDOM))
    assert block(nat, "chain postrouting") == [f"{LEAVING} masquerade random"]


@pytest.mark.parametrize(("allocation", "how"), [(Allocation.PRESERVE, ""), (Allocation.RANDOM, " random")])
def test_a_range_is_for_protocols_with_ports(allocation: Allocation, how: str) -> None:
    nat = behaving(ports=Ports(20000, 29999, allocation))
    assert block(nat, "chain postrouting") == [
        f"{LEAVING} meta l4proto {{ tcp, udp }} masquerade to :20000-29999{how}",
        f"{LEAVING} masquerade{how}",
    ]


def test_another_address_than_the_first_is_named() -> None:
    assert block(replace(PLAIN, pool=(SECOND,)), "chain postrouting") == [f"{LEAVING} snat ip to 203.0.113.2"]


@pytest.mark.parametrize(
    ("pooling", "key"), [(Pooling.PAIRED, "jhash ip saddr mod 2 seed 0x1"), (Pooling.ARBITRARY, "numgen random mod 2")]
)
def test_a_pool_is_chosen_from_by_the_sender_or_by_chance(pooling: Pooling, key: str) -> None:
    nat = replace(behaving(pooling=pooling, ports=Ports(2000, 2999)), pool=(SECOND, FIRST))
    assert block(nat, "chain postrouting") == [f"{LEAVING} {key} vmap {{ 0 : goto pool0, 1 : goto pool1 }}"]
    assert block(nat, "chain pool0") == [
        "meta l4proto { tcp, udp } snat ip to 203.0.113.2:2000-2999",
        "snat ip to 203.0.113.2",
    ]
    assert block(nat, "chain pool1")[-1] == "snat ip to 203.0.113.1"


def test_every_timer_is_an_object_that_new_connections_get() -> None:
    nat = behaving(timers=Timers(udp=30, udp_dns=5, tcp_established=600, tcp_transitory=20))
    assert "policy = { unreplied: 30, replied: 30 }" in block(nat, "ct timeout nat_udp")[0]
    assert "policy = { unreplied: 5, replied: 5 }" in block(nat, "ct timeout nat_dns")[0]
    tcp = block(nat, "ct timeout nat_tcp")[0]
    assert "established: 600, " in tcp
    states = ("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close", "retrans", "unack")
    assert all(f"{state}: 20" in tcp for state in states)
    assert block(nat, "chain passing") == [
        'meta nfproto ipv4 meta l4proto udp ct timeout set "nat_udp"',
        'meta nfproto ipv4 meta l4proto tcp ct timeout set "nat_tcp"',
        'meta nfproto ipv4 udp dport 53 ct timeout set "nat_dns"',
    ]


def test_sessions_are_counted_for_each_sender() -> None:
    rule = block(behaving(sessions=200), "chain passing")[-1]
    assert rule == (
        'meta nfproto ipv4 iifname != "wan" oifname "wan" ct state new '
        "add @sessions { ip saddr ct count over 200 } drop"
    )
    assert block(behaving(sessions=200), "set sessions")


def test_icmp_errors_are_dropped_wherever_they_leave() -> None:
    nat = behaving(icmp_errors=False)
    assert block(nat, "chain icmp_errors") == ["icmp type { destination-unreachable, time-exceeded } drop"]
    assert not any("icmp" in line for lines in nat_blocks(PLAIN, OWN) for line in lines)
