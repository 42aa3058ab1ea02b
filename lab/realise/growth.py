"""Nodes added to a running lab for a while: probes that want a place of their own in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lab.plan.encoding import to_json
from lab.plan.step import AddAddress, ConnectToSwitch, CreateNode, Plan, Step
from lab.realise.asking import ask
from lab.realise.node import Node

if TYPE_CHECKING:
    from lab.realise.lab import Lab


@contextlib.contextmanager
def grow(lab: Lab, steps: Sequence[Step]) -> Iterator[dict[str, Node]]:
    """Do these steps in a running lab and give the new nodes by name; they are gone after the ``with`` block.

    They are gone too when this process ends, however it does. The lab's other clients do not see them among its nodes.

    Raises:
        UsageError: a step that has no place in a running lab, or a node that it has already.
        LabError: a step failed; the lab is as it was.
    """
    with lab.connection() as channel:
        ask(channel, {"ask": "grow", "plan": to_json(Plan(lab.name, tuple(steps)))})
        yield {step.node: Node(lab, _facts(step.node, steps)) for step in steps if isinstance(step, CreateNode)}


def _facts(node: str, steps: Sequence[Step]) -> dict[str, object]:
    """As those of the lab's own nodes, as far as a node without services has them."""
    addresses = [step for step in steps if isinstance(step, AddAddress) and step.node == node]
    return {
        "name": node,
        "role": "host",
        "interfaces": [
            {
                "name": link.interface,
                "network": link.network,
                "mac": link.mac,
                "addresses": [step.address for step in addresses if step.interface == link.interface],
            }
            for link in steps
            if isinstance(link, ConnectToSwitch) and link.node == node
        ],
        "services": [],
        "forwards": [],
    }
