"""Folding: only nodes that look the same, in a row of numbers, and that nothing else points at."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab.draw.fold import fold
from lab.topology.model import Node, PortForward, Protocol
from tests.draw import samples

LAN = samples.network("lan", "10.20.0.0/16")


def guests(*numbers: int | str) -> list[Node]:
    return [samples.node(f"guest-{n}", {"lan": [f"10.20.0.{i + 1}/16"]}) for i, n in enumerate(numbers)]


def names(nodes: list[Node]) -> list[list[str]]:
    return [[node.name for node in group.nodes] for group in fold(samples.topology("t", [LAN], nodes))]


def test_three_in_a_row_are_folded_and_two_are_not() -> None:
    assert names(guests(1, 2, 3)) == [["guest-1", "guest-2", "guest-3"]]
    assert names(guests(1, 2)) == [["guest-1"], ["guest-2"]]


def test_order_is_by_number_and_a_gap_parts() -> None:
    assert names(guests(10, 9, 8, 2, 1, 3)) == [["guest-8", "guest-9", "guest-10"], ["guest-1", "guest-2", "guest-3"]]


def test_a_number_with_a_zero_in_front_is_a_name() -> None:
    assert names(guests("01", "02", "03")) == [["guest-01"], ["guest-02"], ["guest-03"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda node: replace(node, services=(samples.service("web", "tcp/80"),)),
        lambda node: replace(node, interfaces=()),
        lambda node: replace(node, image="other"),
        lambda node: replace(node, firewall=samples.node("x", {}, wall=True).firewall),
        lambda node: samples.node(node.name, {"lan": ["10.20.0.9/16"]}, router=True),
    ],
    ids=["services", "links", "image", "firewall", "role"],
)
def test_a_node_that_looks_different_stands_alone(change: object) -> None:
    assert callable(change)
    nodes = guests(1, 2, 3, 4)
    assert names([*nodes[:3], change(nodes[3])]) == [["guest-1", "guest-2", "guest-3"], ["guest-4"]]


def test_the_target_of_a_tunnel_stands_alone() -> None:
    nas = samples.node("nas", {}, samples.service("tunnel", tunnel=("guest-4", 80)))
    assert names([*guests(1, 2, 3, 4), nas]) == [["guest-1", "guest-2", "guest-3"], ["guest-4"], ["nas"]]


def test_the_target_of_a_port_forward_stands_alone() -> None:
    forward = PortForward(Protocol.TCP, 80, IPv4Address("10.20.0.4"), 80)
    gate = samples.node("gate", {"lan": ["10.20.0.9/16"]}, nat="lan", forwards=[forward])
    assert names([*guests(1, 2, 3, 4), gate]) == [["guest-1", "guest-2", "guest-3"], ["guest-4"], ["gate"]]
