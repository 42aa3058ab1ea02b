"""A reload under load: nobody who is connected, or connects, notices."""

from __future__ import annotations

import pytest

from tests.proxy.conftest import Start
from tests.proxy.ends import connect, read
from tests.proxy.test_upgrade import CONFIG
from tests.proxy.upgrading import Flow, Load, UdpEcho, echoing


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
