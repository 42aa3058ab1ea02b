"""What a client says first decides where it is led, however it is cut, and arrives unchanged."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading

import pytest

from tests.proxy.conftest import Start
from tests.proxy.ends import (
    DEADLINE,
    accepted,
    connect,
    is_reset,
    listening,
    own,
    pieces,
    read,
    read_all,
    refused,
    reset,
)
from tests.proxy.hellos import hello, in_records, long_hello
from tests.proxy.running import Proxy

CONFIG = r"""
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
name = "named"
protocols = ["tls", "http1"]
server_name = '^(?P<host>[^.]+)\.example\.net$'
to = "named"
[[rule]]
name = "nameless"
protocols = ["tls"]
to = "nameless"
[[rule]]
name = "ssh"
protocols = ["ssh"]
to = "ssh"
[[rule]]
name = "silent"
protocols = ["silence"]
to = "silent"
[backend.named]
targets = ["HERE:9001"]
[backend.nameless]
targets = ["HERE:9002"]
[backend.ssh]
targets = ["HERE:9003"]
[backend.silent]
targets = ["HERE:9004"]
[timeouts]
silence = "50s"
preface = "60s"
[limits]
preface_bytes = "8KiB"
"""
PORTS = {"named": 9001, "nameless": 9002, "ssh": 9003, "silent": 9004}
BANNER = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"
REQUEST = b"GET / HTTP/1.1\r\nUser-Agent: test\r\nhOsT:\t nas.example.net:8443 \r\nAccept: */*\r\n\r\n"
FIRST = {
    "tls": (hello("nas.example.net"), "named"),
    "tls-long": (long_hello("nas.example.net"), "named"),
    "tls-records-of-1": (in_records(hello("nas.example.net"), 1), "named"),
    "tls-records-of-100": (in_records(long_hello("nas.example.net"), 100), "named"),
    "tls-capitals": (hello("NAS.Example.NET"), "named"),
    "tls-other-name": (hello("nas.example.com"), "nameless"),
    "tls-no-name": (hello(), "nameless"),
    "tls-no-name-records": (in_records(hello(), 7), "nameless"),
    "http1": (REQUEST, "named"),
    "ssh": (BANNER, "ssh"),
}


@pytest.fixture(scope="module")
def proxy(module_start: Start) -> Proxy:
    """It waits longer for first bytes than a busy machine lets a client pause."""
    return module_start(CONFIG)


def within(silence: str, preface: str) -> str:
    """The configuration with times that a test waits for."""
    return CONFIG.replace("50s", silence).replace("60s", preface)


def leads(proxy: Proxy, said: bytes, rule: str, step: int) -> None:
    with listening(proxy.here, PORTS[rule]) as server, connect(proxy.here, 8443) as client:
        for piece in pieces(said, step):
            client.sendall(piece)
        with accepted(server) as end:
            assert read(end, len(said)) == said
            client.sendall(b"more")
            client.shutdown(socket.SHUT_WR)
            assert read_all(end) == b"more"
        who = own(client)
    line = proxy.ended(who, "client_closed")
    assert (line["rule"], line["backend"], line["bytes_in"]) == (rule, rule, len(said) + 4)


@pytest.mark.parametrize("step", [1, 97, 100_000])
@pytest.mark.parametrize(("said", "rule"), FIRST.values(), ids=FIRST)
def test_what_is_said_first_leads_to_the_rule_in_pieces_of_any_size(
    proxy: Proxy, said: bytes, rule: str, step: int
) -> None:
    leads(proxy, said, rule, step)


def test_what_was_found_is_in_the_log(proxy: Proxy) -> None:
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client:
        client.sendall(hello("nas.example.net", ("h2", "http/1.1")))
        reset(accepted(server))
        assert is_reset(client)
        who = own(client)
    line = proxy.line(who)
    assert (line["protocol"], line["server_name"], line["alpn"]) == ("tls", "nas.example.net", ["h2", "http/1.1"])


@pytest.mark.parametrize(
    ("command", "rule", "protocol"),
    [
        (["openssl", "s_client", "-connect", "HERE:8443", "-servername", "nas.example.net"], "named", "tls"),
        (["openssl", "s_client", "-connect", "HERE:8443", "-noservername", "-tls1_2"], "nameless", "tls"),
        (["curl", "-sk", "-m", "60", "--connect-to", "::HERE:", "https://nas.example.net:8443/"], "named", "tls"),
        (["curl", "-s", "-m", "60", "--connect-to", "::HERE:", "http://nas.example.net:8443/"], "named", "http1"),
        (["ssh", "-o", "BatchMode=yes", "-F", "/dev/null", "-p", "8443", "HERE"], "ssh", "ssh"),
    ],
)
def test_real_clients_are_led(proxy: Proxy, command: list[str], rule: str, protocol: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    words = [word.replace("HERE", proxy.here) for word in command]
    with (
        listening(proxy.here, PORTS[rule]) as server,
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as client,
    ):
        with accepted(server) as end:
            assert end.recv(1)
            (connection,) = [line for line in proxy.connections() if line["rule"] == rule]
            assert connection["protocol"] == protocol
            reset(end)
        client.wait(DEADLINE)
    proxy.ended(connection["peer"], "backend_reset")


def test_who_says_nothing_is_led_by_the_rule_of_silence(start: Start) -> None:
    proxy = start(within("300ms", "60s"))
    with listening(proxy.here, 9004) as server, connect(proxy.here, 8443) as client:
        with accepted(server) as end:
            end.sendall(b"220 ready\r\n")
        assert read_all(client) == b"220 ready\r\n"
        who = own(client)
    line = proxy.ended(who, "backend_closed")
    assert line["rule"] == "silent"
    assert line["preface_us"] >= 300_000


def test_who_has_said_a_byte_is_not_silent_and_ends_by_the_time_for_first_bytes(start: Start) -> None:
    proxy = start(within("6s", "8s"))
    with connect(proxy.here, 8443) as client:
        client.sendall(b"S")
        assert is_reset(client)
        who = own(client)
    line = proxy.ended(who, "preface_timeout")
    assert line["total_us"] > 7_900_000


def test_a_byte_now_and_then_does_not_put_the_end_off(start: Start) -> None:
    proxy = start(within("6s", "8s"))
    said = in_records(hello("nas.example.net"), 1)
    with connect(proxy.here, 8443) as client:
        who, stop = own(client), threading.Event()
        try:
            for piece in pieces(said, 1):
                client.sendall(piece)
                assert not stop.wait(0.1)  # a pace, not a wait for something
        except (ConnectionResetError, BrokenPipeError):
            pass
    proxy.ended(who, "preface_timeout")


def test_what_cannot_be_any_of_the_protocols_is_refused_at_once(proxy: Proxy) -> None:
    who = refused(proxy.here, 8443, b"\0\0\0\0\0\0\0\0")
    assert proxy.ended(who, "no_rule")["total_us"] < 40_000_000, "it waits for neither of the two times"


LONG_REQUEST = b"GET / HTTP/1.1\r\nA: " + b"a" * 6000 + b"\r\nHost: nas.example.net\r\n\r\n"


@pytest.mark.parametrize(("limit", "is_led"), [("4KiB", False), ("7KiB", True)])
def test_first_bytes_are_kept_up_to_the_limit(start: Start, limit: str, *, is_led: bool) -> None:
    proxy = start(CONFIG.replace("8KiB", limit))
    if is_led:
        leads(proxy, LONG_REQUEST, "named", 100_000)
        return
    who = refused(proxy.here, 8443, LONG_REQUEST)
    proxy.ended(who, "preface_too_long")


@pytest.mark.parametrize("ending", ["fin", "reset"])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", REQUEST[:20], BANNER[:3]])
def test_who_leaves_before_it_is_known_what_is_spoken_left_early(proxy: Proxy, said: bytes, ending: str) -> None:
    with connect(proxy.here, 8443) as client:
        client.sendall(said)
        who = own(client)
        if ending == "fin":
            client.shutdown(socket.SHUT_WR)
            assert is_reset(client)
        else:
            reset(client)
    proxy.ended(who, "client_left_early")


def test_what_is_spoken_is_counted(start: Start) -> None:
    proxy = start(CONFIG)
    for said, rule in (FIRST["tls"], FIRST["http1"], FIRST["ssh"]):
        leads(proxy, said, rule, 100_000)
    metrics = proxy.metrics()
    for protocol in ("tls", "http1", "ssh"):
        assert metrics[f'edgeproxy_recognised_total{{protocol="{protocol}"}}'] == 1
    assert metrics['edgeproxy_rule_chosen_total{rule="named"}'] == 2
    assert metrics["edgeproxy_preface_bytes_sum"] >= sum(len(FIRST[key][0]) for key in ("tls", "http1", "ssh"))
