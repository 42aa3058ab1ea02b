"""PROXY headers of peers: who may send one, what is believed, what becomes of one that is broken, late or missing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.proxy import proxy_protocol as pp
from tests.proxy.conftest import Start
from tests.proxy.ends import accepted, connect, is_reset, listening, own, pieces, read, read_all
from tests.proxy.running import Line, Proxy

# Peers by their source address: 127.0.0.1 must, 127.0.0.2 may, the rest of 127.0.0.0/29 does not.
CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
proxy_header = [
  {from = "127.0.0.1/32", policy = "require"},
  {from = "127.0.0.2/32", policy = "optional"},
  {from = "127.0.0.0/29", policy = "never"},
]
[[rule]]
from = ["203.0.113.0/24", "2001:db8::/32"]
name = "named"
to = "named"
[[rule]]
name = "plain"
to = "plain"
[backend.named]
targets = ["HERE:9001"]
[backend.plain]
targets = ["HERE:9002"]
[timeouts]
header = "HEADER"
silence = "SILENCE"
"""
# Longer than a busy machine lets a client pause.
PATIENT = CONFIG.replace("HEADER", "60s").replace("SILENCE", "50s")
MUST, MAY, NOT, OTHER = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.9"
HEADERS = {
    "v1": pp.v1(),
    "v1-ipv6": pp.v1(pp.ENDS6),
    "v2": pp.v2(),
    "v2-ipv6": pp.v2(pp.ENDS6),
    "v2-tlvs": pp.v2(tlvs=pp.tlv(pp.NOOP, b"\0") + pp.tlv(0xE0, b"own") + pp.tlv(pp.AUTHORITY, b"a.example.net")),
    "v2-sum": pp.with_sum(),
}
AS_IT_IS = {
    "v1-unknown": b"PROXY UNKNOWN\r\n",
    "v1-unknown-long": b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    "v2-local": pp.v2(None, command=pp.LOCAL),
    "v2-local-of-a-client": pp.v2(command=pp.LOCAL),
    "v2-unspec": pp.v2(None),
    "v2-unspec-with-bytes": pp.v2(None, tlvs=pp.tlv(pp.NOOP, b"")),
    "v2-unix": pp.v2(None, tlvs=bytes(216), family=pp.UNIX),
    "v2-unix-datagram": pp.v2(None, tlvs=bytes(216), family=pp.UNIX + 1),
    "v2-local-of-a-datagram": pp.v2(command=pp.LOCAL, family=pp.UDP4),
}
BROKEN = {
    "v1-lf": b"PROXY TCP4 203.0.113.7 198.51.100.1 1 2\n\r\n",
    "v1-zeros": b"PROXY TCP4 203.0.113.07 198.51.100.1 1 2\r\n",
    "v1-port": b"PROXY TCP4 203.0.113.7 198.51.100.1 65536 2\r\n",
    "v1-family": b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
    "v1-long": b"PROXY UNKNOWN " + b"x" * 120 + b"\r\n",
    "v2-version": pp.v2(command=0x31),
    "v2-command": pp.v2(command=0x22),
    "v2-family": pp.v2(family=0x41),
    "v2-of-a-datagram": pp.v2(family=pp.UDP4),
    "v2-of-a-datagram-ipv6": pp.v2(pp.ENDS6, family=pp.UDP6),
    "v2-short": pp.SIGNATURE + b"\x21\x11\0\0",
    "v2-tlv": pp.v2(tlvs=b"\x01\0\x09h2"),
    "v2-sum": pp.with_sum(wrong_by=1),
}


@pytest.fixture(scope="module")
def proxy(module_start: Start) -> Proxy:
    return module_start(PATIENT)


@pytest.fixture(scope="module")
def named(proxy: Proxy) -> Iterator[socket.socket]:
    with listening(proxy.here, 9001) as server:
        yield server


@pytest.fixture(scope="module")
def plain(proxy: Proxy) -> Iterator[socket.socket]:
    with listening(proxy.here, 9002) as server:
        yield server


