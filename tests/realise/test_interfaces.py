"""What the kernel has is what the plan says: interfaces, addresses, MAC addresses, MTU, routes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from lab.plan.build import build
from lab.plan.step import AddAddress, AddRoute, ConnectToSwitch, Plan
from lab.realise.lab import Lab
from lab.topology.load import load_topology

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
#   a -- lan -- r -- far -- b
#   +------- wire ----------+
networks:
  lan: {prefixes: [192.168.1.0/24, "fd00:1::/64"], mtu: 1400}
  far: {prefixes: [198.51.100.0/24, "2001:db8:1::/64"], internet: true}
  wire: {prefixes: [10.0.0.0/30, "fd00:2::/64"], point_to_point: true, mtu: 9000}
nodes:
  a:
    links:
      lan: {address: 192.168.1.10, mac: "02:11:22:33:44:55", interface: eth0}
      wire: auto
    routes: [{to: 10.9.0.0/16, via: 192.168.1.1}, {to: "2001:db8:9::/48", via: "fd00:1::1"}]
  r: {role: router, links: {lan: {address: [192.168.1.1, "fd00:1::1"]}, far: {address: auto, mtu: 1280}}}
  b: {links: {wire: {only: ipv6}, far: [198.51.100.7, 198.51.100.8]}}
"""
NODES = ("a", "r", "b")


