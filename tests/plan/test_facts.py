"""What a lab says of itself: everything that clients ask by, as values that survive JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.plan.facts import facts
from lab.topology.load import load_topology

TOPOLOGY = """
networks:
  lan: {prefixes: [192.0.2.0/24, "2001:db8::/64"]}
  wire: {prefixes: [10.0.0.0/31], point_to_point: true}
nodes:
  gate:
    role: router
    links: {lan: {interface: eth0}, wire: auto}
    nat: {outside: lan, forwards: [{tcp: 443, to: nas}, {udp: 53, to: "nas:5353"}, {tcp: 22, to: 192.0.2.77}]}
  nas:
    links: {wire: auto}
    services: {web: {run: sleep 60, ready: {tcp: 80}, ports: [tcp/80, udp/443]}, quiet: {run: sleep 60}}
"""
MESH = """
mesh: {net: {driver: wireguard, prefix: 10.9.0.0/24, lighthouses: [gate], members: [nas], domain: net.example}}
"""


def test_the_facts_of_a_mesh(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(TOPOLOGY + MESH)
    assert facts(load_topology(tmp_path / "small.yaml"))["meshes"] == [
        {
            "name": "net",
            "driver": "wireguard",
            "prefix": "10.9.0.0/24",
            "domain": "net.example",
            "port": 51820,
            "members": [
                {"node": "gate", "address": "10.9.0.1/24", "port": 51820, "lighthouse": True, "relay": True},
                {"node": "nas", "address": "10.9.0.2/24", "port": 51920, "lighthouse": False, "relay": False},
            ],
        }
    ]


def test_the_facts_of_a_topology(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(TOPOLOGY)
    assert facts(load_topology(tmp_path / "small.yaml", "mine")) == {
        "name": "mine",
        "file": str(tmp_path.resolve() / "small.yaml"),
        "networks": [
            {
                "name": "lan",
                "prefixes": ["192.0.2.0/24", "2001:db8::/64"],
                "point_to_point": False,
                "internet": False,
                "mtu": 1500,
            },
            {"name": "wire", "prefixes": ["10.0.0.0/31"], "point_to_point": True, "internet": False, "mtu": 1500},
        ],
        "nodes": [
            {
                "name": "gate",
                "role": "router",
                "interfaces": [
                    {
                        "name": "eth0",
                        "network": "lan",
                        "mac": "02:00:00:00:01:01",
                        "addresses": ["192.0.2.1/24", "2001:db8::1/64"],
                    },
                    {"name": "wire", "network": "wire", "mac": "02:00:00:00:01:02", "addresses": ["10.0.0.0/31"]},
                ],
                "services": [],
                "forwards": [
                    {"protocol": "tcp", "port": 443, "to": "nas:443", "addresses": ["192.0.2.1"]},
                    {"protocol": "udp", "port": 53, "to": "nas:5353", "addresses": ["192.0.2.1"]},
                    {"protocol": "tcp", "port": 22, "to": "192.0.2.77:22", "addresses": ["192.0.2.1"]},
                ],
                "nat": {
                    "engine": "kernel",
                    "preset": "home_router",
                    "outside": {
                        "interface": "eth0",
                        "network": "lan",
                        "addresses": ["192.0.2.1/24", "2001:db8::1/64"],
                    },
                    "inside": [{"interface": "wire", "network": "wire", "addresses": ["10.0.0.0/31"]}],
                    "pool": ["192.0.2.1"],
                    "mapping": "endpoint_independent",
                    "filtering": "address_and_port_dependent",
                    "ports": {"first": 1, "last": 65535, "allocation": "preserve", "parity": False},
                    "port_block": None,
                    "pooling": "paired",
                    "sessions": None,
                    "timers": {
                        "udp": 120.0,
                        "udp_dns": None,
                        "tcp_established": 7440.0,
                        "tcp_transitory": 120.0,
                        "icmp": 30.0,
                    },
                    "refresh": "both",
                    "hairpin": "none",
                    "icmp_errors": "pass",
                    "unsolicited_tcp": "drop",
                    "overloading": True,
                    "upnp": False,
                    "ipv6_prefix": None,
                    "ipv6_filtering": "address_and_port_dependent",
                    "forwards": [
                        {"protocol": "tcp", "port": 443, "address": "10.0.0.1", "to_port": 443},
                        {"protocol": "udp", "port": 53, "address": "10.0.0.1", "to_port": 5353},
                        {"protocol": "tcp", "port": 22, "address": "192.0.2.77", "to_port": 22},
                    ],
                },
            },
            {
                "name": "nas",
                "role": "host",
                "interfaces": [
                    {"name": "wire", "network": "wire", "mac": "02:00:00:00:02:01", "addresses": ["10.0.0.1/31"]}
                ],
                "services": [
                    {
                        "name": "web",
                        "ports": [{"protocol": "tcp", "number": 80}, {"protocol": "udp", "number": 443}],
                        "ready_check": True,
                    },
                    {"name": "quiet", "ports": [], "ready_check": False},
                ],
                "forwards": [],
                "nat": None,
            },
        ],
        "meshes": [],
    }


def test_a_relative_file_is_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.yaml").write_text(TOPOLOGY)
    monkeypatch.chdir(tmp_path)
    assert facts(load_topology(Path("small.yaml")))["file"] == str(tmp_path.resolve() / "small.yaml")


def test_the_facts_of_any_topology_survive_json(file: Path) -> None:
    topology = load_topology(file)
    told = facts(topology)
    assert json.loads(json.dumps(told)) == told
    assert [node["name"] for node in told["nodes"]] == [node.name for node in topology.nodes]
