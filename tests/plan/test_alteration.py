"""The difference of two plans: nothing for the same, else what leads from one to the other and, undone, back."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.plan.alteration import (
    Alteration,
    Change,
    Plug,
    Reconfigure,
    RemoveAddress,
    RemoveRoute,
    WriteFile,
    alterations,
)
from lab.plan.build import build
from lab.plan.roaming import moved, renumbered, rerouted
from lab.plan.step import AddAddress, AddRoute, ConnectToSwitch, LoadRuleset, Plan, ShareFile
from lab.topology.load import load_topology
from lab.topology.model import Topology

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "topologies", ROOT / "tests" / "topology" / "valid")
FILES = [file for folder in FOLDERS for file in sorted(folder.glob("*.yaml"))]


@pytest.fixture(scope="module")
def homelab() -> Topology:
    return load_topology(ROOT / "topologies" / "homelab.yaml")


def test_there_are_topologies() -> None:
    assert len(FILES) >= 10


@pytest.mark.parametrize("path", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_routes_worked_out_anew_are_the_same_while_nothing_moves(path: Path) -> None:
    topology = load_topology(path)
    assert rerouted(topology, topology) == topology
    assert alterations(build(topology), build(topology)) == []


def state(plan: Plan) -> set[object]:
    """What a lab has that was built by the plan, as far as it may change."""
    return {
        *(step for step in plan.steps if isinstance(step, AddAddress | AddRoute | ConnectToSwitch)),
        *((n, s.path, s.text) for s in plan.steps if isinstance(s, ShareFile) for n in s.nodes),
        *((s.node, s.program, s.text) for s in plan.steps if isinstance(s, LoadRuleset)),
    }


def done(before: set[object], changes: list[Change]) -> set[object]:
    now = set(before)
    for change in changes:
        match change:
            case AddAddress() | AddRoute():
                assert change not in now
                now.add(change)
            case RemoveAddress(added) | RemoveRoute(added):
                now.remove(added)
            case Plug(link):
                now = {s for s in now if getattr(s, "port_index", None) != link.port_index} | {link}
            case WriteFile():
                now = {s for s in now if not (isinstance(s, tuple) and s[:2] == (change.node, change.path))}
                now.add((change.node, change.path, change.text))
            case LoadRuleset():
                now = {s for s in now if not (isinstance(s, tuple) and s[:2] == (change.node, change.program))}
                added_text = change.text.partition("\ndelete table inet lab\n")[2] or change.text
                now.add((change.node, change.program, added_text))
            case Reconfigure():
                pass
    return now


@pytest.mark.parametrize("change", ["moved", "renumbered"])
def test_the_steps_lead_from_one_plan_to_the_other_and_undone_backwards_to_the_first(
    homelab: Topology, change: str
) -> None:
    after = moved(homelab, homelab, "laptop", "cafe-lan") if change == "moved" else renumbered(homelab, homelab, "isp")
    steps = alterations(build(homelab), build(after))
    assert len(steps) >= 5
    there = done(state(build(homelab)), [step.do for step in steps])
    assert there == state(build(after))
    assert done(there, [step.undo for step in reversed(steps)]) == state(build(homelab))


def test_an_interface_loses_its_last_address_first_and_its_routes_before(homelab: Topology) -> None:
    after = moved(homelab, homelab, "laptop", "cafe-lan")
    kinds = [kind(step) for step in alterations(build(homelab), build(after)) if "laptop" in str(step.do)]
    assert kinds[:7] == ["RemoveRoute"] * 2 + ["RemoveAddress"] * 2 + ["Plug", "AddAddress", "AddRoute"]
    gone = [s.do.added.address for s in alterations(build(homelab), build(after)) if isinstance(s.do, RemoveAddress)]
    assert gone == ["2001:db8:10::2/64", "192.168.1.2/24"]


def kind(step: Alteration) -> str:
    return type(step.do).__name__


def test_a_ruleset_takes_the_place_of_the_old_one_in_one_transaction(homelab: Topology) -> None:
    (change,) = [
        step.do
        for step in alterations(build(homelab), build(renumbered(homelab, homelab, "home-router")))
        if isinstance(step.do, LoadRuleset)
    ]
    assert change.text.startswith("table inet lab\ndelete table inet lab\ntable inet lab {\n")
    assert "100.64.0.3" in change.text
    assert "100.64.0.2" not in change.text


def test_natbox_is_told_its_new_address(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        "networks: {out: {prefixes: [198.51.100.0/24]}, in: {prefixes: [10.0.0.0/24]}}\n"
        "nodes: {r: {role: router, links: {out: auto, in: auto}, nat: {outside: out, preset: full_cone}}}\n"
    )
    topology = load_topology(file)
    steps = alterations(build(topology), build(renumbered(topology, topology, "r")))
    (service,) = [step.do.start for step in steps if isinstance(step.do, Reconfigure)]
    assert "198.51.100.2" in service.files[0][1]
    (rules,) = [step.do for step in steps if isinstance(step.do, LoadRuleset) and step.do.program != "nft"]
    assert "-d 198.51.100.2" in rules.text