@pytest.fixture(scope="module")
def lab(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture(scope="module")
def plan(lab: Lab) -> Plan:
    return build(load_topology(Path(lab.facts["file"]), lab.name))


def ask_ip(lab: Lab, node: str, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab[node].run(["ip", "-j", *words], check=True).stdout)
    return found


def links(lab: Lab, node: str) -> dict[str, dict[str, Any]]:
    """The interfaces of a node but for those that every namespace has."""
    found = {link["ifname"]: link for link in ask_ip(lab, node, "-details", "address", "show")}
    return {name: link for name, link in found.items() if link.get("linkinfo", {}).get("info_kind") == "veth"}


def await_frame(sniffer: socket.socket, frame: bytes) -> None:
    while sniffer.recv(2000) != frame:
        pass


@pytest.mark.parametrize("node", NODES)
def test_a_node_has_the_interfaces_of_the_plan_and_no_others(lab: Lab, plan: Plan, node: str) -> None:
    wanted = {
        (s.interface, s.mac, s.mtu, s.index) for s in plan.steps if isinstance(s, ConnectToSwitch) and s.node == node
    }
    found = {(name, link["address"], link["mtu"], link["ifindex"]) for name, link in links(lab, node).items()}
    assert wanted
    assert found == wanted


@pytest.mark.parametrize("node", NODES)
def test_every_interface_is_up_with_a_carrier(lab: Lab, node: str) -> None:
    flags = {name: set(link["flags"]) for name, link in links(lab, node).items()}
    assert flags
    assert all(each >= {"UP", "LOWER_UP"} for each in flags.values())
    assert "UP" in ask_ip(lab, node, "link", "show", "lo")[0]["flags"]


@pytest.mark.parametrize("node", NODES)
def test_a_node_has_the_addresses_of_the_plan_and_no_others(lab: Lab, plan: Plan, node: str) -> None:
    wanted = {
        (s.interface, ip_interface(s.address)) for s in plan.steps if isinstance(s, AddAddress) and s.node == node
    }
    found = {
        (name, ip_interface(f"{address['local']}/{address['prefixlen']}"))
        for name, link in links(lab, node).items()
        for address in link["addr_info"]
        if address["scope"] == "global"
    }
    assert wanted
    assert found == wanted


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("version", [4, 6])
def test_a_node_has_the_routes_of_the_plan_and_no_others(lab: Lab, plan: Plan, node: str, version: int) -> None:
    wanted = {
        (s.destination.replace("0.0.0.0/0", "default").replace("::/0", "default"), s.via, s.interface)
        for s in plan.steps
        if isinstance(s, AddRoute) and s.node == node and (":" in s.via) == (version == 6)
    }
    found = {(r["dst"], r["gateway"], r["dev"]) for r in ask_ip(lab, node, f"-{version}", "route") if "gateway" in r}
    assert found == wanted
    assert wanted or node != "a"


def test_what_the_file_gives_is_what_the_kernel_has(lab: Lab) -> None:
    """Not the plan but the file as witness: MAC, name, MTU of network and link, both addresses, one family only."""
    a, r, b = (links(lab, node) for node in NODES)
    assert (a["eth0"]["address"], a["eth0"]["mtu"]) == ("02:11:22:33:44:55", 1400)
    assert (a["wire"]["mtu"], r["far"]["mtu"], b["far"]["mtu"]) == (9000, 1280, 1500)
    assert {x["local"] for x in b["far"]["addr_info"]} >= {"198.51.100.7", "198.51.100.8"}
    assert not [x for x in b["wire"]["addr_info"] if x["family"] == "inet"]
    assert ask_ip(lab, "a", "route", "get", "10.9.1.1")[0]["gateway"] == "192.168.1.1"
    assert ask_ip(lab, "a", "route", "get", "2001:db8:9::1")[0]["gateway"] == "fd00:1::1"


def test_no_address_is_ever_tentative(lab: Lab) -> None:
    found = [address for node in NODES for link in ask_ip(lab, node, "-6", "address") for address in link["addr_info"]]
    assert len(found) > len(NODES)
    assert [a for a in found if a.get("tentative") or a.get("dadfailed")] == []
    for node in NODES:
        for name in links(lab, node):
            assert lab[node].read(f"/proc/sys/net/ipv6/conf/{name}/accept_dad") == b"0\n"


def test_an_ipv6_address_works_at_once(up: Callable[..., Lab]) -> None:
    lab = up(
        {
            "networks": {"lan": {"prefixes": ["2001:db8::/64"]}},
            "nodes": {"a": {"links": {"lan": "auto"}}, "b": {"links": {"lan": "auto"}}},
        }
    )
    address = lab["b"].address(version=6)
    with lab["b"].udp(5000, address) as server, lab["a"].udp(0, lab["a"].address(version=6)) as client:
        client.sendto(b"at once", (address, 5000))
        assert server.recvfrom(100)[0] == b"at once"


@pytest.mark.parametrize("destination", ["ffffffffffff", "0180c200000e"], ids=["broadcast", "LLDP"])
def test_a_point_to_point_link_joins_two_nodes_as_a_cable(lab: Lab, destination: str) -> None:
    """A frame from one end arrives at the other, even one that switches keep, and at nobody else's interface."""
    frame = bytes.fromhex(destination) + bytes.fromhex("02aabbccddee") + b"\x88\xb5" + b"across the wire" * 3
    with lab["a"].packet("wire") as near, lab["b"].packet("wire") as far, lab["r"].packet("lan", timeout=0.1) as other:
        near.send(frame)
        await_frame(far, frame)
        with pytest.raises(TimeoutError):
            await_frame(other, frame)


def test_a_switch_carries_frames_to_its_network_only(lab: Lab) -> None:
    frame = bytes.fromhex("ffffffffffff") + bytes.fromhex("02aabbccddef") + b"\x88\xb5" + b"to the lan" * 5
    with lab["r"].packet("lan") as near, lab["a"].packet("eth0") as same, lab["b"].packet("far", timeout=0.1) as other:
        near.send(frame)
        await_frame(same, frame)
        with pytest.raises(TimeoutError):
            await_frame(other, frame)


def test_a_datagram_as_long_as_the_mtu_passes_and_a_longer_one_is_refused(lab: Lab) -> None:
    headers = 28  # IPv4 and UDP
    with lab["r"].udp(5001, "192.168.1.1") as server, lab["a"].udp(0, "192.168.1.10") as client:
        client.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO (ip(7))
        client.sendto(bytes(1400 - headers), ("192.168.1.1", 5001))
        assert len(server.recv(2000)) == 1400 - headers
        with pytest.raises(OSError, match="too long"):
            client.sendto(bytes(1400 - headers + 1), ("192.168.1.1", 5001))


def test_packets_cross_a_router(lab: Lab) -> None:
    for address in ("198.51.100.7", lab["b"].address("far", version=6)):
        with lab["b"].listen(8000, address) as server, lab["a"].connect((address, 8000)) as client:
            server.settimeout(30)
            accepted, peer = server.accept()
            accepted.close()
            assert peer[:2] == client.getsockname()[:2]
