"""Checks of other proxies: one that speaks for nobody and says nothing is counted, and writes no line."""

from __future__ import annotations

import json
import socket

import pytest

from lab.realise.asking import wait_until
from tests.proxy import proxy_protocol as pp
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, listening, own, read, read_all, reset
from tests.proxy.running import Proxy

EDGE = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
to = "home"
[backend.home]
targets = ["HOME:8443"]
health = {interval = "50ms", timeout = "50ms", rise = 1, fall = 1000}
"""
HOME = """
[listener.in]
tcp = ["HERE:8443"]
proxy_header = [
  {from = "127.0.0.1/32", policy = "require"},
  {from = "127.0.0.2/32", policy = "optional"},
]
[[rule]]
protocols = ["ssh"]
to = "out"
[backend.out]
targets = ["HERE:9001"]
"""
AT_ONCE = HOME.replace('protocols = ["ssh"]\n', "")
# As the shipped home.toml has it: a last rule for whatever else there is. Nobody listens at its backend.
WITH_THE_REST = f"""{HOME}
[[rule]]
name = "others"
to = "others"
[backend.others]
targets = ["HERE:9"]
"""
MUST, MAY, OTHER = "127.0.0.1", "127.0.0.2", "127.0.0.3"


def ends(proxy: Proxy, reason: str) -> float:
    return proxy.metrics()[f'edgeproxy_closed_total{{transport="tcp",reason="{reason}"}}']


def checked(proxy: Proxy, times: int) -> None:
    wait_until(lambda: ends(proxy, "health_check") >= times, DEADLINE, f"{times} checks are counted")


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_an_edge_checks_its_home_and_home_writes_nothing_of_it(start: Start, form: str) -> None:
    home = start(HOME)
    edge = start(EDGE.replace("HOME", home.here) + f'send_proxy = "{form}"\n')
    checked(home, 5)
    headers = 'edgeproxy_proxy_headers_received_total{{outcome="{}"}}'
    outcome = headers.format("local" if form == "v2" else "v1")
    # A check that the time is over for before its header is sent counts too, but it has none.
    wait_until(lambda: home.metrics()[outcome] >= 5, DEADLINE, "headers of checks")
    assert home.metrics()[headers.format("absent")] == 0

    def conditions() -> list[str]:
        (backend,) = json.loads(edge.ask("top", "--once", "--json"))["backends"]
        return [target["condition"] for target in backend["targets"]]

    wait_until(lambda: conditions() == ["up"], DEADLINE, "it is up")
    with listening(home.here, 9001) as server, connect(edge.here, 8443) as client:
        client.sendall(b"SSH-2.0-client\r\n")
        with accepted(server) as end:
            assert read(end, 16) == b"SSH-2.0-client\r\n"
            who = own(client)
    checked(home, int(ends(home, "health_check")) + 2)
    wait_until(home.lines, DEADLINE, "the client's line")
    assert [line["client"] for line in home.lines()] == [who], "no line of a check"


def own_line(client: socket.socket) -> bytes:
    return pp.v1((client.getsockname(), client.getpeername()))


@pytest.mark.parametrize(
    "config", [HOME, AT_ONCE, WITH_THE_REST], ids=["by-first-bytes", "at-once", "with-a-rule-for-the-rest"]
)
@pytest.mark.parametrize(
    ("source", "form"),
    [(MUST, "bare"), *((source, form) for source in (MUST, MAY) for form in ("v1-own", "v1-unknown", "v2-local"))],
)
@pytest.mark.parametrize("end", ["fin", "reset"])
def test_who_speaks_for_nobody_and_says_nothing_is_a_check(
    start: Start, config: str, source: str, form: str, end: str
) -> None:
    proxy = start(config)
    with listening(proxy.here, 9001) as server:
        client = connect(proxy.here, 8443, source)
        said = {"bare": b"", "v1-own": own_line(client), "v1-unknown": b"PROXY UNKNOWN\r\n"}
        client.sendall(said.get(form, pp.v2(None, command=pp.LOCAL)))
        if end == "reset":
            reset(client)
        else:
            client.close()
        if config == AT_ONCE and form != "bare" and end == "fin":
            accepted(server).close()
        checked(proxy, 1)
    assert proxy.lines() == []
    assert ends(proxy, "client_left_early") == 0
    if config == WITH_THE_REST:
        assert proxy.metrics()['edgeproxy_rule_chosen_total{rule="others"}'] == 0


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_who_may_come_without_a_header_and_says_nothing_is_a_client_that_left(start: Start, end: str) -> None:
    proxy = start(HOME)
    client = connect(proxy.here, 8443, MAY)
    who = own(client)
    if end == "reset":
        reset(client)
    else:
        client.close()
    proxy.ended(who, "client_left_early")
    assert ends(proxy, "health_check") == 0


def test_who_speaks_for_nobody_and_is_told_something_is_a_client(start: Start) -> None:
    proxy = start(AT_ONCE)
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443, MUST) as client:
        client.sendall(pp.v2(None, command=pp.LOCAL))
        with accepted(server) as end:
            end.sendall(b"a secret")
            assert read(client, 8) == b"a secret"
            who = own(client)
            client.close()
            assert read_all(end) == b""
    assert proxy.ended(who, "client_closed")["bytes_out"] == 8
    assert ends(proxy, "health_check") == 0


@pytest.mark.parametrize("form", ["v1-own", "v1-unknown", "v2-local"])
def test_who_speaks_for_nobody_and_says_something_is_a_client(start: Start, form: str) -> None:
    proxy = start(HOME)
    said = {"v1-unknown": b"PROXY UNKNOWN\r\n", "v2-local": pp.v2(None, command=pp.LOCAL)}
    with connect(proxy.here, 8443, MUST) as client:
        client.sendall(said.get(form, own_line(client)) + b"SS")
        early = own(client)
    proxy.ended(early, "client_left_early")
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443, MUST) as client:
        client.sendall(said.get(form, own_line(client)) + b"SSH-2.0-client\r\n")
        client.shutdown(socket.SHUT_WR)
        with accepted(server) as end:
            assert read_all(end) == b"SSH-2.0-client\r\n"
        assert read_all(client) == b""
        proxy.ended(own(client), "client_closed")
    assert ends(proxy, "health_check") == 0


def test_a_client_of_a_peer_and_who_is_not_trusted_leave_a_line(start: Start) -> None:
    proxy = start(HOME)
    with connect(proxy.here, 8443, MUST) as client:
        client.sendall(pp.v2())
        of_a_client = own(client)
    proxy.ended(of_a_client, "client_left_early")
    with connect(proxy.here, 8443, OTHER) as client:
        untrusted = own(client)
    proxy.ended(untrusted, "client_left_early")
    assert ends(proxy, "health_check") == 0


def test_a_client_whose_peer_speaks_from_its_own_address_is_no_check_of_that_peer(start: Start) -> None:
    proxy = start(WITH_THE_REST.replace(":9001", ":9").replace(":9", ":9001"))
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443, MUST) as client:
        client.sendall(pp.v2((client.getsockname(), client.getpeername())))
        client.shutdown(socket.SHUT_WR)
        with accepted(server) as end:
            assert read_all(end) == b""
            end.sendall(b"the server speaks first")
        assert read_all(client) == b"the server speaks first"
        proxy.ended(own(client), "client_closed")
    assert ends(proxy, "health_check") == 0
