"""A reload under load: nobody who is connected, or connects, notices."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import connect, read
from tests.proxy.running import DEADLINE
from tests.proxy.test_upgrade import CONFIG
from tests.proxy.upgrading import Flow, Heir, Load, UdpEcho, echoing


@pytest.mark.essential
def test_fifty_reloads_lose_no_connection_and_no_flow(start: Start) -> None:
    proxy = start(CONFIG)
    with echoing(proxy.here, 9000), UdpEcho(proxy.here, 9001), connect(proxy.here, 8000) as kept:
        flows = [Flow(proxy.here, 8001) for _ in range(20)]
        with Load(proxy.here, 8000) as load:
            for number in range(50):
                for flow in flows:
                    flow.send()
                # Each reload changes something, and each second one the listener's other endpoint.
                other = ', "HERE:8010"' if number % 2 else ""
                text = CONFIG.replace('tcp = ["HERE:8000"', f'tcp = ["HERE:8000"{other}')
                proxy.reload(text + f"[limits]\nconnections = {1000 + number}\n")
                for flow in flows:
                    flow.receive(flow.sent)
                kept.sendall(b"%03d" % number)
                assert read(kept, 3) == b"%03d" % number
        assert load.faults == []
        assert load.served >= 50
        assert [len(flow.backend_saw) for flow in flows] == [1] * len(flows)
        assert [line for line in proxy.lines() if line["transport"] == "udp"] == []
        for flow in flows:
            flow.close()


def test_an_endpoint_that_goes_refuses_whoever_comes_before_its_sockets_are_closed(start: Start) -> None:
    """Else they would be connected, and reset. The sockets stay open here, in a process that did not take over."""
    proxy = start(CONFIG.replace('"HERE:8000"', '"HERE:8000", "HERE:8010"'))
    with ExitStack() as stack:
        with closing(Heir(proxy)) as heir:
            heir.hear_until("offer_ends")
            for number in heir.descriptors:
                stack.callback(os.close, os.dup(number))
        wait_until(lambda: "did not take over" in proxy.said, DEADLINE, "it goes on")
        connect(proxy.here, 8010).close()
        proxy.reload(CONFIG)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.here, 8010)
