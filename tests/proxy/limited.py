"""A proxy with bounds on what clients may take, clients who wait there, and one who looks whether it serves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lab.realise.asking import wait_until
from tests.proxy import proxy_protocol as pp
from tests.proxy.ends import DEADLINE, accepted, connect, listening, own, read, read_all
from tests.proxy.running import Proxy

CONFIG = """
TOP
[listener.in]
tcp = ["HERE:8443"]
LISTENER
[listener.two]
tcp = ["HERE:8444"]
proxy_header = [{from = "127.0.0.2/32", policy = "require"}]
[[rule]]
name = "unknown"
protocols = ["ssh", "http1", "tls"]
to = "out"
[backend.out]
targets = ["HERE:9001"]
[limits]
LIMITS
[timeouts]
preface = "60s"
"""
BANNER = b"SSH-2.0-x\r\n"
PATIENT = 'targets = ["HERE:9001"]', 'targets = ["HERE:9001"]\nconnect_timeout = "10m"'


def config(*, top: str = "", listener: str = "", limits: str = "", preface: str = "60s") -> str:
    text = CONFIG.replace("TOP", top).replace("LISTENER", listener).replace("LIMITS", limits)
    return text.replace("60s", preface)


@contextmanager
def waiting(proxy: Proxy, count: int, source: str = "127.0.0.1", port: int = 8443) -> Iterator[list[socket.socket]]:
    """Clients that are in and say nothing yet."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(proxy.here, port, source)) for _ in range(count)]
        names = {own(client) for client in clients}
        wait_until(lambda: names <= {line["peer"] for line in proxy.connections()}, DEADLINE, "all are in")
        yield clients


def is_served(proxy: Proxy, source: str = "", port: int = 8443, before: bytes = b"") -> str:
    """Who was led to the backend and got its answer."""
    with listening(proxy.here, 9001) as server, connect(proxy.here, port, source) as client:
        client.sendall(before + BANNER)
        with accepted(server) as end:
            assert read(end, len(BANNER)) == BANNER
            end.sendall(b"answer")
        assert read_all(client) == b"answer"
        return own(client)


def header(source: str) -> bytes:
    return pp.v2(((source, 40000), ("2001:db8::1" if ":" in source else "198.51.100.1", 443)))