def through(proxy: Proxy, backend: socket.socket, source: str, sent: bytes, *, step: int = 0) -> tuple[bytes, str]:
    """What the backend gets of a client that sends this and ends; and who the client was."""
    with connect(proxy.here, 8443, source) as client:
        who = own(client)
        for piece in pieces(sent, step or len(sent)):
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        with accepted(backend) as end:
            got = read_all(end)
            end.sendall(b"answer")
        assert read_all(client) == b"answer"
    return got, who


def believed(line: Line, header: bytes) -> None:
    decoded = pp.decode(header)
    (source, port), (to, to_port) = decoded.source, decoded.destination
    shape = "[{}]:{}" if ":" in source else "{}:{}"
    assert (line["client"], line["original_dst"]) == (shape.format(source, port), shape.format(to, to_port))
    assert (line["header_in"], line["rule"]) == (f"v{decoded.version}", "named")


@pytest.mark.parametrize("source", [MUST, MAY])
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_of_a_trusted_peer_is_believed_and_taken_off(
    proxy: Proxy, named: socket.socket, source: str, header: bytes
) -> None:
    got, who = through(proxy, named, source, header + b"payload")
    assert got == b"payload"
    line = proxy.ended(who, "client_closed")
    believed(line, header)
    assert (line["bytes_in"], line["bytes_out"]) == (7, 6)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_may_be_cut_anywhere(proxy: Proxy, named: socket.socket, header: bytes) -> None:
    whole, clients = header + b"p", []
    for cut in range(1, len(whole)):
        with connect(proxy.here, 8443, MUST) as client:
            clients.append(own(client))
            client.sendall(whole[:cut])
            client.sendall(whole[cut:])
            with accepted(named) as end:
                assert read(end, 1) == b"p", cut
                client.shutdown(socket.SHUT_WR)
                assert read_all(end) == b"", cut
    got, who = through(proxy, named, MUST, header + b"payload", step=1)
    assert got == b"payload"
    for client_name in [*clients, who]:
        believed(proxy.line(client_name), header)


@pytest.mark.parametrize("source", [MUST, MAY])
@pytest.mark.parametrize("header", AS_IT_IS.values(), ids=AS_IT_IS)
def test_a_header_without_a_client_leaves_the_peer_as_it_is(
    proxy: Proxy, plain: socket.socket, source: str, header: bytes
) -> None:
    got, who = through(proxy, plain, source, header + b"payload")
    assert got == b"payload"
    line = proxy.ended(who, "client_closed")
    assert (line["client"], line["original_dst"]) == (who, f"{proxy.here}:8443")
    assert (line["header_in"], line["rule"]) == ("local", "plain")


@pytest.mark.parametrize("source", [MUST, MAY])
@pytest.mark.parametrize("header", BROKEN.values(), ids=BROKEN)
def test_a_broken_header_of_a_trusted_peer_is_refused(proxy: Proxy, source: str, header: bytes) -> None:
    with connect(proxy.here, 8443, source) as client:
        who = own(client)
        client.sendall(header + b"payload")
        assert is_reset(client)
    line = proxy.ended(who, "header_broken")
    assert line["header_in"] == "broken"
    assert line["close_detail"]
    assert "backend" not in line


@pytest.mark.parametrize("header", [*HEADERS.values(), *AS_IT_IS.values(), *BROKEN.values()])
@pytest.mark.parametrize("source", [NOT, OTHER])
def test_of_an_untrusted_peer_a_header_is_payload(
    proxy: Proxy, plain: socket.socket, source: str, header: bytes
) -> None:
    got, who = through(proxy, plain, source, header + b"payload")
    assert got == header + b"payload"
    line = proxy.line(who)
    assert (line["client"], line["header_in"], line["close"]) == (who, "not_expected", "client_closed")


