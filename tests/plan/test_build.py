"""What holds for every plan: complete, in an order that works, names and numbers unique, always the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.plan.build import build
from lab.plan.step import (
    AddAddress,
    AddRoute,
    ConnectToSwitch,
    CreateCertificates,
    CreateMeshKeys,
    CreateNode,
    CreateSshKeys,
    CreateSwitch,
    LoadRuleset,
    Plan,
    SetInEveryNode,
    SetSysctls,
    ShareFile,
    StartService,
)
from lab.topology.load import load_topology
from lab.topology.model import Topology
from lab.topology.nat_behaviour import Engine

ROOT = Path(__file__).resolve().parents[2]
LONGEST_INTERFACE_NAME = 15  # bytes: IFNAMSIZ without its final zero (linux/if.h)
PRINT_PLAN = """
import sys
from pathlib import Path
from lab.plan.build import build
from lab.plan.encoding import to_json
from lab.topology.load import load_topology
for file in sys.argv[1:]:
    print(to_json(build(load_topology(Path(file)))))
"""


def of_kind(plan: Plan, kind: type) -> list[Any]:
    return [step for step in plan.steps if isinstance(step, kind)]


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Switches and a cable, routers and hosts, services that wait for each other in any order but a loop."""
    networks = draw(st.lists(st.sampled_from(["a", "b", "fifteen-letters"]), unique=True, min_size=1))
    written: dict[str, Any] = {name: f"{{prefixes: [10.{i}.0.0/24]}}" for i, name in enumerate(networks)}
    has_cable = draw(st.booleans())
    if has_cable:
        written["wire"] = "{prefixes: [10.9.0.0/31], point_to_point: true}"
    nodes = []
    count = draw(st.integers(2, 5))
    order = draw(st.permutations(range(count)))
    for index in range(count):
        links = draw(st.lists(st.sampled_from(networks), unique=True)) + ["wire"] * (has_cable and index < 2)
        role = draw(st.sampled_from(["host", "router"]))
        after = f", after: [n{order[order.index(index) + 1]}/s]" if order.index(index) + 1 < count else ""
        nodes.append(
            f"  n{index}: {{role: {role}, links: {{{', '.join(f'{link}: auto' for link in links)}}},"
            f" services: {{s: {{run: sleep 60{after}}}}}}}"
        )
    lines = ["networks:", *(f"  {name}: {value}" for name, value in written.items()), "nodes:", *nodes]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.yaml"
        path.write_text("\n".join(lines))
        return load_topology(path)


