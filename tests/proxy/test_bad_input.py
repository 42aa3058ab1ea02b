"""Clients, backends and name servers that behave badly, at every step: others are served, and each ends once."""

from __future__ import annotations

import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest

from lab.realise.asking import wait_until
from tests.proxy import proxy_protocol as pp
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, is_reset, listening, own, pieces, read, read_all, reset
from tests.proxy.hellos import hello, in_records, long_hello, padded_hello
from tests.proxy.running import Line, Proxy

CONFIG = r"""
[listener.in]
tcp = ["HERE:8443"]
[listener.headed]
tcp = ["HERE:8444"]
proxy_header = [{from = "127.0.0.0/8", policy = "require"}]
[listener.others]
tcp = ["HERE:8445"]
[[rule]]
listeners = ["others"]
to = "others"
[[rule]]
name = "looked up"
protocols = ["http1"]
server_name = '^(?P<host>[^.]+)\.example\.net$'
to = "looked-up"
[[rule]]
name = "tls"
protocols = ["tls"]
to = "out"
[[rule]]
name = "nobody"
protocols = ["ssh"]
to = "nobody"
[[rule]]
name = "stuck"
protocols = ["redis"]
to = "stuck"
[backend.looked-up]
targets = ["$host.lan:9001"]
allow_suffixes = [".lan"]
[backend.out]
targets = ["HERE:9001"]
[backend.others]
targets = ["HERE:9004"]
[backend.nobody]
targets = ["HERE:9002"]
[backend.stuck]
targets = ["HERE:9003"]
connect_timeout = "TIMEOUT"
[resolver]
servers = ["HERE:5353"]
timeout = "TIMEOUT"
[limits]
preface_bytes = "PREFACE"
connections_per_source = 5000
"""
NAMED = b"GET / HTTP/1.1\r\nHost: nas.example.net\r\n\r\n"
REDIS = b"*1\r\n$4\r\nPING\r\n"
SSH = b"SSH-2.0-x\r\n"
TLS = hello("a.example")


def config(*, timeout: str = "60s", preface: str = "16KiB") -> str:
    return CONFIG.replace("TIMEOUT", timeout).replace("PREFACE", preface)


@pytest.fixture
def proxy(start: Start) -> Proxy:
    return start(config())


