"""A backend that fails clients of one transport goes on serving those of the other."""

from __future__ import annotations

import json
import socket

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, connect, listening, own
from tests.proxy.running import Proxy
from tests.proxy.udp_bench import udp

FIXED = """
[listener.in]
tcp = ["HERE:8443"]
udp = ["HERE:8443"]
[[rule]]
to = "home"
[backend.home]
targets = ["HERE:9001"]
eject = {failures = 1, duration = "1h"}
fallback = "spare"
[backend.spare]
targets = ["HERE:9002"]
"""


def led_to(proxy: Proxy, client: socket.socket) -> int:
    line = proxy.wait_for(lambda line: line["peer"] == own(client) and line["target"], "its target")
    return int(line["target"].rsplit(":", 1)[1])


def by_tcp(proxy: Proxy) -> int:
    with connect(proxy.here, 8443) as client:
        client.shutdown(socket.SHUT_WR)
        return led_to(proxy, client)


def by_udp(proxy: Proxy, *ends: socket.socket) -> int:
    """The port of the one of these backends that gets a datagram."""
    with udp(proxy.here) as client:
        client.sendto(b"?", (proxy.here, 8443))
        found: list[int] = []

        def is_heard() -> bool:
            for end in ends:
                end.setblocking(False)
                try:
                    end.recv(100)
                except BlockingIOError:
                    continue
                found.append(end.getsockname()[1])
            return bool(found)

        wait_until(is_heard, DEADLINE, "the datagram")
        return found[0]


def told(proxy: Proxy) -> dict[str, float]:
    """What the metrics say of the first one, by transport."""
    up = 'edgeproxy_backend_up{{backend="home",target="{}:9001",transport="{}"}}'
    metrics = proxy.metrics()
    return {
        transport: metrics[key] for transport in ("tcp", "udp") if (key := up.format(proxy.here, transport)) in metrics
    }


def is_told_apart(proxy: Proxy, ejected: str) -> None:
    """Metrics, status and table tell that it rests for this transport, and is up for the other."""
    other = "udp" if ejected == "tcp" else "tcp"
    wait_until(lambda: told(proxy) == {ejected: 0, other: 1}, DEADLINE, "the ejection is told")
    home = next(b for b in json.loads(proxy.ask("top", "--once", "--json"))["backends"] if b["name"] == "home")
    (target,) = home["targets"]
    assert target["condition"] == "ejected", "for some"
    assert {of["transport"]: of["condition"] for of in target["by_transport"]} == {ejected: "ejected", other: "up"}
    table = {"tcp": "tcp EJECTED, udp up", "udp": "tcp up, udp EJECTED"}[ejected]
    assert f"{proxy.here}:9001 ({table})" in proxy.ask("top", "--once")
    assert f"{proxy.here}:9002 up\n" in proxy.ask("top", "--once"), "one word where both are the same"


def test_a_backend_without_udp_keeps_its_clients_of_tcp(start: Start) -> None:
    proxy = start(FIXED)
    with listening(proxy.here, 9001), listening(proxy.here, 9002), udp(proxy.here, 9002) as spare:
        assert by_udp(proxy, spare) == 9002, "nobody takes datagrams at the first"
        is_told_apart(proxy, "udp")
        with udp(proxy.here, 9001) as resting:
            assert by_udp(proxy, spare, resting) == 9002, "it rests for these"
        assert by_tcp(proxy) == 9001


def test_a_backend_without_tcp_keeps_its_clients_of_udp(start: Start) -> None:
    proxy = start(FIXED)
    with udp(proxy.here, 9001) as home, listening(proxy.here, 9002), udp(proxy.here, 9002) as spare:
        assert by_tcp(proxy) == 9002, "nobody listens at the first"
        is_told_apart(proxy, "tcp")
        with listening(proxy.here, 9001):
            assert by_tcp(proxy) == 9002, "it rests for these"
        assert by_udp(proxy, home, spare) == 9001


def test_of_a_transport_at_which_nobody_listens_nothing_is_told(start: Start) -> None:
    proxy = start(FIXED.replace('udp = ["HERE:8443"]', ""))
    wait_until(lambda: told(proxy) == {"tcp": 1}, DEADLINE, "it is up")
