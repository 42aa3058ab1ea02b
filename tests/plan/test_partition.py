"""Partitions as nftables text, and which cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.plan.partition import partition
from lab.topology.load import load_topology
from lab.topology.model import Topology

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def homelab() -> Topology:
    return load_topology(ROOT / "topologies" / "homelab.yaml")


def test_the_table_of_two_nodes(homelab: Topology) -> None:
    texts = partition(homelab, "nas", "vps-a", "t")
    assert list(texts) == ["nas", "vps-a"]
    assert texts["vps-a"] == VPS_A


VPS_A = """table inet t {
    chain prerouting {
        type filter hook prerouting priority -310; policy accept;
        iif "lo" accept
        ip saddr { 192.168.1.10 } ip daddr { 198.51.100.10 } drop
        ip saddr { 198.51.100.10 } ip daddr { 192.168.1.10 } drop
        ip6 saddr { 2001:db8:10::10, fe80::ff:fe00:801 } ip6 daddr { 2001:db8:1::10, fe80::ff:fe00:501 } drop
        ip6 saddr { 2001:db8:1::10, fe80::ff:fe00:501 } ip6 daddr { 2001:db8:10::10, fe80::ff:fe00:801 } drop
        ip saddr { 192.168.1.10 } ip daddr { 224.0.0.0/4, 255.255.255.255, 198.51.100.255 } drop
        ip6 saddr { 2001:db8:10::10, fe80::ff:fe00:801 } ip6 daddr { ff00::/8 } drop
    }

    chain output {
        type filter hook output priority -310; policy accept;
        oif "lo" accept
        ip saddr { 192.168.1.10 } ip daddr { 198.51.100.10 } drop
        ip saddr { 198.51.100.10 } ip daddr { 192.168.1.10 } drop
        ip6 saddr { 2001:db8:10::10, fe80::ff:fe00:801 } ip6 daddr { 2001:db8:1::10, fe80::ff:fe00:501 } drop
        ip6 saddr { 2001:db8:1::10, fe80::ff:fe00:501 } ip6 daddr { 2001:db8:10::10, fe80::ff:fe00:801 } drop
    }
}
"""


@pytest.mark.parametrize(
    ("one", "other", "nodes"),
    [
        ("home", "vps-a", ["home-router", "nas", "pi", "laptop", "vps-a"]),
        ("internet", "nas", ["isp", "cafe", "dns", "vps-a", "vps-b", "stranger", "nas"]),
        ("home-router", "isp", ["home-router", "isp"]),  # from outside a router with NAT is seen
        ("cafe", "nas", ["cafe", "nas"]),
        ("laptop", "nas", ["laptop", "nas"]),
    ],
)
def test_every_node_of_both_sides_has_the_table(homelab: Topology, one: str, other: str, nodes: list[str]) -> None:
    assert list(partition(homelab, one, other, "t")) == nodes


@pytest.mark.parametrize(
    ("one", "other"), [("laptop", "phone"), ("phone", "pi"), ("home", "cafe-lan"), ("home", "phone")]
)
def test_what_nat_hides_from_both_sides_is_refused_with_the_links_to_cut(
    homelab: Topology, one: str, other: str
) -> None:
    with pytest.raises(UsageError, match=f"NAT hides {one} and {other} from each other.* instead: `lab link .* down`"):
        partition(homelab, one, other, "t")


def test_translated_prefixes_hide_as_nat_does(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    home = "{{role: router, links: {{internet: auto, {0}: auto}}, nat: {{outside: internet, ipv6_prefix: {1}}}}}"
    routers = [
        home.format(name, f'{{inside: "fd00:{n}::/64", outside: "2001:db8:{n}::/64"}}')
        for n, name in ((1, "x"), (2, "y"))
    ]
    file.write_text(
        'networks: {internet: {prefixes: [192.0.2.0/24, "2001:db8::/64"]}, x: {prefixes: ["fd00:1::/64"]}, '
        'y: {prefixes: ["fd00:2::/64"]}}\n'
        f"nodes: {{r: {routers[0]}, s: {routers[1]}, a: {{links: {{x: auto}}}}, b: {{links: {{y: auto}}}}, "
        "server: {links: {internet: auto}}}\n"
    )
    topology = load_topology(file)
    assert list(partition(topology, "a", "server", "t")) == ["a", "server"]
    with pytest.raises(UsageError, match="NAT hides a and b from each other"):
        partition(topology, "a", "b", "t")


def test_sides_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        "networks: {lan: {prefixes: [192.0.2.0/24]}}\n"
        "nodes: {a: {links: {lan: auto}}, lan: {links: {lan: auto}}, c: {}}\n"
    )
    topology = load_topology(file)
    for one, why in [
        ("lan", "'lan' is a node and a network of this lab"),
        ("c", "c has no address, so nothing passes to or from it"),
        ("d", "no node or network is called 'd'"),
    ]:
        with pytest.raises(UsageError, match=why):
            partition(topology, "a", one, "t")


def test_islands_need_no_nat_to_be_apart(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        "networks: {one: {prefixes: [192.0.2.0/24]}, two: {prefixes: [198.51.100.0/24]}}\n"
        "nodes: {a: {links: {one: auto}}, b: {links: {two: auto}}}\n"
    )
    assert list(partition(load_topology(file), "a", "b", "t")) == ["a", "b"]
