"""Nodes for a while that cannot be: whatever a client asks to grow, the lab stays whole and keeps nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError, UsageError
from lab.plan.build import FIRST_SWITCH_INDEX
from lab.plan.guest import guest
from lab.plan.step import AddAddress, ConnectToSwitch, CreateNode, LoadRuleset, SetSysctls, ShareFile, Step
from lab.realise import registry
from lab.realise.asking import ask, wait_until
from lab.realise.growth import grow
from lab.realise.lab import Lab
from tests.realise.conftest import Up, has_node, open_files

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
networks: {lan: {prefixes: [192.0.2.0/28]}}
nodes:
  a: {links: {lan: auto}}
  b: {links: {lan: auto}}
"""


@pytest.fixture(scope="module")
def shared(module_up: Up) -> Lab:
    lab = module_up(TOPOLOGY)
    with grow(lab, guest(lab.facts, "probe", "lan")):
        pass  # its channels to the kernel are as after any growth
    wait_until(lambda: not has_node(lab, "probe"), 30, "the guest is gone")
    return lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """A lab whose nodes, after the test, reach each other, and that can grow a guest and loses it again."""
    shared.services()
    before = open_files(shared)
    yield shared
    assert shared["a"].run(["ping", "-c1", "-w20", shared["b"].address()]).returncode == 0
    with grow(shared, guest(shared.facts, "probe", "lan")) as nodes:
        assert nodes["probe"].run(["hostname"]).stdout == "probe\n"
        assert nodes["probe"].run(["ping", "-c1", "-w20", shared["b"].address()]).returncode == 0
    wait_until(lambda: open_files(shared) <= before, 30, f"the supervisor holds {before} open files again")


def link_of(steps: list[Step]) -> ConnectToSwitch:
    return next(step for step in steps if isinstance(step, ConnectToSwitch))


def test_a_guest_with_the_port_of_another_does_not_unplug_it(lab: Lab) -> None:
    """The failure of the second must not take away what the first has."""
    with grow(lab, guest(lab.facts, "first", "lan")) as nodes:
        taken = link_of(guest(lab.facts, "first", "lan"))
        second = guest(lab.facts, "second", "lan", taken=[nodes["first"].address()])
        steps = [replace(step, port_index=taken.port_index) if step is link_of(second) else step for step in second]
        with pytest.raises(LabError), grow(lab, steps):
            pass
        assert nodes["first"].run(["ping", "-c1", "-w20", lab["b"].address()]).returncode == 0


def test_a_guest_with_the_port_of_a_node_does_not_unplug_it(lab: Lab) -> None:
    steps = guest(lab.facts, "probe", "lan")
    index = port_of(lab, "a")
    steps = [replace(step, port_index=index) if step is link_of(steps) else step for step in steps]
    with pytest.raises(LabError), grow(lab, steps):
        pass


def port_of(lab: Lab, node: str) -> int:
    """The index of the other end of a node's first interface, as the kernel tells it."""
    said = lab[node].run(["ip", "-json", "link", "show", "dev", "lan"], check=True).stdout
    return int(json.loads(said)[0]["link_index"])


@pytest.mark.parametrize(
    "step",
    [
        AddAddress("a", "lan", 101, "192.0.2.9/28"),
        LoadRuleset("a", "table inet grown {}\n"),
        SetSysctls("a", (("net.ipv4.ip_forward", "1"),)),
        ShareFile(("a",), "/etc/hosts", ""),
        CreateNode("probe", ()),
        CreateNode("../probe", ()),
        CreateNode("", ()),
        CreateNode("p\0robe", ()),
    ],
)
def test_growth_is_of_new_nodes_alone(lab: Lab, step: Step) -> None:
    with pytest.raises(UsageError), grow(lab, [*guest(lab.facts, "probe", "lan"), step]):
        pass
    assert "192.0.2.9" not in lab["a"].run(["ip", "address"]).stdout
    assert "grown" not in lab["a"].run(["nft", "list", "ruleset"]).stdout


