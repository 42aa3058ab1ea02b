"""Nodes for a while: they are really there, are gone with whoever asked, and a failure leaves nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab.errors import RealiseError, UsageError
from lab.plan.guest import guest
from lab.plan.step import AddRoute, CreateNode, CreateSwitch, Step
from lab.realise.asking import wait_until
from lab.realise.growth import grow
from lab.realise.lab import Lab
from tests.realise.conftest import Up, has_node

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
networks:
  lan: {prefixes: [192.0.2.0/29, "2001:db8::/64"]}
  far: {prefixes: [198.51.100.0/24]}
  wire: {prefixes: [10.0.0.0/29], point_to_point: true}
nodes:
  r: {role: router, links: {lan: 192.0.2.6, far: auto, wire: auto}}
  a: {links: {lan: auto}}
  b: {links: {far: auto}}
  c: {links: {wire: auto}}
"""


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    return module_up(TOPOLOGY)


def ping(lab: Lab, node: str, address: str) -> int:
    return lab[node].run(["ping", "-c1", "-w20", address]).returncode


def test_a_guest_takes_the_highest_free_addresses_and_reaches_beyond_its_router(lab: Lab) -> None:
    steps = guest(lab.facts, "probe", "lan", addresses=2, via=["192.0.2.6", lab["r"].address("lan", 6)])
    with grow(lab, steps) as nodes:
        probe = nodes["probe"]
        assert [str(each) for each in probe.addresses() if each.version == 4] == ["192.0.2.5/29", "192.0.2.4/29"]
        assert probe.run(["ping", "-c1", "-w20", lab["b"].address()]).returncode == 0
        assert ping(lab, "a", probe.address(version=6)) == 0
        assert "probe" not in lab.nodes


def test_a_guest_may_join_a_cable(lab: Lab) -> None:
    with grow(lab, guest(lab.facts, "probe", "wire")) as nodes:
        assert nodes["probe"].run(["ping", "-c1", "-w20", lab["c"].address()]).returncode == 0


def test_guests_are_gone_after_the_block_with_interface_and_address(lab: Lab) -> None:
    with grow(lab, guest(lab.facts, "probe", "lan")) as nodes:
        address = nodes["probe"].address()
        assert ping(lab, "a", address) == 0
    wait_until(lambda: not has_node(lab, "probe"), 30, "the guest is gone")
    assert lab["a"].run(["ping", "-c1", "-W2", address]).returncode != 0
    with grow(lab, guest(lab.facts, "probe", "lan")) as again:  # name, port and address are free
        assert again["probe"].address() == address


def test_guests_are_gone_when_their_owner_is_killed(lab: Lab) -> None:
    program = (
        "import sys, os, signal\n"
        "from lab.realise.lab import Lab\nfrom lab.realise.growth import grow\nfrom lab.plan.guest import guest\n"
        "lab = Lab(sys.argv[1])\n"
        "with grow(lab, guest(lab.facts, 'orphan', 'lan')):\n"
        "    lab.ask({'ask': 'bound', 'node': 'orphan', 'protocol': 'tcp', 'port': 1, 'address': ''})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, lab.name], check=False)
    assert ended.returncode == -9
    wait_until(lambda: not has_node(lab, "orphan"), 30, "the guest is gone")


def test_a_step_that_fails_leaves_nothing(lab: Lab) -> None:
    steps = [*guest(lab.facts, "probe", "lan"), AddRoute("probe", "0.0.0.0/0", "203.0.113.1", "lan", 101)]
    with pytest.raises(RealiseError, match=r"203\.0\.113\.1"), grow(lab, steps):
        pass
    assert not has_node(lab, "probe")
    with grow(lab, guest(lab.facts, "probe", "lan")):
        assert has_node(lab, "probe")


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([CreateNode("a", ())], "has a node 'a' already"),
        ([CreateNode("fabric", ())], "has a node 'fabric' already"),
        ([CreateSwitch("more", 1, 1500, cable=False)], "no place in a running lab"),
    ],
)
def test_what_the_lab_has_already_or_cannot_grow_is_refused(lab: Lab, steps: list[Step], why: str) -> None:
    with pytest.raises(UsageError, match=why), grow(lab, steps):
        pass
    assert ping(lab, "b", lab["a"].address()) == 0


def test_a_prefix_without_enough_free_addresses_is_refused(lab: Lab) -> None:
    with pytest.raises(UsageError, match=r"network lan has no 9 free addresses left in 192\.0\.2\.0/29"):
        guest(lab.facts, "probe", "lan", addresses=9)
    with pytest.raises(UsageError, match="no network 'lam' in this lab"):
        guest(lab.facts, "probe", "lam")
