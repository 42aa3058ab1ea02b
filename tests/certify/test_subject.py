"""Which routers are certified, and who comes to do it: room for the probes, and no clash with the lab's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_interface
from typing import Any

import pytest

from lab.certify import bench, probing
from lab.certify.certificate import Verdict
from lab.certify.certify import certify_nat
from lab.certify.subject import INSIDE_ADDRESSES, guests, subject, subjects
from lab.errors import UsageError
from lab.plan.facts import facts
from lab.plan.step import AddAddress, AddRoute, CreateNode
from lab.realise.growth import grow
from lab.realise.lab import Lab
from lab.topology.load import load_topology

TOPOLOGY = """
networks:
  internet: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"]}
  access: {prefixes: [100.64.0.0/24]}
  home: {prefixes: [192.168.1.0/24]}
  den: {prefixes: [192.168.2.0/29]}
  dual: {prefixes: [192.168.3.0/24, "2001:db8:3::/64"]}
  tight: {prefixes: [10.0.0.0/30], point_to_point: true}
nodes:
  isp: {role: router, links: {internet: auto, access: 100.64.0.1}, nat: {outside: internet}}
  house: {role: router, links: {access: auto, home: 192.168.1.1}, nat: {outside: access}}
  small: {role: router, links: {internet: auto, den: 192.168.2.1}, nat: {outside: internet}}
  modern: {role: router, links: {internet: auto, dual: 192.168.3.1}, nat: {outside: internet}}
  wired: {role: router, links: {internet: auto, tight: 10.0.0.1}, nat: {outside: internet}}
  plain: {role: router, links: {internet: auto, dual: auto}}
  pc: {links: {tight: 10.0.0.2}}
"""
NO_ROOM = (
    "no room for the probes: network tight (10.0.0.0/30) has too few free addresses; "
    "they need two on the router's inside and two on its outside"
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("topology") / "t.yaml"
    file.write_text(TOPOLOGY)
    return facts(load_topology(file))


def test_without_names_all_routers_with_nat_are_meant(known: dict[str, Any]) -> None:
    found = subjects(known)
    assert [each.router for each in found] == ["isp", "house", "small", "modern", "wired"]
    assert [(each.inside, each.outside) for each in found[:2]] == [("access", "internet"), ("home", "access")]
    assert all(each.declared is not None for each in found)
    assert [each.router for each in subjects(known, ["house", "house"])] == ["house"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("plain", "'plain' has no `nat`; routers with NAT: isp, house"), ("hous", "is no node of this lab")],
)
def test_others_are_refused(known: dict[str, Any], name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        subjects(known, [name])


def test_a_router_by_hand_needs_both_sides(known: dict[str, Any]) -> None:
    assert subject(known, "plain", "internet").inside == "dual"
    with pytest.raises(UsageError, match="plain has no IPv4 address on home"):
        subject(known, "plain", "home")
    with pytest.raises(UsageError, match="pc has no IPv4 address on its inside"):
        subject(known, "pc", "tight")
    with pytest.raises(UsageError, match="no node 'ghost'"):
        subject(known, "ghost", "internet")


def made(known: dict[str, Any], *names: str, seed: int = 1) -> tuple[list[Any], dict[str, Any]]:
    return guests(known, subjects(known, names), seed)


def test_no_address_is_given_twice_and_routers_of_one_outside_share_an_observer(known: dict[str, Any]) -> None:
    steps, who = made(known, "isp", "house", "small", "modern")
    addresses = [(step.node, step.address) for step in steps if isinstance(step, AddAddress)]
    own = {a for node in known["nodes"] for link in node["interfaces"] for a in link["addresses"]}
    assert len({address for _, address in addresses} | own) == len(addresses) + len(own)
    assert who["isp"].observer == who["small"].observer != who["house"].observer
    nodes = [step.node for step in steps if isinstance(step, CreateNode)]
    assert len(nodes) == len(set(nodes)) == 2 + 4 * 2
    assert not set(nodes) & {node["name"] for node in known["nodes"]}


def test_the_probes_go_out_by_the_router(known: dict[str, Any]) -> None:
    steps, who = made(known, "modern")
    routes = {(step.node, step.destination, step.via) for step in steps if isinstance(step, AddRoute)}
    modern = next(node for node in known["nodes"] if node["name"] == "modern")
    outside6, inside6 = (str(ip_interface(link["addresses"][1]).ip) for link in modern["interfaces"])
    assert (who["modern"].first, "0.0.0.0/0", "192.168.3.1") in routes
    assert (who["modern"].first, "::/0", inside6) in routes
    assert (who["modern"].observer, "2001:db8:3::/64", outside6) in routes
    assert who["modern"].first6 is not None
    assert made(known, "isp")[1]["isp"].first6 is None


def test_a_small_network_takes_fewer_addresses_and_a_full_one_is_refused(known: dict[str, Any]) -> None:
    assert len(made(known, "isp")[1]["isp"].first_addresses) == INSIDE_ADDRESSES
    assert len(made(known, "small")[1]["small"].first_addresses) == 3
    with pytest.raises(UsageError, match=re.escape(NO_ROOM)):
        made(known, "wired")


def test_addresses_differ_from_one_certificate_to_the_next(known: dict[str, Any]) -> None:
    found = {a for seed in range(8) for a in made(known, "house", seed=seed)[1]["house"].first_addresses}
    assert len(found) == 8 * INSIDE_ADDRESSES
    assert made(known, "house", seed=3)[1] == made(known, "house", seed=3)[1]


@pytest.mark.alone
def test_two_certifiers_do_not_disturb_each_other(module_up: Callable[..., Lab]) -> None:
    lab = module_up(TOPOLOGY)
    steps, _ = made(lab.facts, "house")
    with grow(lab, steps), pytest.raises(UsageError, match=r"has a node 'nat\.observer\.access' already"):
        certify_nat(lab, ["house"], patience=0.1)
    (again,) = certify_nat(lab, ["house"], patience=0.1)
    assert again.row("mapping").measured == "endpoint_independent"


@pytest.mark.alone
def test_a_router_without_room_keeps_no_other_from_its_certificate(module_up: Callable[..., Lab]) -> None:
    lab = module_up(TOPOLOGY)
    found = {each.router: each for each in certify_nat(lab, patience=0.1)}
    assert list(found) == ["isp", "house", "small", "modern", "wired"]
    assert found["wired"].failures == (NO_ROOM,)
    assert {row.verdict for row in found["wired"].rows} == {Verdict.NOT_MEASURED}
    for router in ("isp", "house", "small", "modern"):
        assert found[router].failures == ()
        assert found[router].row("mapping").verdict is Verdict.HOLDS
    with pytest.raises(UsageError, match=re.escape(NO_ROOM)):
        certify_nat(lab, ["wired"], patience=0.1)


NARROW = """
networks:
  internet: {prefixes: [198.51.100.0/24]}
  line: {prefixes: [100.64.0.0/29], point_to_point: true}
  home: {prefixes: [192.168.1.0/24]}
