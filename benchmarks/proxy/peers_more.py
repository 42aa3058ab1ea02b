"""Peers that are not in Debian, or that can do less: sslh, Envoy, mmproxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.proxy.bench_lab import ROOT
from benchmarks.proxy.doors import BACKEND, INTRODUCED, PLAIN, PREREAD, SERVER_NAME, UDP, Door
from benchmarks.proxy.peer import Peer, Program

FOLDER = ROOT / "target" / "bench-peers"  # where `make bench-proxy` puts them
_SELECT_SETS = 400  # connections of which select(2) can watch both sockets, and some


def sslh() -> Peer:
    """One process for each door: sslh chooses by protocol, not by port."""

    def programs(folder: Path) -> list[Program]:
        doors = (*PLAIN, PREREAD)
        return [
            Program(["sslh-select", "-f", f"-F{folder}/{door.name}.cfg"], f"{door.name}.cfg", _sslh(door))
            for door in doors
        ]

    doors = (*PLAIN, PREREAD)
    return Peer("sslh", "sslh-select", programs, doors=doors, most_connections=_SELECT_SETS)


def _sslh(door: Door) -> str:
    what = f'name: "tls"; sni_hostnames: ["{SERVER_NAME}"];' if door is PREREAD else 'name: "anyprot";'
    return (
        "verbose: 0;\nforeground: true;\nnumeric: true;\ntimeout: 2;\n"
        f'listen: ( {{ host: "0.0.0.0"; port: "{door.port}"; }} );\n'
        f'protocols: ( {{ {what} host: "{BACKEND}"; port: "{door.backend_port}"; }} );\n'
    )


def mmproxy() -> Peer:
    """The family of mmproxy: a PROXY header in, the client's address out, for a backend on this host."""
    program = str(FOLDER / "bin" / "mmproxy")

    def programs(folder: Path) -> list[Program]:
        allowed = "192.0.2.0/24\n"
        argv = [program, "--allowed-subnets", str(folder / "allowed"), "-l", f"0.0.0.0:{INTRODUCED.port}"]
        argv += [
            "-4",
            f"127.0.0.1:{INTRODUCED.backend_port}",
            "-6",
            f"[::1]:{INTRODUCED.backend_port}",
            "--listeners",
            "2",
        ]
        return [Program(argv, "allowed", allowed)]

    return Peer("mmproxy", program, programs, doors=(INTRODUCED,))


def envoy() -> Peer:
    """Its buffers of 1 MiB, usual with it, are what others are tuned to: it stands among the tuned."""
    program = str(FOLDER / "venv" / "bin" / "envoy")

    def programs(folder: Path) -> list[Program]:
        argv = [program, "-c", str(folder / "envoy.json"), "--concurrency", "2", "--log-level", "error"]
        argv += ["--disable-hot-restart"]
        return [Program(argv, "envoy.json", json.dumps(_envoy(), indent=1))]

    return Peer("envoy", program, programs, doors=(*PLAIN, PREREAD, *UDP), is_tuned=True)


def _envoy() -> dict[str, Any]:
    doors = (*PLAIN, PREREAD, *UDP)
    return {
        "static_resources": {
            "listeners": [_envoy_listener(door) for door in doors],
            "clusters": [_envoy_cluster(door) for door in doors],
        }
    }


def _envoy_listener(door: Door) -> dict[str, Any]:
    at = {"address": "0.0.0.0", "port_value": door.port}
    filters = "envoy.extensions.filters"
    if door.is_udp:
        udp = {
            "@type": f"type.googleapis.com/{filters}.udp.udp_proxy.v3.UdpProxyConfig",
            "stat_prefix": door.name,
            "matcher": {
                "on_no_match": {
                    "action": {
                        "name": "route",
                        "typed_config": {
                            "@type": f"type.googleapis.com/{filters}.udp.udp_proxy.v3.Route",
                            "cluster": door.name,
                        },
                    }
                }
            },
            "upstream_socket_config": {"prefer_gro": True},
        }
        return {
            "name": door.name,
            "address": {"socket_address": {"protocol": "UDP", **at}},
            "udp_listener_config": {"downstream_socket_config": {"prefer_gro": True}},
            "listener_filters": [{"name": "envoy.filters.udp_listener.udp_proxy", "typed_config": udp}],
        }
    tcp = {
        "@type": f"type.googleapis.com/{filters}.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": door.name,
        "cluster": door.name,
    }
    chain: dict[str, Any] = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp}]}
    listener: dict[str, Any] = {"name": door.name, "address": {"socket_address": at}, "filter_chains": [chain]}
    if door is PREREAD:
        chain["filter_chain_match"] = {"server_names": [SERVER_NAME]}
        inspector = {"@type": f"type.googleapis.com/{filters}.listener.tls_inspector.v3.TlsInspector"}
        listener["listener_filters"] = [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}]
    return listener


def _envoy_cluster(door: Door) -> dict[str, Any]:
    at = {"socket_address": {"address": BACKEND, "port_value": door.backend_port}}
    many = 1_000_000
    limits = {"max_connections": many, "max_pending_requests": many, "max_requests": many, "max_retries": many}
    return {
        "name": door.name,
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": door.name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at}}]}],
        },
    }
