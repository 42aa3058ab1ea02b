"""What a flow of datagrams takes of the proxy's memory."""

from __future__ import annotations

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.running import DEADLINE, Proxy
from tests.proxy.udp_bench import flows, heard, udp

FIRST, MORE = 100, 3000
MOST = 1300  # bytes; it is some 950, and with a task for each flow it was 2,100
CONFIG = """
[listener.in]
udp = ["HERE:8443"]
[[rule]]
to = "b"
[backend.b]
targets = ["HERE:9001"]
[timeouts]
udp_one_way = "1h"
udp_idle = "1h"
"""


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_flow_takes_about_one_kilobyte(start: Start, *, is_answered: bool) -> None:
    proxy = start(CONFIG)
    with udp(proxy.here, 9001) as backend:

        def begin(count: int) -> None:
            for _ in range(count):
                number = next(numbers)
                # A source of its own for each, as clients have.
                with udp(f"127.1.{number >> 8}.{number & 255 or 1}") as client:
                    client.sendto(b"?", (proxy.here, 8443))
                    asked, sender = heard(backend)
                    if is_answered:
                        backend.sendto(asked, sender)
                        heard(client)

        numbers = iter(range(1 << 16))
        begin(FIRST)
        before = _own_memory(proxy)
        begin(MORE)
        wait_until(lambda: flows(proxy) == FIRST + MORE, DEADLINE, "all are there")
        assert (_own_memory(proxy) - before) / MORE < MOST


def _own_memory(proxy: Proxy) -> int:
    """Bytes of memory that are its own, not of a file (proc_pid_status(5))."""
    return int(proxy.status()["RssAnon"].split()[0]) * 1024
