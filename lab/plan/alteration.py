"""What changes in a running lab as its topology changes: the difference of two plans, in steps that can be undone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from lab.plan.step import AddAddress, AddRoute, ConnectToSwitch, LoadRuleset, Plan, ShareFile, StartService


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Take an address from an interface."""

    added: AddAddress


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Take a route away."""

    added: AddRoute


@dataclass(frozen=True, slots=True)
class Plug:
    """Plug a node's link into a switch, whatever it was plugged into before; the node sees its carrier go and come."""

    link: ConnectToSwitch


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Give one node a content of its own for a file that it shared with others."""

    node: str
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Start a service of the lab's own anew, with other files."""

    start: StartService


Change = RemoveAddress | RemoveRoute | Plug | AddAddress | AddRoute | WriteFile | LoadRuleset | Reconfigure


@dataclass(frozen=True, slots=True)
class Alteration:
    """A change and what undoes it."""

    do: Change
    undo: Change


_S = TypeVar("_S", AddAddress, AddRoute, ConnectToSwitch, LoadRuleset, ShareFile, StartService)


def alterations(before: Plan, after: Plan) -> list[Alteration]:
    """What leads from one plan to the other, in order; the two have the same nodes and interfaces.

    An interface that changes loses all its routes first and its addresses, the last one first, and gets the new ones at
    the end: the kernel takes routes away with the address they need, and other addresses with the first of a prefix.
    """
    plugs = _changed_links(before, after)
    touched = {(old.node, old.index) for old, _ in plugs}
    touched |= {(step.node, step.index) for step in set(_of(before, AddAddress)) ^ set(_of(after, AddAddress))}
    old_addresses, new_addresses = (_on(touched, _of(plan, AddAddress)) for plan in (before, after))
    old_routes, new_routes = _of(before, AddRoute), _of(after, AddRoute)
    kept = set(old_routes) & set(new_routes)
    return [
        *(Alteration(RemoveRoute(r), r) for r in old_routes if r not in kept or (r.node, r.index) in touched),
        *(Alteration(RemoveAddress(a), a) for a in reversed(old_addresses)),
        *(Alteration(Plug(new), Plug(old)) for old, new in plugs),
        *(Alteration(a, RemoveAddress(a)) for a in new_addresses),
        *(Alteration(r, RemoveRoute(r)) for r in new_routes if r not in kept or (r.node, r.index) in touched),
        *_files(before, after),
        *_rulesets(before, after),
        *_services(before, after),
    ]


def _changed_links(before: Plan, after: Plan) -> list[tuple[ConnectToSwitch, ConnectToSwitch]]:
    old = {step.port_index: step for step in _of(before, ConnectToSwitch)}
    return [(old[new.port_index], new) for new in _of(after, ConnectToSwitch) if old[new.port_index] != new]


def _files(before: Plan, after: Plan) -> list[Alteration]:
    old, new = (
        {(node, step.path): step.text for step in _of(plan, ShareFile) for node in step.nodes}
        for plan in (before, after)
    )
    return [
        Alteration(WriteFile(*place, text), WriteFile(*place, old[place]))
        for place, text in new.items()
        if old[place] != text
    ]


def _rulesets(before: Plan, after: Plan) -> list[Alteration]:
    old = {(step.node, step.program): step for step in _of(before, LoadRuleset)}
    return [
        Alteration(_in_place_of(was, step), _in_place_of(step, was))
        for step in _of(after, LoadRuleset)
        if (was := old[step.node, step.program]) != step
    ]


def _in_place_of(old: LoadRuleset, new: LoadRuleset) -> LoadRuleset:
    """In one transaction the old text's tables away and those of the new one in, as iptables-restore does by itself."""
    if new.program != "nft":
        return new
    tables = re.findall(r"^table \S+ \S+", old.text, re.MULTILINE)
    return LoadRuleset(new.node, "".join(f"{table}\ndelete {table}\n" for table in tables) + new.text)


def _services(before: Plan, after: Plan) -> list[Alteration]:
    old = {(step.node, step.service): step for step in _of(before, StartService)}
    return [
        Alteration(Reconfigure(step), Reconfigure(old[step.node, step.service]))
        for step in _of(after, StartService)
        if old[step.node, step.service] != step
    ]


def _of(plan: Plan, kind: type[_S]) -> list[_S]:
    return [step for step in plan.steps if isinstance(step, kind)]


def _on(touched: set[tuple[str, int]], steps: list[AddAddress]) -> list[AddAddress]:
    return [step for step in steps if (step.node, step.index) in touched]
