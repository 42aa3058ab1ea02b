"""Rules: the first that holds decides, and each of their conditions chooses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, listening, own, read, read_all, refused
from tests.proxy.hellos import hello
from tests.proxy.running import Proxy

HELLOS = Path(__file__).parents[2] / "proxy/tests/vectors/client_hello"
BACKENDS = """
[backend.a]
targets = ["HERE:9001"]
[backend.b]
targets = ["HERE:9002"]
[timeouts]
silence = "50s"
preface = "60s"
"""
LISTENER = """
[listener.in]
tcp = ["HERE:8443"]
"""
OTHERS = """
[[rule]]
name = "others"
to = "b"
"""


def led(proxy: Proxy, said: bytes, backend: int, *, port: int = 8443, source: str = "") -> str:
    """The rule by which a client is led to this backend, which gets what it said."""
    with listening(proxy.here, backend) as server, connect(proxy.here, port, source) as client:
        client.sendall(said)
        with accepted(server) as end:
            assert read(end, len(said)) == said
        assert read_all(client) == b""
        client.shutdown(socket.SHUT_WR)
        who = own(client)
    line = proxy.ended(who, "backend_closed")
    assert line["target"] == f"{proxy.here}:{backend}"
    return str(line["rule"])


def test_the_first_rule_that_holds_decides(start: Start) -> None:
    rules = [
        "[[rule]]\nname = 'one'\nprotocols = ['tls']\nto = 'a'\n",
        "[[rule]]\nname = 'two'\nserver_name = '^x\\.example\\.net$'\nto = 'a'\n",
    ]
    request = b"GET / HTTP/1.1\r\nHost: x.example.net\r\n\r\n"
    for order, of_hello in ((rules, "one"), (list(reversed(rules)), "two")):
        proxy = start(LISTENER + "".join(order) + OTHERS + BACKENDS)
        assert led(proxy, hello("x.example.net"), 9001) == of_hello
        assert led(proxy, hello("y.example.net"), 9001) == "one"
        assert led(proxy, request, 9001) == "two"
        assert led(proxy, b"SSH-2.0-x\r\n", 9002) == "others"


def test_a_later_rule_does_not_overtake_one_that_may_still_hold(start: Start) -> None:
    """A hello that is not whole may still ask for the name; at the end of the time, it counts as one that does not."""
    text = LISTENER + "[[rule]]\nname = 'name'\nserver_name = '^a\\.example\\.net$'\nto = 'a'\n" + OTHERS + BACKENDS
    proxy = start(text)
    whole = hello("a.example.net")
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client:
        client.sendall(whole[:-1])
        proxy.wait_for(lambda line: line["peer"] == own(client) and line["rule"] is None, "a wait for the name")
        client.sendall(whole[-1:])
        with accepted(server) as end:
            assert read(end, len(whole)) == whole
    proxy.reload(text.replace('"60s"', '"600ms"'))
    with listening(proxy.here, 9002) as server, connect(proxy.here, 8443) as client:
        client.sendall(whole[:-1])
        with accepted(server) as end:
            assert read(end, len(whole) - 1) == whole[:-1]
        who = own(client)
    line = proxy.line(who)
    assert line["rule"] == "others"
    assert line["preface_us"] > 500_000


def test_alpn_chooses(start: Start) -> None:
    proxy = start(LISTENER + "[[rule]]\nname = 'two'\nalpn = ['h2', 'x']\nto = 'a'\n" + OTHERS + BACKENDS)
    assert led(proxy, hello("n", ("http/1.1", "h2")), 9001) == "two"
    assert led(proxy, hello("n", ("http/1.1",)), 9002) == "others"
    assert led(proxy, hello("n"), 9002) == "others"


def test_a_hidden_hello_chooses_and_the_log_tells_of_it(start: Start) -> None:
    """GREASE cannot be told apart from it."""
    proxy = start(LISTENER + "[[rule]]\nname = 'hides'\nech = true\nto = 'a'\n" + OTHERS + BACKENDS)
    assert led(proxy, (HELLOS / "chromium.bin").read_bytes(), 9001) == "hides"
    assert led(proxy, (HELLOS / "openssl_s_client_name.bin").read_bytes(), 9002) == "others"
    assert led(proxy, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 9002) == "others"
    assert [line.get("ech") for line in proxy.lines()] == [True, None, None]
    open_ones = "[[rule]]\nname = 'open'\nech = false\nto = 'b'\n"
    proxy.reload(LISTENER + open_ones + OTHERS.replace('"b"', '"a"') + BACKENDS)
    assert led(proxy, (HELLOS / "chromium.bin").read_bytes(), 9001) == "others"
    assert led(proxy, (HELLOS / "openssl_s_client_name.bin").read_bytes(), 9002) == "open"


def test_the_source_chooses(start: Start) -> None:
    rule = "[[rule]]\nname = 'near'\nfrom = ['127.0.0.8/29', '127.0.1.1/32']\nto = 'a'\n"
    proxy = start(LISTENER + rule + OTHERS + BACKENDS)
    sources = {"127.0.0.7": "others", "127.0.0.8": "near", "127.0.0.15": "near", "127.0.0.16": "others"}
    for source, expected in (sources | {"127.0.1.1": "near"}).items():
        assert led(proxy, b"x", 9001 if expected == "near" else 9002, source=source) == expected


def test_the_port_chooses_among_those_of_a_listener(start: Start) -> None:
    listener = '[listener.in]\ntcp = ["HERE:8443", "HERE:8450-8453"]\n'
    rule = "[[rule]]\nname = 'some'\nports = [8443, '8452-8453']\nto = 'a'\n"
    proxy = start(listener + rule + OTHERS + BACKENDS)
    ports = {8443: "some", 8450: "others", 8451: "others", 8452: "some", 8453: "some"}
    for port, expected in ports.items():
        assert led(proxy, b"x", 9001 if expected == "some" else 9002, port=port) == expected
    assert [line["original_dst"] for line in proxy.lines()] == [f"{proxy.here}:{port}" for port in ports]


def test_the_listener_chooses(start: Start) -> None:
    listeners = '[listener.in]\ntcp = ["HERE:8443"]\n[listener.two]\ntcp = ["HERE:8444"]\n'
    proxy = start(listeners + "[[rule]]\nname = 'two'\nlisteners = ['two']\nto = 'a'\n" + OTHERS + BACKENDS)
    assert led(proxy, b"x", 9001, port=8444) == "two"
    assert led(proxy, b"x", 9002, port=8443) == "others"


def test_the_port_that_was_asked_for_may_stand_in_a_target(start: Start) -> None:
    listener = '[listener.in]\ntcp = ["HERE:8443-8444"]\n'
    there = 'to = "same"\n[backend.same]\ntargets = ["127.0.5.5:$port"]\n'
    proxy = start(f"{listener}[[rule]]\n{there}")
    for port in (8443, 8444):
        with listening("127.0.5.5", port) as server, connect(proxy.here, port) as client:
            accepted(server).close()
            assert read_all(client) == b""


@pytest.mark.parametrize("said", [b"", b"x"])
def test_a_rule_may_refuse_before_a_byte_was_said(start: Start, said: bytes) -> None:
    rule = "[[rule]]\nname = 'no'\nfrom = ['127.0.0.5/32']\nrefuse = true\n"
    proxy = start(LISTENER + rule + OTHERS + BACKENDS.replace("[backend.a]", "[backend.unused]"))
    who = refused(proxy.here, 8443, said, "127.0.0.5")
    line = proxy.ended(who, "refused_by_rule")
    assert line["rule"] == "no"
    assert proxy.metrics()['edgeproxy_rule_chosen_total{rule="no"}'] == 1
    assert led(proxy, b"x", 9002, source="127.0.0.6") == "others"


def test_who_matches_no_rule_is_refused(start: Start) -> None:
    proxy = start(LISTENER + "[[rule]]\nname = 'near'\nfrom = ['127.0.0.8/32']\nto = 'a'\n[backend.a]\n" + TARGET)
    who = refused(proxy.here, 8443, source="127.0.0.9")
    assert "rule" not in proxy.ended(who, "no_rule")


TARGET = 'targets = ["HERE:9001"]\n'