nodes:
  carrier: {role: router, links: {internet: auto, line: auto}, nat: {outside: internet}}
  house: {role: router, links: {line: auto, home: auto}, nat: {outside: line}}
"""


@pytest.mark.alone
@pytest.mark.parametrize("named", [(), ("house", "carrier")])
def test_routers_without_room_beside_each_other_are_measured_one_after_the_other(
    module_up: Callable[..., Lab], named: tuple[str, ...]
) -> None:
    found = certify_nat(module_up(NARROW), named, patience=0.1)
    assert [each.router for each in found] == list(named or ("carrier", "house"))
    assert [(each.failures, each.row("mapping").verdict) for each in found] == [((), Verdict.HOLDS)] * 2


@pytest.mark.alone
def test_a_certificate_leaves_nothing_behind_and_can_be_had_again_at_once(module_up: Callable[..., Lab]) -> None:
    """Sessions that the first left in the NAT count against no inside address of the second."""
    topology = TOPOLOGY.replace("nat: {outside: access}", "nat: {outside: access, sessions: 100}")
    lab = module_up(topology)
    for _ in range(3):
        (found,) = certify_nat(lab, ["house"], patience=0.2)
        assert found.row("sessions of one host").measured == "100"
        assert found.is_as_declared
    with closing(Lab(lab.name)) as again:
        assert set(lab.nodes) == set(again.nodes)


@pytest.mark.alone
def test_routers_beside_each_other_are_told_apart_where_all_numbers_are_the_same(
    module_up: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their probes ping one observer."""
    lab = module_up(TOPOLOGY.replace("nat: {outside: internet}", "nat: {outside: internet, timers: {icmp: 1s}}"))
    monkeypatch.setattr(bench, "_FIRST_PORTS", 1)
    for each in certify_nat(lab, ["isp", "small", "modern"], patience=1.5):
        row = each.row("ICMP timer")
        assert (row.verdict, row.measured, row.why) == (Verdict.HOLDS, row.measured, "")


def test_no_probe_has_the_port_of_a_peer_or_of_a_forward(
    module_up: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger at a peer's own endpoint would take for an answer what others say to that peer."""
    monkeypatch.setattr(probing, "_PEER_PORTS", 2)
    others = {probing._FIRST_PEER_PORT, probing._FIRST_PEER_PORT + 1, probing._FIRST_PEER_PORT + 2}
    monkeypatch.setattr(bench, "_FIRST_PORT", min(others) - 3)
    monkeypatch.setattr(bench, "_FIRST_PORTS", 1)
    given: list[int] = []
    port = bench.Bench.port

    def told(self: bench.Bench) -> int:
        given.append(port(self))
        return given[-1]

    monkeypatch.setattr(bench.Bench, "port", told)
    forwards = f"forwards: [{{udp: {max(others)}, to: 'pi:51820'}}]"
    topology = TOPOLOGY.replace("{outside: access}", f"{{outside: access, {forwards}}}")
    certify_nat(module_up(topology + "  pi: {links: {home: auto}}\n"), ["house"], patience=0.1)
    assert min(given) < min(others) < max(others) < max(given)
    assert not others & set(given)


def blocks(outside_ports: str) -> str:
    return f"""
networks: {{internet: {{prefixes: [198.51.100.0/24]}}, access: {{prefixes: [100.64.0.0/24]}}}}
nodes:
  isp:
    role: router
    links: {{internet: auto, access: auto}}
    nat: {{outside: internet, preset: cgnat, port_block: 1000, ports: {{range: {outside_ports}}}}}
  subscriber: {{links: {{access: auto}}}}
  server: {{links: {{internet: 198.51.100.9}}}}
"""


@pytest.mark.alone
def test_the_probes_leave_their_blocks_of_ports_to_the_hosts_of_the_lab(module_up: Callable[..., Lab]) -> None:
    """Eight addresses would take eight blocks, of which there are four."""
    lab = module_up(blocks("1001-5000"))
    (found,) = certify_nat(lab, patience=0.1)
    assert found.failures == ()
    assert found.is_as_declared
    with lab["server"].udp(7000) as server, lab["subscriber"].udp() as client:
        client.sendto(b"is there a block for me?", ("198.51.100.9", 7000))
        assert server.recv(100) == b"is there a block for me?"
    full = module_up(blocks("1001-3000"))
    with pytest.raises(UsageError, match="1 of isp's 2 blocks of ports are for hosts of the lab; they need two"):
        certify_nat(full, ["isp"], patience=0.1)
