"""A proxy that is told to end says so for `timeouts.drain_delay`, and takes clients all the same."""

from __future__ import annotations

import http.client
import json
import signal
from contextlib import closing

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, own, read
from tests.proxy.running import DEADLINE, METRICS_PORT, Proxy
from tests.proxy.udp_bench import heard, udp
from tests.proxy.upgrading import Heir

CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
udp = ["HERE:8443"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001"]
[timeouts]
drain_delay = "DELAY"
drain = "1h"
"""


def ready(proxy: Proxy) -> tuple[int, bytes]:
    asked = http.client.HTTPConnection(proxy.here, METRICS_PORT, timeout=DEADLINE)
    asked.request("GET", "/ready")
    answer = asked.getresponse()
    return answer.status, answer.read()


def takes_clients(proxy: Proxy) -> None:
    """New ones, by both transports."""
    with listening(proxy.here, 9001) as server, udp(proxy.here, 9001) as datagrams:
        with connect(proxy.here, 8443) as client, accepted(server) as backend:
            client.sendall(b"x")
            assert read(backend, 1) == b"x"
        with udp(proxy.here) as client:
            client.sendto(b"y", (proxy.here, 8443))
            assert heard(datagrams)[0] == b"y"


@pytest.mark.essential
def test_it_is_not_ready_and_takes_clients_for_so_long_and_a_second_signal_ends_that(start: Start) -> None:
    proxy = start(CONFIG.replace("DELAY", "1h"))
    assert ready(proxy) == (200, b"ready\n")
    proxy.send_signal(signal.SIGTERM)
    wait_until(lambda: ready(proxy) == (503, b"draining\n"), DEADLINE, "it says that it ends")
    assert proxy.metrics()["edgeproxy_draining"] == 1
    takes_clients(proxy)
    proxy.send_signal(signal.SIGTERM)
    assert proxy.wait(DEADLINE) == 0


def test_then_it_drains(start: Start) -> None:
    proxy = start(CONFIG.replace("DELAY", "500ms"))
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server) as backend:
        proxy.send_signal(signal.SIGTERM)

        def is_closed() -> bool:
            try:
                connect(proxy.here, 8443).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(is_closed, DEADLINE, "it takes nobody")
        assert ready(proxy)[0] == 503
        client.sendall(b"x")
        assert read(backend, 1) == b"x", "who is here has the time of `drain`"


def test_without_it_it_drains_at_once(start: Start) -> None:
    proxy = start(CONFIG.replace('drain_delay = "DELAY"\n', ""))
    proxy.send_signal(signal.SIGTERM)
    assert proxy.wait(DEADLINE) == 0


@pytest.mark.parametrize("delay", ["1h", "0s"])
def test_until_the_end_whoever_asks_is_answered_at_once(start: Start, delay: str) -> None:
    """And the access log is opened anew, in both times: the one before the drain, and the drain's."""
    proxy = start(CONFIG.replace("DELAY", delay))
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client, accepted(server):
        proxy.send_signal(signal.SIGTERM)
        wait_until(lambda: proxy.metrics()["edgeproxy_draining"] == 1, DEADLINE, "it is to end")
        wait_until(lambda: ready(proxy)[0] == 503, DEADLINE, "it says that it ends")
        (line,) = proxy.connections()
        assert line["peer"] == own(client), "who is here still"
        told = json.loads(proxy.ask("reload", "--json", status=1))
        assert (told["reloaded"], told["why"]) == (False, "it is told to end")
        with closing(Heir(proxy)) as heir:
            assert heir.hear() == {"error": "it is told to end"}
        (proxy.folder / "log").rename(proxy.folder / "log.1")
        proxy.send_signal(signal.SIGHUP)
        wait_until((proxy.folder / "log").exists, DEADLINE, "the new log")
