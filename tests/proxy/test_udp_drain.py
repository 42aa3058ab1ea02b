"""Flows of datagrams when the proxy is told to end."""

from __future__ import annotations

import signal

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import endpoint
from tests.proxy.running import DEADLINE
from tests.proxy.udp_bench import drops, heard, silent, udp
from tests.proxy.upgrading import has_ended

CONFIG = """
workers = 1
[listener.in]
udp = ["HERE:8443"]
[[rule]]
to = "b"
[backend.b]
targets = ["HERE:9001"]
[timeouts]
drain = "DRAIN"
"""


def test_a_flow_in_use_goes_on_while_the_proxy_ends_and_no_other_begins(start: Start) -> None:
    proxy = start(CONFIG.replace("DRAIN", "1h"))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client, udp(proxy.here) as late:
        exchanged = 0

        def exchange() -> None:
            nonlocal exchanged
            client.sendto(b"?", (proxy.here, 8443))
            while (found := heard(backend))[0] == b"soon":
                pass
            assert found[0] == b"?"
            backend.sendto(b"!", found[1])
            assert heard(client)[0] == b"!"
            exchanged += 1

        def is_dropped() -> bool:
            exchange()
            with udp(proxy.here) as other:
                other.sendto(b"soon", (proxy.here, 8443))
            return drops(proxy).get("draining", 0) > 0

        exchange()
        proxy.send_signal(signal.SIGTERM)
        wait_until(is_dropped, DEADLINE, "the drain")
        assert proxy.metrics()["edgeproxy_draining"] == 1
        late.sendto(b"too late", (proxy.here, 8443))
        for _ in range(20):
            exchange()
        assert set(drops(proxy)) == {"draining"}
        assert silent(backend)
        assert proxy.wait(DEADLINE) == 0, "it ends when nobody has spoken for some time"
        line = proxy.line_after_end(endpoint(client.getsockname()))
        assert (line["close"], line["bytes_in"], line["bytes_out"]) == ("drained", exchanged, exchanged)


def test_flows_in_use_are_waited_for_no_longer_than_the_time_for_it(start: Start) -> None:
    proxy = start(CONFIG.replace("DRAIN", "6s"))
    with udp(proxy.here, 9001) as backend, udp(proxy.here) as client:
        client.sendto(b"?", (proxy.here, 8443))
        heard(backend)
        proxy.send_signal(signal.SIGTERM)

        def is_over() -> bool:
            client.sendto(b"and more", (proxy.here, 8443))
            return has_ended(proxy.pid)

        wait_until(is_over, DEADLINE, "the end")
        assert proxy.line_after_end(endpoint(client.getsockname()))["close"] == "drained"