@pytest.mark.parametrize("inner", [pp.v1(), pp.v2(), pp.v2(pp.ENDS6)])
def test_only_the_outer_of_two_headers_is_taken_off(proxy: Proxy, named: socket.socket, inner: bytes) -> None:
    outer = pp.v2((("203.0.113.99", 1), ("198.51.100.2", 2)))
    got, who = through(proxy, named, MUST, outer + inner + b"payload")
    assert got == inner + b"payload"
    believed(proxy.line(who), outer)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"\r\n\r\n\0\r\nQUIX", b"PROXZ", b"\r"])
def test_who_must_send_a_header_and_sends_something_else_is_refused(proxy: Proxy, sent: bytes) -> None:
    with connect(proxy.here, 8443, MUST) as client:
        who = own(client)
        client.sendall(sent)
        if sent == b"\r":
            client.shutdown(socket.SHUT_WR)  # so far it might become one
        assert is_reset(client)
    assert proxy.ended(who, "header_missing")["header_in"] == "missing"


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"\r\n\r\n\0\r\nQUIX", b"PROXZ", b"PROX", b"\r"])
def test_who_may_send_a_header_and_sends_something_else_is_led_on(
    proxy: Proxy, plain: socket.socket, sent: bytes
) -> None:
    got, who = through(proxy, plain, MAY, sent)
    assert got == sent
    line = proxy.ended(who, "client_closed")
    assert (line["client"], line["header_in"]) == (who, "absent")


def test_who_may_send_a_header_and_says_nothing_is_led_on_after_the_silence(start: Start) -> None:
    proxy = start(CONFIG.replace("HEADER", "10m").replace("SILENCE", "200ms"))
    with listening(proxy.here, 9002) as plain, connect(proxy.here, 8443, MAY) as client:
        who = own(client)
        with accepted(plain) as end:
            end.sendall(b"SSH-2.0-server\r\n")
            assert read(client, 16) == b"SSH-2.0-server\r\n"
    line = proxy.line(who)
    assert line["header_in"] == "absent"
    assert line["total_us"] > 150_000


def test_a_header_that_does_not_come_or_is_not_whole_in_time_is_refused(start: Start) -> None:
    """Of whom may send one, too, once it has begun; one byte before the end of the time gives no more time."""
    proxy = start(CONFIG.replace("HEADER", "3s").replace("SILENCE", "50s"))
    begun = {(source, part): connect(proxy.here, 8443, source) for source, part in LATE}
    for (_, part), client in begun.items():
        client.sendall(part)
    names = {key: own(client) for key, client in begun.items()}
    for client in begun.values():
        assert is_reset(client)
        client.close()
    for name in names.values():
        line = proxy.ended(name, "header_timeout")
        assert line["header_in"] == "timed_out"
        assert line["total_us"] > 2_900_000


LATE = [(MUST, b""), (MUST, pp.v2()[:-1]), (MUST, pp.v1()[:-1]), (MUST, b"\r"), (MAY, pp.v2()[:20]), (MAY, b"PROXY ")]


def test_headers_are_counted_by_what_became_of_them(start: Start) -> None:
    proxy = start(PATIENT)
    with listening(proxy.here, 9001) as server, listening(proxy.here, 9002) as other:
        _, who = through(proxy, server, MUST, pp.v1() + b"x")
        proxy.line(who)
        _, who = through(proxy, server, MUST, pp.v2() + b"x")
        proxy.line(who)
        _, who = through(proxy, other, MUST, pp.v2(None, command=pp.LOCAL) + b"x")
        proxy.line(who)
        _, who = through(proxy, other, MAY, b"x")
        proxy.line(who)
        _, who = through(proxy, other, OTHER, b"x")
        proxy.line(who)
    count = 'edgeproxy_proxy_headers_received_total{{outcome="{}"}}'
    metrics = proxy.metrics()
    seen = {outcome: metrics[count.format(outcome)] for outcome in ("v1", "v2", "local", "absent", "broken")}
    assert seen == {"v1": 1, "v2": 1, "local": 1, "absent": 1, "broken": 0}