def ends(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Every interface in a node: node, name, index."""
    for step in plan.steps:
        if isinstance(step, ConnectToSwitch):
            yield step.node, step.interface, step.index


def check_order(plan: Plan) -> None:
    """A step names nothing that an earlier one has not made."""
    nodes: set[str] = set()
    switches: dict[str, int] = {}
    interfaces: dict[tuple[str, str], int] = {}
    started: set[str] = set()
    for step in plan.steps:
        match step:
            case ShareFile():
                assert not nodes, "a node's files must be known when it is made"
            case CreateNode():
                assert step.node not in nodes
                nodes.add(step.node)
            case CreateSwitch():
                assert step.network not in switches
                switches[step.network] = step.index
            case ConnectToSwitch():
                assert step.switch_index == switches[step.network]
                interfaces[step.node, step.interface] = step.index
            case AddAddress() | AddRoute():
                assert step.index == interfaces[step.node, step.interface]
            case SetSysctls() | LoadRuleset():
                assert step.node in nodes
            case CreateSshKeys():
                assert {name for server in step.servers for name in (server.node, *server.clients)} <= nodes
                assert not started, "keys lie ready when the first service starts"
            case CreateCertificates():
                assert {wanted.node for wanted in step.certificates} <= nodes
                assert not started
            case StartService():
                assert step.node in nodes
                assert started.issuperset(step.after)
                assert step.ready.node in nodes | {""}
                started.add(f"{step.node}/{step.service}")
    assert {node for node, _ in interfaces} <= nodes


def check_numbers(plan: Plan) -> None:
    """Interface indices are unique in each namespace, and so are names, which fit into the kernel's."""
    by_node: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for node, interface, index in ends(plan):
        by_node[node].append((interface, index))
    for found in by_node.values():
        names, indices = zip(*found, strict=True)
        assert len(set(names)) == len(names)
        assert len(set(indices)) == len(indices)
        assert min(indices) > 1  # the loopback's
        assert all(len(name.encode()) <= LONGEST_INTERFACE_NAME for name in names)
    switches, links = of_kind(plan, CreateSwitch), of_kind(plan, ConnectToSwitch)
    fabric_indices = [switch.index for switch in switches] + [link.port_index for link in links]
    assert len(set(fabric_indices)) == len(fabric_indices)
    fabric_names = [link.port for link in links]
    assert len(set(fabric_names)) == len(fabric_names)
    assert not set(fabric_names) & {switch.network for switch in switches}
    assert all(0 < len(name.encode()) <= LONGEST_INTERFACE_NAME for name in fabric_names)
    macs = [step.mac for step in links]
    assert len(set(macs)) == len(macs)


def check_complete(plan: Plan, topology: Topology) -> None:
    """All that the topology has is made, once."""
    assert plan.name == topology.name
    nodes = [node.name for node in topology.nodes]
    assert [step.node for step in of_kind(plan, CreateNode)] == nodes
    assert sorted(ends(plan)) == sorted(
        (node.name, interface.name, index)
        for node in topology.nodes
        for index, interface in enumerate(node.interfaces, 101)
    )
    assert [(step.node, step.interface, step.address) for step in of_kind(plan, AddAddress)] == [
        (node.name, link.name, str(a)) for node in topology.nodes for link in node.interfaces for a in link.addresses
    ]
    assert [(step.node, step.destination, step.via, step.interface) for step in of_kind(plan, AddRoute)] == [
        (n.name, str(route.destination), str(route.via), route.interface) for n in topology.nodes for route in n.routes
    ]
    started = [(step.node, step.service) for step in of_kind(plan, StartService)]
    wanted = [(node.name, each.name) for node in topology.nodes for each in node.services]
    nats = [(node.name, node.nat) for node in topology.nodes if node.nat]
    translating = [(name, "nat") for name, nat in nats if nat.engine is Engine.NATBOX]
    translating += [(name, "upnp") for name, nat in nats if nat.upnp]
    assert sorted(started) == sorted(wanted + translating)
    for path in ("/etc/hosts", "/etc/resolv.conf"):
        shared = [node for step in of_kind(plan, ShareFile) if step.path == path for node in step.nodes]
        assert sorted(shared) == sorted(nodes)


def test_the_plan_of_a_file_is_complete_and_in_order(file: Path) -> None:
    topology = load_topology(file)
    plan = build(topology)
    check_order(plan)
    check_numbers(plan)
    check_complete(plan, topology)


@given(topologies())
def test_any_plan_is_complete_and_in_order(topology: Topology) -> None:
    plan = build(topology)
    check_order(plan)
    check_numbers(plan)
    check_complete(plan, topology)
    assert build(topology) == plan
    assert build(replace(topology, name="other")).steps == plan.steps


def test_without_services_there_are_none_and_no_keys_for_them(file: Path) -> None:
    topology = load_topology(file)
    bare, whole = build(topology, services=False), build(topology)
    of_services = {(node.name, each.name) for node in topology.nodes for each in node.services}
    assert bare.steps == tuple(
        step
        for step in whole.steps
        if not isinstance(step, CreateSshKeys | CreateCertificates | CreateMeshKeys)
        and not (isinstance(step, StartService) and (step.node, step.service) in of_services)
    )


def test_services_without_an_order_start_as_the_file_has_them(tmp_path: Path) -> None:
    services = ", ".join(f"{name}: {{run: sleep 60}}" for name in ("c", "a", "b"))
    (tmp_path / "t.yaml").write_text(f"nodes: {{n: {{services: {{{services}}}}}}}")
    plan = build(load_topology(tmp_path / "t.yaml"))
    assert [step.service for step in of_kind(plan, StartService)] == ["c", "a", "b"]


def test_a_long_way_of_services_is_ordered_without_recursion(tmp_path: Path) -> None:
    count = 2 * sys.getrecursionlimit()
    services = [f"      s{i}: {{run: sleep 60, after: [s{i + 1}]}}" for i in range(count)]
    lines = ["nodes:", "  n:", "    services:", *services, f"      s{count}: {{run: sleep 60}}"]
    (tmp_path / "t.yaml").write_text("\n".join(lines))
    plan = build(load_topology(tmp_path / "t.yaml"))
    assert [step.service for step in of_kind(plan, StartService)] == [f"s{i}" for i in range(count, -1, -1)]


def test_the_same_file_has_the_same_plan_in_every_process(shipped: list[Path], small: list[Path]) -> None:
    argv = [sys.executable, "-c", PRINT_PLAN, *map(str, shipped + small)]
    plans = {
        subprocess.run(
            argv, env=os.environ | {"PYTHONHASHSEED": seed}, cwd=ROOT, check=True, capture_output=True, timeout=300
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(plans) == 1
    assert plans.pop().count(b"\n") == len(shipped + small)


def test_a_large_lab_keeps_its_numbers_apart(tmp_path: Path) -> None:
    lines = ["networks:", *(f"  n{i}: {{prefixes: [10.{i}.0.0/16]}}" for i in range(200))]
    lines += ["nodes:", "  gate: {role: router, links: {" + ", ".join(f"n{i}: auto" for i in range(200)) + "}}"]
    lines += ["  h: {count: 3000, links: {n0: auto, n1: auto}}"]
    (tmp_path / "t.yaml").write_text("\n".join(lines))
    check_numbers(build(load_topology(tmp_path / "t.yaml")))


@pytest.fixture
def plan_of(tmp_path: Path) -> Any:
    def planned(text: str) -> Plan:
        (tmp_path / "t.yaml").write_text(text)
        return build(load_topology(tmp_path / "t.yaml"))

    return planned


LAN = "networks: {lan: {prefixes: [192.0.2.0/24]}}\n"


@pytest.mark.parametrize(("role", "forwards"), [("router", "1"), ("host", "0")])
def test_only_routers_forward_and_that_is_set_first(plan_of: Any, role: str, forwards: str) -> None:
    (node,) = of_kind(plan_of(f"nodes: {{a: {{role: {role}}}}}"), CreateNode)
    assert node.sysctls[:2] == (("net.ipv4.ip_forward", forwards), ("net.ipv6.conf.all.forwarding", forwards))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        ("net.ipv6.conf.all.disable_ipv6", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
        ("net.ipv4.ping_group_range", "0 0"),
    ],
)
def test_what_the_host_may_have_otherwise_is_written_out(plan_of: Any, name: str, value: str) -> None:
    (every,) = of_kind(plan_of("nodes: {a: {}}"), SetInEveryNode)
    assert dict(every.sysctls)[name] == value
    assert len(every.sysctls) == 18


def test_settings_of_an_interface_wait_for_it_and_others_win_over_the_defaults(plan_of: Any) -> None:
    plan = plan_of(
        LAN + "nodes: {a: {links: {lan: {interface: eth0}}, sysctls: {net.ipv4.conf.eth0.rp_filter: 1,"
        " net.ipv4.conf.all.rp_filter: 2, net.ipv4.tcp_ecn: 1}}}"
    )
    (node,), (late,) = of_kind(plan, CreateNode), of_kind(plan, SetSysctls)
    assert node.sysctls[-2:] == (("net.ipv4.conf.all.rp_filter", "2"), ("net.ipv4.tcp_ecn", "1"))  # the last one holds
    assert (late.node, late.sysctls) == ("a", (("net.ipv4.conf.eth0.rp_filter", "1"),))


def test_the_hosts_file_names_the_node_its_own_entries_and_its_neighbours(plan_of: Any) -> None:
    plan = plan_of(
        "networks: {lan: {prefixes: [192.0.2.0/24, '2001:db8::/64']}, far: {prefixes: [198.51.100.0/24]}}\n"
        "nodes:\n"
        "  a: {links: {lan: auto}, hosts: {printer: 203.0.113.9, scanner: 203.0.113.9}}\n"
        "  b: {links: {lan: auto, far: auto}}\n"
        "  c: {links: {far: auto}}\n"
    )
    texts = {step.nodes: step.text for step in of_kind(plan, ShareFile) if step.path == "/etc/hosts"}
    loopback = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
    lan = "192.0.2.1 a\n2001:db8::1 a\n192.0.2.2 b\n2001:db8::2 b\n"
    far = "198.51.100.1 b\n198.51.100.2 c\n"
    assert texts == {
        ("a",): f"{loopback}203.0.113.9 printer scanner\n{lan}",
        ("b",): f"{loopback}{lan}{far}",
        ("c",): f"{loopback}{far}",
    }


def test_nodes_with_the_same_names_share_a_file(plan_of: Any) -> None:
    plan = plan_of(
        LAN + "dns: [192.0.2.53]\nnodes: {a: {count: 3, links: {lan: auto}}, b: {links: {lan: auto}, dns: []}}"
    )
    shared = [(step.path, step.nodes, step.text.count("\n")) for step in of_kind(plan, ShareFile)]
    assert shared == [
        ("/etc/hosts", ("a-1", "a-2", "a-3", "b"), 6),
        ("/etc/resolv.conf", ("a-1", "a-2", "a-3"), 1),
        ("/etc/resolv.conf", ("b",), 0),
    ]


def test_resolvers_keep_their_order(plan_of: Any) -> None:
    plan = plan_of('nodes: {a: {dns: ["2001:db8::53", 192.0.2.53]}}')
    texts = [step.text for step in of_kind(plan, ShareFile) if step.path == "/etc/resolv.conf"]
    assert texts == ["nameserver 2001:db8::53\nnameserver 192.0.2.53\n"]


def test_links_carry_their_mtu_and_mac(plan_of: Any) -> None:
    plan = plan_of(
        "networks: {lan: {prefixes: [192.0.2.0/24], mtu: 9000},"
        " wire: {prefixes: [10.0.0.0/31], mtu: 1400, point_to_point: true}}\n"
        "nodes:\n"
        "  a: {links: {lan: {mtu: 1500, mac: '02:00:5e:00:53:01'}, wire: {interface: w0}}}\n"
        "  b: {links: {lan: auto, wire: {mtu: 1300}}}\n"
    )
    assert [(switch.network, switch.mtu) for switch in of_kind(plan, CreateSwitch)] == [("lan", 9000), ("wire", 1400)]
    ports = [(link.node, link.interface, link.network, link.mac, link.mtu) for link in of_kind(plan, ConnectToSwitch)]
    assert ports == [
        ("a", "lan", "lan", "02:00:5e:00:53:01", 1500),
        ("a", "w0", "wire", "02:00:00:00:01:02", 1400),
        ("b", "lan", "lan", "02:00:00:00:02:01", 9000),
        ("b", "wire", "wire", "02:00:00:00:02:02", 1300),
    ]
    assert [(switch.network, switch.cable) for switch in of_kind(plan, CreateSwitch)] == [
        ("lan", False),
        ("wire", True),
    ]
