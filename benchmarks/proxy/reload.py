"""Fifty reloads under load: what is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.proxy.bench_lab import LOAD, BenchLab
from benchmarks.proxy.doors import ANSWER, BACKEND, ECHO, SEEN_PORT, UDP_ECHO
from benchmarks.proxy.peer import Peer, Running, running

RELOADS = 50
_APART = 0.1  # seconds
_FLOWS = 8
_CONNECTIONS = 32


def reload_losses(bench: BenchLab, peer: Peer, reloads: int = RELOADS) -> dict[str, float]:
    """Kept connections that broke, new ones that failed, flows the backend saw anew, datagrams without an answer."""
    seconds = reloads * _APART + 1.5
    with running(bench, peer) as proxy, ExitStack() as stack:
        before = _seen(bench)
        loads = [
            ("ping", "--to", proxy.at(ECHO), "--clients", _CONNECTIONS),
            ("connect", "--to", proxy.at(ANSWER), "--clients", 4),
            ("udp", "--to", proxy.at(UDP_ECHO), "--flows", _FLOWS, "--window", 4),
        ]
        started = [
            stack.enter_context(
                bench.client.start(
                    [str(LOAD), *(str(word) for word in load), "--seconds", str(seconds)], stdout=subprocess.PIPE
                )
            )
            for load in loads
        ]
        time.sleep(1.0)  # all flows and connections are there
        _reload(proxy, reloads)
        ping, connect, udp = (json.loads(process.communicate(None, 60.0)[0]) for process in started)
        seen = _seen(bench) - before
    return _losses(ping, connect, udp) | {"flows": float(seen - _FLOWS)}


def _losses(ping: dict[str, Any], connect: dict[str, Any], udp: dict[str, Any]) -> dict[str, float]:
    return {
        "kept connections": float(ping["broken"]),
        "new connections": float(connect["failed"]),
        "datagrams": float(udp["lost"]),
        "of datagrams": float(udp["came"]),
    }


def _reload(proxy: Running, reloads: int) -> None:
    first = min(proxy.processes())
    for _ in range(reloads):
        os.kill(first, signal.SIGHUP)
        time.sleep(_APART)


def _seen(bench: BenchLab) -> int:
    with bench.client.connect((BACKEND, SEEN_PORT)) as asked:
        return int.from_bytes(asked.recv(8, socket.MSG_WAITALL))
