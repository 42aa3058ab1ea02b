"""A listener's rate is one for all who are there, whichever configuration each of them began under."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, read_all

CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
rate = "RATE"
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001"]
[limits]
connections = 1000NUMBER
"""
EACH = 50_000  # bytes, which a client's kernel takes at once


NONE = ""


def config(rate: str, number: int) -> str:
    line = f'rate = "{rate}"\n' if rate else ""
    return CONFIG.replace('rate = "RATE"\n', line).replace("NUMBER", str(number))


@pytest.mark.parametrize(
    "rates",
    [
        ["200kB/s"] * 6,
        ["200kB/s", "190kB/s"] * 3,
        ["2MB/s", "200kB/s"] * 3,
        ["200kB/s", NONE] * 2 + ["200kB/s"] * 2,
        [NONE] * 5 + ["200kB/s"],
    ],
)
def test_reloads_neither_multiply_it_nor_fill_its_bucket(start: Start, rates: list[str]) -> None:
    """Each client begins under a configuration of its own; all together take as long as under the last one alone."""
    proxy = start(config(rates[0], 0))
    with listening(proxy.here, 9001) as server, ExitStack() as stack:
        clients, backends = [], []
        for number, rate in enumerate(rates[1:], 1):
            clients.append(stack.enter_context(connect(proxy.here, 8443)))
            clients[-1].sendall(b"x")
            backends.append(stack.enter_context(accepted(server)))
            proxy.reload(config(rate, number))
        begun = time.monotonic()
        for client in clients:
            client.sendall(b"x" * EACH)
            client.shutdown(socket.SHUT_WR)
        for backend in backends:
            assert len(read_all(backend)) == 1 + EACH
        # A twentieth of a second's bytes may pass at once; the last rate is never above 200 kB a second.
        assert time.monotonic() - begun > len(clients) * EACH / 200_000 - 0.2