LINK: dict[str, Any] = {
    "step": "ConnectToSwitch",
    "node": "odd",
    "interface": "lan",
    "index": 101,
    "mac": "06:00:00:00:00:01",
    "mtu": 1500,
    "network": "lan",
    "switch_index": FIRST_SWITCH_INDEX,
    "port": "odd",
    "port_index": 1_600_000_000,
}
NODE = {"step": "CreateNode", "node": "odd", "sysctls": []}


@pytest.mark.parametrize(
    "steps",
    [
        7,
        [7],
        ["CreateNode"],
        [[NODE]],
        [{"step": "NoSuchStep"}],
        [{"step": ["CreateNode"]}],
        [{"step": "CreateNode"}],
        [NODE | {"node": 7}],
        [NODE | {"node": ["odd"]}],
        [NODE | {"node": "n" * 300}],
        [NODE | {"sysctls": 7}],
        [NODE | {"sysctls": [["no.such.sysctl", "1"]]}],
        [NODE | {"sysctls": [["net.ipv4.ip_forward", 1]]}],
        [NODE | {"sysctls": [["../../etc/passwd", "1"]]}],
        [NODE, NODE],
        *(
            [NODE, LINK | wrong]
            for wrong in (
                {"port_index": "x"},
                {"port_index": -1},
                {"port_index": 1 << 70},
                {"port_index": None},
                {"index": "x"},
                {"index": 1 << 40},
                {"mac": "no mac"},
                {"mac": 7},
                {"mtu": -1},
                {"mtu": "1500"},
                {"mtu": 1 << 33},
                {"interface": "i" * 20},
                {"interface": ""},
                {"interface": None},
                {"port": "p" * 100},
                {"port": ["p"]},
                {"switch_index": 999_999},
                {"switch_index": "1"},
            )
        ),
        [NODE, LINK, {"step": "AddAddress", "node": "odd", "interface": "lan", "index": 101, "address": "nonsense"}],
        [
            NODE,
            LINK,
            {"step": "AddAddress", "node": "odd", "interface": "lan", "index": "x", "address": "192.0.2.9/28"},
        ],
        [NODE, {"step": "LoadRuleset", "node": "odd", "text": "nonsense"}],
        [NODE, {"step": "LoadRuleset", "node": "odd", "text": 7}],
        [NODE, {"step": "LoadRuleset", "node": "odd", "text": "", "program": "rm"}],
        [NODE, {"step": "ShareFile", "nodes": ["odd"], "path": "/etc/hosts", "text": 7}],
        [{"step": "ShareFile", "nodes": ["odd"], "path": "/no/such/file", "text": ""}, NODE],
    ],
)
def test_steps_of_the_wrong_kind_are_refused_and_leave_nothing(lab: Lab, steps: Any) -> None:
    """The same name can be grown afterwards, whatever was done of the first."""
    with lab.connection() as channel, pytest.raises((LabError, OSError)):
        ask(channel, {"ask": "grow", "plan": json.dumps({"name": lab.name, "steps": steps})})
    with grow(lab, guest(lab.facts, "odd", "lan")) as nodes:
        assert nodes["odd"].run(["hostname"]).stdout == "odd\n"


@pytest.mark.parametrize("kind", ["kill", "pause", "restart"])
def test_a_guest_has_no_faults(lab: Lab, kind: str) -> None:
    """They would outlive it, and nothing could heal them."""
    with grow(lab, guest(lab.facts, "visitor", "lan")), pytest.raises(UsageError, match="visitor"):
        lab.ask({"ask": "fault", "kind": kind, "targets": ["visitor"], "seconds": None})
    assert lab.fault.in_force() == []
    lab.heal()


def test_growing_and_leaving_many_times_keeps_nothing(lab: Lab) -> None:
    """Two hundred guests; the fixture counts the open files, `interfaces` the ports."""
    before = interfaces(lab)
    for number in range(200):
        with grow(lab, guest(lab.facts, f"passer{number % 7}", "lan")):
            pass
    wait_until(lambda: interfaces(lab) <= before, 60, f"the lab has {before} ports again")


def interfaces(lab: Lab) -> int:
    """How many interfaces the fabric has: the namespace that the supervisor's first thread does not leave for long."""
    supervisor = registry.supervisor_of(lab._channel)
    lab.link("lan")  # looks at the ports there
    return len(Path(f"/proc/{supervisor}/net/dev").read_text().splitlines())