@contextmanager
def silent_names(proxy: Proxy) -> Iterator[socket.socket]:
    """A name server that takes questions and says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names:
        names.bind((proxy.here, 5353))
        names.settimeout(DEADLINE)
        yield names


@contextmanager
def stuck_backend(proxy: Proxy) -> Iterator[None]:
    """One whose queue is full, so that its kernel answers no SYN (listen(2))."""
    with listening(proxy.here, 9003, backlog=0), ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((proxy.here, 9003))
        yield


def is_served(proxy: Proxy) -> None:
    """Somebody who behaves, while others do not."""
    with listening(proxy.here, 9004) as server, connect(proxy.here, 8445) as client:
        client.sendall(b"question")
        with accepted(server) as end:
            assert read(end, 8) == b"question"
            end.sendall(b"answer")
        assert read_all(client) == b"answer"


def accounts(proxy: Proxy, came: int) -> Counter[str]:
    """Ends by their reason, once all who came have ended: as many as connections, and as lines, but for peers' checks.

    Whom the kernel has taken for a worker that has had no time yet is not among those who are open, and must be met.
    """

    def opened() -> int:
        return int(sum(count for key, count in proxy.metrics().items() if key.startswith("edgeproxy_opened_total")))

    def look() -> bool:
        return opened() >= came and sum(map(proxy.active, ("in", "headed", "others"))) == 0

    wait_until(look, 3 * DEADLINE, "all have come and ended")
    metrics = proxy.metrics()
    of = re.compile(r'edgeproxy_closed_total\{.*reason="(.*)"\}')
    closed = Counter({match[1]: int(count) for key, count in metrics.items() if count and (match := of.fullmatch(key))})
    assert sum(closed.values()) == opened() == came
    in_log = Counter({reason: count for reason, count in closed.items() if reason != "health_check"})
    wait_until(lambda: len(proxy.lines()) == in_log.total(), DEADLINE, "all are in the log")
    lines = proxy.lines()
    assert Counter(line["close"] for line in lines) == in_log
    assert len({line["unique_id"] for line in lines}) == len(lines), "one line each"
    return closed


# Resets, whatever the proxy waits for.


def _is_in(line: Line) -> bool:
    return not line.get("rule")


def _is_at(proxy: Proxy, who: str, is_there: Callable[[Line], bool]) -> bool:
    return any(line["peer"] == who and is_there(line) for line in proxy.connections())


def _at_rule(rule: str) -> Callable[[Line], bool]:
    return lambda line: line.get("rule") == rule


STATES = {
    "accepted": (8443, b"", _is_in, "client_left_early"),
    "before the header": (8444, b"", _is_in, "health_check"),  # of a peer that may speak for others
    "in the header": (8444, pp.v2()[:20], _is_in, "client_left_early"),
    "after the header": (8444, pp.v2(), lambda line: line["client"] != line["peer"], "client_left_early"),
    "in the hello": (8443, TLS[:50], _is_in, "client_left_early"),
    "while the name is looked up": (8443, NAMED, _at_rule("looked up"), "client_reset"),
    "while the backend is dialled": (8443, REDIS, _at_rule("stuck"), "client_reset"),
}


@pytest.mark.parametrize("state", STATES)
def test_a_reset_in_any_state_is_one_end_and_frees_what_was_held(proxy: Proxy, state: str) -> None:
    port, said, is_there, reason = STATES[state]
    with silent_names(proxy), stuck_backend(proxy):
        for _ in range(3):
            with connect(proxy.here, port) as client:
                client.sendall(said)
                who = own(client)
                wait_until(partial(_is_at, proxy, who, is_there), DEADLINE, state)
                reset(client)
            if reason != "health_check":
                proxy.ended(who, reason)
        is_served(proxy)
        ends = accounts(proxy, 4)
    assert ends == {reason: 3, "backend_closed": 1}


# Names.


def test_a_name_server_that_hangs_holds_up_nobody_else_and_has_its_time(start: Start) -> None:
    proxy = start(config(timeout="1s"))
    with silent_names(proxy) as names, ExitStack() as stack:
        clients = []
        for number in range(40):
            clients.append(stack.enter_context(connect(proxy.here, 8443)))
            clients[-1].sendall(NAMED.replace(b"nas", b"nas%d" % number))
        assert names.recv(512)
        is_served(proxy)
        assert all(is_reset(client) for client in clients)
    assert accounts(proxy, 41) == {"name_not_resolved": 40, "backend_closed": 1}


# Hellos.


def test_a_hello_of_64_kib_is_led_where_so_much_may_be_kept(start: Start) -> None:
    proxy = start(config(preface="128KiB") + '[timeouts]\npreface = "60s"\n')
    said = padded_hello("a.example", 64 * 1024 - 1000)
    assert 64 * 1024 - 1000 < len(said) < 66 * 1024
    with listening(proxy.here, 9001) as server, connect(proxy.here, 8443) as client:
        for piece in pieces(said, 1400):
            client.sendall(piece)
        with accepted(server) as end:
            assert read(end, len(said)) == said
        who = own(client)
    assert proxy.line(who)["server_name"] == "a.example"


def test_a_hello_of_64_kib_is_refused_where_less_may_be_kept(proxy: Proxy) -> None:
    with connect(proxy.here, 8443) as client:
        who = own(client)
        with suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(padded_hello("a.example", 64 * 1024 - 1000))
        assert is_reset(client)
    proxy.ended(who, "preface_too_long")


# Backends.


def test_backends_that_never_read_cost_no_more_than_is_stated_and_hold_up_nobody(start: Start) -> None:
    """docs/edgeproxy.md: 32 MiB of a worker, and beyond that 4 KiB of each direction."""
    proxy = start("workers = 1\n" + config())
    before = memory(proxy, "VmRSS")
    with listening(proxy.here, 9001, backlog=512, buffer=4096) as server, ExitStack() as stack:
        for _ in range(150):
            client = stack.enter_context(connect(proxy.here, 8443))
            client.sendall(TLS)
            stack.enter_context(accepted(server))
            client.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    client.send(bytes(1 << 20))
    # What they sent fills the kernel's buffers, and one read of each waits in the proxy.
    assert memory(proxy, "VmHWM") - before < (32 + 1) * 1024 + 150 * 2 * 4 + 8 * 1024
    is_served(proxy)
    accounts(proxy, 151)


def memory(proxy: Proxy, which: str) -> int:
    """In KiB."""
    return int(proxy.status()[which].split()[0])


# All of it together.


KINDS: list[tuple[int, list[bytes]]] = [
    (8443, []),
    (8443, [b"\x16"]),
    (8443, [TLS[:100]]),
    (8443, [TLS]),
    (8443, list(pieces(in_records(TLS, 1), 11))),
    (8443, [long_hello("b.example")]),
    (8443, [padded_hello("c.example", 20_000)]),
    (8443, [SSH]),
    (8443, [REDIS]),
    (8443, [NAMED]),
    (8443, [b"\0" * 4000]),
    (8443, [pp.v2(), TLS]),
    (8444, []),
    (8444, [pp.v1()[:9]]),
    (8444, [pp.v2(), TLS[:9]]),
    (8444, [pp.v1(), TLS]),
    (8444, [pp.with_sum(wrong_by=1), TLS]),
    (8444, [TLS]),
]


def test_of_everything_bad_at_once_each_ends_once_in_the_log_and_in_the_metrics(start: Start) -> None:
    """Half of them leave by a reset, half by an end; the proxy's own ends come between."""
    proxy = start(config(timeout="1s"))
    chance = random.Random(4)
    chosen = [*KINDS * 12]
    chance.shuffle(chosen)
    with silent_names(proxy), stuck_backend(proxy), ExitStack() as stack:
        begun = []
        for port, said in chosen:
            client = stack.enter_context(connect(proxy.here, port))
            with suppress(ConnectionResetError, BrokenPipeError):
                for piece in said:
                    client.sendall(piece)
            begun.append(client)
            if len(begun) % 40 == 0:
                is_served(proxy)
        for client in begun:
            if chance.random() < 0.5:
                reset(client)
            else:
                client.close()
        is_served(proxy)
        ends = accounts(proxy, len(chosen) + len(chosen) // 40 + 1)
    assert set(ends) >= {"client_left_early", "no_rule", "header_broken", "header_missing", "preface_too_long"}
    assert set(ends) >= {"backend_refused", "backend_closed"}
