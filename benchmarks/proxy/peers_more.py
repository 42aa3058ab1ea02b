"""Peers that are not in Debian 12, or that can do less: sslh, Envoy, the family of mmproxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.proxy.bench_lab import ROOT
from benchmarks.proxy.doors import BACKEND, INTRODUCED, PLAIN, PREREAD, SERVER_NAME, UDP, Door
from benchmarks.proxy.peer import Peer, Program

FOLDER = ROOT / "target" / "bench-peers"  # where `make bench-proxy` puts them
_TRIXIE = FOLDER / "trixie" / "root" / "usr"  # unpacked by trixie.sh
_SELECT_SETS = 400  # connections of which select(2) can watch both sockets, and some


def sslh_select() -> Peer:
    """That of Debian 12."""
    return _sslh("sslh-select", "sslh-select", ["sslh-select"], most_connections=_SELECT_SETS)


def sslh_ev() -> Peer:
    """That of Debian 13, which brings its own C library: it is started by that one's loader, and known by its name."""
    program, libraries = _TRIXIE / "sbin" / "sslh-ev", _TRIXIE / "lib" / "x86_64-linux-gnu"
    loader = libraries / "ld-linux-x86-64.so.2"
    argv = [str(loader), "--library-path", str(libraries), str(program)]
    return _sslh("sslh-ev", str(program), argv, processes=("ld-linux-x86-64",))


def _sslh(
    name: str,
    program: str,
    argv: list[str],
    *,
    most_connections: int = Peer.most_connections,
    processes: tuple[str, ...] = (),
) -> Peer:
    """One process for each door: sslh chooses by protocol, not by port."""
    doors = (*PLAIN, PREREAD)

    def programs(folder: Path) -> list[Program]:
        return [Program([*argv, "-f", f"-F{folder}/{door.name}.cfg"], f"{door.name}.cfg", _cfg(door)) for door in doors]

    return Peer(name, program, programs, doors=doors, most_connections=most_connections, processes=processes)


def _cfg(door: Door) -> str:
    what = f'name: "tls"; sni_hostnames: ["{SERVER_NAME}"];' if door is PREREAD else 'name: "anyprot";'
    return (
        "foreground: true;\nnumeric: true;\ntimeout: 2;\n"
        f'listen: ( {{ host: "0.0.0.0"; port: "{door.port}"; }} );\n'
        f'protocols: ( {{ {what} host: "{BACKEND}"; port: "{door.backend_port}"; }} );\n'
    )


def mmproxy() -> Peer:
    """That in Rust."""
    return _mmproxy("mmproxy", FOLDER / "bin" / "mmproxy", ["--listeners", "2"])


def go_mmproxy(*, is_tuned: bool) -> Peer:
    """That in Go, of Debian 13: with its one listener, and with one for each processor."""
    more = ["-v", "0", *(["-listeners", "2"] if is_tuned else [])]
    return _mmproxy(
        "go-mmproxy, tuned" if is_tuned else "go-mmproxy", _TRIXIE / "bin" / "go-mmproxy", more, is_tuned=is_tuned
    )


def _mmproxy(name: str, program: Path, more: list[str], *, is_tuned: bool = False) -> Peer:
    """A PROXY header in, the client's address out, for a backend on this host."""

    def programs(folder: Path) -> list[Program]:
        dash = "-" if program.name.startswith("go") else "--"
        argv = [str(program), f"{dash}allowed-subnets", str(folder / "allowed"), "-l", f"0.0.0.0:{INTRODUCED.port}"]
        for version, loopback in (("-4", "127.0.0.1"), ("-6", "[::1]")):
            argv += [version, f"{loopback}:{INTRODUCED.backend_port}"]
        return [Program([*argv, *more], "allowed", "192.0.2.0/24\n")]

    return Peer(name, str(program), programs, doors=(INTRODUCED,), is_tuned=is_tuned)


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
