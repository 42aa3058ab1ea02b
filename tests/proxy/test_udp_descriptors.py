"""A proxy that has no descriptor left for a newcomer's flow: counted, told why, and nobody else's concern."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import endpoint
from tests.proxy.running import DEADLINE, Line, Proxy
from tests.proxy.udp_bench import drops, flows, heard, udp

MOST, MORE = 64, 90
TEXT = """
workers = 1
[listener.in]
udp = ["HERE:8443"]
[listener.two]
udp = ["HERE:8444"]
[[rule]]
listeners = ["in"]
to = "echo"
[[rule]]
to = "silent"
[backend.echo]
targets = ["HERE:9001"]
[backend.silent]
targets = ["HERE:9002"]
eject = {failures = 1, duration = "1h"}
[timeouts]
udp_one_way = "1h"
udp_idle = "1h"
"""


def test_without_descriptors_flows_that_live_go_on_and_newcomers_are_served_when_there_are_some(start: Start) -> None:
    proxy = start(TEXT, before=("prlimit", f"--nofile={MOST}:{MOST}"))
    with ExitStack() as stack:
        backend = stack.enter_context(udp(proxy.here, 9001))
        silent = stack.enter_context(udp(proxy.here, 9002))
        *old, late = [stack.enter_context(udp(proxy.here)) for _ in range(4)]
        many = [stack.enter_context(udp(proxy.here)) for _ in range(MORE)]
        sent: list[bytes] = []

        def say(client: socket.socket, word: bytes, port: int = 8443) -> None:
            client.sendto(word, (proxy.here, port))
            sent.append(word)

        def asks(client: socket.socket) -> None:
            say(client, b"?")
            while (asked := heard(backend))[0] != b"?":
                assert asked[0] == b"late", "of the newcomer, who asks until it is heard"
            backend.sendto(b"!", asked[1])
            assert heard(client)[0] == b"!"

        for client in old:
            asks(client)
        for client in many:
            say(client, b"flood", 8444)
        wait_until(lambda: _descriptors(proxy) == MOST, DEADLINE, "descriptors run out")
        for _ in range(3):
            for client in old:
                asks(client)
        silent.close()
        for client in many:
            say(client, b"nobody is there", 8444)  # who has a flow ends it by that
        backend.settimeout(0.2)

        def is_served() -> bool:
            say(late, b"late")
            with suppress(TimeoutError):
                return heard(backend)[0] == b"late"
            return False

        wait_until(is_served, DEADLINE, "a descriptor for the newcomer")
        backend.settimeout(DEADLINE)
        wait_until(lambda: flows(proxy) == len(old) + 1, DEADLINE, "the others have ended")
        assert _short(proxy) >= MORE - MOST
        # A flow that finds none may have several datagrams: the newcomer asks again before the first is looked at.
        wait_until(lambda: _led_on(proxy) + drops(proxy)["no_upstream"] == len(sent), DEADLINE, "each is counted, once")
        assert set(drops(proxy)) == {"no_upstream"}
        assert drops(proxy)["no_upstream"] >= _short(proxy)
        proxy.connections()
        wait_until(lambda: any(_is_short(line) for line in proxy.lines()), DEADLINE, "a line that says why")
        for client in old:
            asks(client)
            assert proxy.lines_of(endpoint(client.getsockname())) == []


def _led_on(proxy: Proxy) -> int:
    metric = 'edgeproxy_received_datagrams_total{{listener="{}",transport="udp"}}'
    return sum(int(proxy.metrics()[metric.format(listener)]) for listener in ("in", "two"))


def _short(proxy: Proxy) -> int:
    return int(proxy.metrics()['edgeproxy_closed_total{transport="udp",reason="over_limit_descriptors"}'])


def _is_short(line: Line) -> bool:
    return bool(line["close"] == "over_limit_descriptors")


def _descriptors(proxy: Proxy) -> int:
    return len(list(Path(f"/proc/{proxy.pid}/fd").iterdir()))
