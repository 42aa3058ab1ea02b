"""What a flow keeps until it is known where it goes has been let in: an upgrade asks no rate for it again."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import endpoint
from tests.proxy.running import DEADLINE
from tests.proxy.udp_bench import Address, drops, first_flight, heard, udp
from tests.proxy.upgrading import upgrading

TEXT = """
workers = 1
[listener.in]
udp = ["HERE:8443"]
[[rule]]
server_name = '^.+$'
to = "b"
[backend.b]
targets = ["HERE:9001"]
[timeouts]
preface = "1h"
"""
RATED = TEXT.replace("[[rule]]", 'rate = "20kB/s"\n[[rule]]')  # 1000 bytes at once, which is less than one of these


def test_first_datagrams_that_wait_pass_no_rate_a_second_time_by_an_upgrade(start: Start) -> None:
    proxy = start(TEXT)
    half, *others = first_flight("aioquic_v1_long")
    with ExitStack() as stack:
        backend = stack.enter_context(udp(proxy.here, 9001))
        upgrades = stack.enter_context(upgrading(proxy))
        *clients, last = [stack.enter_context(udp(proxy.here)) for _ in range(7)]
        for client in (*clients, *clients, last):
            client.sendto(half, (proxy.here, 8443))
        # One socket brings them in order: now all are there.
        proxy.wait_for(lambda line: line["peer"] == endpoint(last.getsockname()), "the last one's flow")
        before = {line["unique_id"] for line in proxy.connections()}
        upgrades.upgrade(RATED)
        assert {line["unique_id"] for line in proxy.connections()} == before
        assert len(before) == 7
        assert drops(proxy) == {}
        backend.settimeout(0.2)
        found: dict[Address, list[bytes]] = {}

        def are_led_on(client: socket.socket, others: Iterator[bytes], count: int) -> bool:
            client.sendto(next(others), (proxy.here, 8443))
            with suppress(TimeoutError):
                while True:
                    datagram, sender = heard(backend)
                    found.setdefault(sender, []).append(datagram)
            return sum(len(datagrams) > 2 for datagrams in found.values()) == count

        for count, client in enumerate(clients, 1):
            turns = itertools.cycle(others)
            wait_until(partial(are_led_on, client, turns, count), DEADLINE, "the rate lets the rest of its hello in")
        for datagrams in found.values():
            assert datagrams[:2] == [half, half]
            assert half not in datagrams[2:]
