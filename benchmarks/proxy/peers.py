"""The proxies that are measured, each with its usual and with a tuned configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.proxy.bench_lab import descriptors
from benchmarks.proxy.doors import BACKEND, INTRODUCED, PLAIN, PREREAD, SERVER_NAME, UDP, Door
from benchmarks.proxy.peer import ALL_DOORS, Peer, Program
from benchmarks.proxy.peers_more import envoy, go_mmproxy, mmproxy, sslh_ev, sslh_select

_WORKERS = 2
ONE_WORKER = "edgeproxy, one worker"


def _connections() -> int:
    """As many as the descriptors allow, up to thirty thousand."""
    return min(30_000, (descriptors() - 600) // 2)


def peers() -> list[Peer]:
    """Ours first."""
    program = os.environ.get("EDGEPROXY") or str(Path(sys.executable).parent / "edgeproxy")
    return [
        edgeproxy("edgeproxy", program, is_ours=True),
        edgeproxy(ONE_WORKER, program, workers=1, is_ours=True),
        _nginx("nginx", is_tuned=False),
        _nginx("nginx, tuned", is_tuned=True),
        _haproxy("haproxy", is_tuned=False),
        _haproxy("haproxy, tuned", is_tuned=True),
        envoy(),
        sslh_ev(),
        sslh_select(),
        go_mmproxy(is_tuned=False),
        go_mmproxy(is_tuned=True),
        mmproxy(),
    ]


def edgeproxy(name: str, program: str, *, workers: int = _WORKERS, is_ours: bool = False) -> Peer:
    def programs(folder: Path) -> list[Program]:
        return [Program([program, "run", "-c", str(folder / "edge.toml")], "edge.toml", _edge_toml(workers))]

    return Peer(name, program, programs, doors=ALL_DOORS, is_ours=is_ours)


def _edge_toml(workers: int) -> str:
    parts = [
        f"workers = {workers}",
        f"[limits]\nconnections = {_connections()}\nconnections_per_source = {_connections()}",
    ]
    for door in (*PLAIN, PREREAD, *UDP, INTRODUCED):
        transport = "udp" if door.is_udp else "tcp"
        parts.append(f'[listener.{door.name}]\n{transport} = ["0.0.0.0:{door.port}"]')
        if door is INTRODUCED:
            parts.append('proxy_header = [{from = "192.0.2.0/24", policy = "require"}]')
    for door in (*PLAIN, PREREAD, *UDP, INTRODUCED):
        name = "server_name = '^curl[.]example$'\n" if door is PREREAD else ""
        parts.append(f'[[rule]]\nlisteners = ["{door.name}"]\n{name}to = "{door.name}"')
    plain = (*PLAIN, PREREAD, *UDP)
    parts += [f'[backend.{door.name}]\ntargets = ["{BACKEND}:{door.backend_port}"]' for door in plain]
    parts.append(f'[backend.{INTRODUCED.name}]\ntargets = ["127.0.0.1:{INTRODUCED.backend_port}"]\nsource = "client"')
    return "\n".join(parts) + "\n"


def _nginx(name: str, *, is_tuned: bool) -> Peer:
    def programs(folder: Path) -> list[Program]:
        argv = ["nginx", "-c", str(folder / "nginx.conf"), "-g", "daemon off;", "-e", "stderr"]
        return [Program(argv, "nginx.conf", _nginx_conf(folder, is_tuned=is_tuned))]

    return Peer(name, "nginx", programs, doors=ALL_DOORS, is_tuned=is_tuned)


def _nginx_conf(folder: Path, *, is_tuned: bool) -> str:
    more = " reuseport" if is_tuned else ""
    servers = [_nginx_server(door, more) for door in (*PLAIN, *UDP)]
    servers.append(
        f"server {{ listen {PREREAD.port}{more}; ssl_preread on; proxy_pass $by_name; }}\n"
        f"map $ssl_preread_server_name $by_name {{ {SERVER_NAME} {BACKEND}:{PREREAD.backend_port}; }}"
    )
    servers.append(
        f"server {{ listen {INTRODUCED.port}{more} proxy_protocol; set_real_ip_from 192.0.2.0/24; "
        f"proxy_bind $remote_addr:$remote_port transparent; proxy_pass 127.0.0.1:{INTRODUCED.backend_port}; }}"
    )
    tuned = "proxy_buffer_size 256k; tcp_nodelay on;" if is_tuned else ""
    return (
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n"
        f"user root; worker_processes {_WORKERS}; pid {folder}/nginx.pid;\n"
        f"events {{ worker_connections {2 * _connections()}; }}\n"
        f"stream {{\n{tuned}\n" + "\n".join(servers) + "\n}\n"
    )


def _nginx_server(door: Door, more: str) -> str:
    # A session of UDP belongs to a worker; without reuseport its datagrams may come to the other one.
    udp = " udp reuseport" if door.is_udp else more
    return f"server {{ listen {door.port}{udp}; proxy_pass {BACKEND}:{door.backend_port}; }}"


def _haproxy(name: str, *, is_tuned: bool) -> Peer:
    def programs(folder: Path) -> list[Program]:
        return [
            Program(
                ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], "haproxy.cfg", _haproxy_cfg(is_tuned=is_tuned)
            )
        ]

    return Peer(name, "haproxy", programs, doors=(*PLAIN, PREREAD, INTRODUCED), is_tuned=is_tuned)


def _haproxy_cfg(*, is_tuned: bool) -> str:
    tuning = "\n  tune.bufsize 262144\n  maxpipes 100" if is_tuned else ""
    parts = [
        f"global\n  maxconn {_connections()}\n  nbthread {_WORKERS}{tuning}",
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h"
        + ("\n  option splice-auto" if is_tuned else ""),
    ]
    parts += [f"listen {door.name}\n  bind :{door.port}\n  server one {BACKEND}:{door.backend_port}" for door in PLAIN]
    parts.append(
        f"frontend preread\n  bind :{PREREAD.port}\n  tcp-request inspect-delay 5s\n"
        f"  tcp-request content accept if {{ req_ssl_hello_type 1 }}\n"
        f"  use_backend by_name if {{ req_ssl_sni -i {SERVER_NAME} }}\n"
        f"backend by_name\n  server one {BACKEND}:{PREREAD.backend_port}"
    )
    parts.append(
        f"listen introduced\n  bind :{INTRODUCED.port} accept-proxy\n  source 0.0.0.0 usesrc client\n"
        f"  server one 127.0.0.1:{INTRODUCED.backend_port}"
    )
    return "\n".join(parts) + "\n"
