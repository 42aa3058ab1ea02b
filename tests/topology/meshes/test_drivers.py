"""What the drivers configure: each key of the language and each fact of the topology has its place there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.topology.load import load_topology
from lab.topology.model import ReadyLog, Service, Topology

FILE = Path(__file__).parents[1] / "valid" / "meshes.yaml"


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load_topology(FILE)


def service_of(topology: Topology, node: str, name: str) -> Service:
    (found,) = (s for each in topology.nodes if each.name == node for s in each.services if s.name == name)
    return found


def configuration(topology: Topology, node: str, mesh: str = "tailnet") -> Any:
    (file,) = service_of(topology, node, mesh).files
    return json.loads(file.text)


def test_members_know_lighthouses_and_neighbours_beforehand(topology: Topology) -> None:
    assert configuration(topology, "nas")["static_host_map"] == {
        "10.144.0.2": ["198.51.100.10:4242"],
        "10.144.0.1": ["198.51.100.20:4242"],
        "10.144.0.4": ["192.168.1.2:4442"],
        "10.144.0.5": ["192.168.1.3:4542"],
    }
    assert configuration(topology, "vps-a")["static_host_map"] == {
        "10.144.0.1": ["198.51.100.20:4242", "[2001:db8:1::20]:4242"]
    }


def test_members_listen_at_ports_of_their_own(topology: Topology) -> None:
    """Two behind one NAT would contend for the same port outside."""
    nodes = ("vps-a", "vps-b", "nas", "guest-1", "guest-2")
    assert [configuration(topology, node)["listen"]["port"] for node in nodes] == [4242, 4242, 4342, 4442, 4542]
    assert service_of(topology, "nas", "spare").argv[5] == "51921"
    assert service_of(topology, "vps-a", "spare").argv[5] == "51821"


def test_lighthouses_are_asked_and_do_not_ask(topology: Topology) -> None:
    nas, vps = (configuration(topology, node)["lighthouse"] for node in ("nas", "vps-a"))
    assert (nas["am_lighthouse"], nas["hosts"]) == (False, ["10.144.0.2", "10.144.0.1"])
    assert (vps["am_lighthouse"], vps["hosts"]) == (True, [])


def test_relays_are_those_that_the_file_names(topology: Topology) -> None:
    relaying = {node: configuration(topology, node)["relay"] for node in ("vps-a", "vps-b", "nas")}
    assert [each["am_relay"] for each in relaying.values()] == [False, True, False]
    assert relaying["nas"]["relays"] == ["10.144.0.1"]


def test_no_overlay_is_a_way_of_another(topology: Topology) -> None:
    allowed = configuration(topology, "nas")["lighthouse"]
    assert allowed["remote_allow_list"]["10.144.0.0/16"] is False
    assert allowed["remote_allow_list"]["10.145.0.0/29"] is False
    assert allowed["local_allow_list"] == {"interfaces": {"tailnet": False, "spare": False}}


def test_networks_that_are_not_the_internet_are_preferred(topology: Topology) -> None:
    assert configuration(topology, "nas")["preferred_ranges"] == ["192.168.1.0/24"]


def test_members_are_ready_once_a_lighthouse_answered(topology: Topology) -> None:
    nas, vps = (service_of(topology, node, "tailnet") for node in ("nas", "vps-a"))
    assert isinstance(nas.ready, ReadyLog)
    assert r"(?:10\.144\.0\.2|10\.144\.0\.1)" in nas.ready.pattern
    assert nas.after == ("vps-a/tailnet", "vps-b/tailnet")
    assert vps.after == ()


def test_wireguard_has_a_hub_and_neighbours(topology: Topology) -> None:
    peers = {peer["node"]: peer for peer in configuration(topology, "nas", "spare")}
    assert peers["vps-a"] == {
        "node": "vps-a",
        "allowed": ["10.145.0.0/29"],
        "endpoint": "198.51.100.10:51821",
        "keepalive": 5,
    }
    assert peers["guest-1"]["endpoint"] == "192.168.1.2:52021"
    (back,) = (peer for peer in configuration(topology, "guest-1", "spare") if peer["node"] == "nas")
    assert sorted([peers["guest-1"]["keepalive"] or 0, back["keepalive"] or 0]) == [0, 5], "one of two begins"
    hub = {peer["node"]: peer for peer in configuration(topology, "vps-a", "spare")}
    assert (hub["nas"]["allowed"], hub["nas"]["endpoint"]) == (["10.145.0.6/32"], None)
    assert "--forward" in service_of(topology, "vps-a", "spare").argv
    assert "--forward" not in service_of(topology, "nas", "spare").argv


FIREWALLS = """
#   far, site -- router (NAT) -- home -- near, open, shut, also, picky; den -- guest, which also reaches near
networks:
  internet: {prefixes: [198.51.100.0/24]}
  home: {prefixes: [192.168.1.0/24]}
  den: {prefixes: [192.168.2.0/24]}
nodes:
  router: {role: router, links: {internet: auto, home: auto, den: auto}, nat: {outside: internet}}
  guest: {links: {den: auto}}
  site: {role: router, links: {internet: auto}, nat: {outside: internet}}
  far: {links: {internet: 198.51.100.10}}
  near: {links: {home: auto}}
  open: {links: {home: auto}}
  shut: {links: {home: auto}, firewall: {input: drop}}
  also: {links: {home: auto}, firewall: {input: drop, allow: [{udp: 53}]}}
  picky: {links: {home: auto}, firewall: {input: drop, allow: [{udp: 52420, from: 192.168.1.200/32}]}}
mesh:
  wg:
    driver: wireguard
    prefix: 10.145.0.0/24
    lighthouses: {far: 10.145.0.1, near: 10.145.0.9}
    members:
      {open: 10.145.0.2, shut: 10.145.0.3, also: 10.145.0.4, router: 10.145.0.5, site: 10.145.0.6, picky: 10.145.0.7,
       guest: auto}
"""


def test_of_two_that_use_wireguard_whoever_the_other_cannot_reach_begins(tmp_path: Path) -> None:
    """Be it that a firewall is before it, or that it is not known; both, if neither can reach the other."""
    (tmp_path / "t.yaml").write_text(FIREWALLS)
    topology = load_topology(tmp_path / "t.yaml")
    peers = {
        node: {peer["node"]: peer["keepalive"] for peer in configuration(topology, node, "wg")}
        for node in ("far", "near", "open", "shut", "also", "router", "site", "picky")
    }

    def both(one: str, other: str) -> tuple[int | None, int | None]:
        return peers[one][other], peers[other][one]

    assert both("open", "shut") == (None, 5)
    assert both("open", "router") == (5, None), "its firewall is before another network"
    assert both("shut", "router") == (5, None)
    assert both("shut", "also") == (5, 8)
    assert both("router", "site") == (5, 8)
    assert both("open", "picky")[1] == 5
    assert both("open", "near") == (5, None)
    assert both("far", "near") == (None, 5), "whose addresses are behind NAT"
