"""Resets at a backend's first moment, while another one is tried, and while the proxy ends: one end each, no leak."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, deaf, is_reset, listening, own, read, reset
from tests.proxy.hellos import hello, padded_hello
from tests.proxy.running import Proxy
from tests.proxy.upgrading import until_ended, upgrading

CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
protocols = ["tls"]
to = "out"
[[rule]]
protocols = ["ssh"]
to = "gone"
[backend.out]
targets = ["HERE:9001"]
send_proxy = "v2"
[backend.gone]
targets = ["HERE:9002"]
fallback = "stuck"
[backend.stuck]
targets = ["HERE:9003"]
connect_timeout = "10m"
[limits]
preface_bytes = "256KiB"
[timeouts]
drain = "10m"
handed_over = "10m"
"""
HEADER = 16 + 12  # bytes: version 2, for IPv4
TLS = hello("a.example")
LONG = padded_hello("a.example", 60_000)  # more than the network takes before the backend reads


@pytest.fixture
def proxy(start: Start) -> Proxy:
    return start(CONFIG)


def descriptors(proxy: Proxy) -> int:
    return len(list(Path(f"/proc/{proxy.pid}/fd").iterdir()))


@contextmanager
def nothing_stays(proxy: Proxy) -> Iterator[None]:
    """Of what happens meanwhile no connection, no place at a backend, and no descriptor."""
    proxy.scrape()
    before = descriptors(proxy)
    yield
    wait_until(lambda: proxy.active("in") == 0, DEADLINE, "no connection")
    held = [value for key, value in proxy.metrics().items() if key.startswith("edgeproxy_backend_active")]
    assert held == [0] * 3
    wait_until(lambda: descriptors(proxy) <= before, DEADLINE, "as many descriptors as before")


@contextmanager
def resetting(proxy: Proxy, after: int) -> Iterator[None]:
    """A backend that resets each connection once it has heard so many bytes."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection = server.accept()[0]
                read(connection, after)
                reset(connection)

    with listening(proxy.here, 9001, buffer=4096) as server:
        server.settimeout(None)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def ends(proxy: Proxy, who: list[str]) -> Counter[str]:
    """Of these clients, each of which has one line."""
    return Counter(str(proxy.line(one)["close"]) for one in who)


@pytest.mark.parametrize("after", [0, 1, 100])
@pytest.mark.parametrize("said", [TLS, LONG], ids=["short", "long"])
def test_a_backend_that_resets_while_header_and_hello_are_written_is_one_reset(
    proxy: Proxy, said: bytes, after: int
) -> None:
    clients = []
    with resetting(proxy, after), nothing_stays(proxy):
        for _ in range(20):
            with connect(proxy.here, 8443) as client:
                clients.append(own(client))
                client.sendall(said)
                assert is_reset(client)
        found = ends(proxy, clients)
    # A reset that overtakes the news that it is connected is a refusal.
    assert set(found) <= ({"backend_reset", "backend_refused"} if after == 0 else {"backend_reset"}), found
    assert found.total() == len(proxy.lines()) == 20


def dialling(proxy: Proxy, port: int) -> int:
    """How many sockets of this host wait for an answer from there (proc_pid_net(5): TCP_SYN_SENT is 02)."""
    to = f"{int.from_bytes(socket.inet_aton(proxy.here), sys.byteorder):08X}:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum((row[2], row[3]) == (to, "02") for row in rows)


def test_a_reset_while_a_fallback_is_dialled_is_one_end(proxy: Proxy) -> None:
    with deaf(proxy.here, 9003), nothing_stays(proxy):
        before = dialling(proxy, 9003)
        for _ in range(3):
            client = connect(proxy.here, 8443)
            who = own(client)
            client.sendall(b"SSH-2.0-x\r\n")
            wait_until(lambda: dialling(proxy, 9003) > before, DEADLINE, "the fallback is dialled")
            reset(client)
            line = proxy.ended(who, "client_reset")
            assert "target" not in line
            wait_until(lambda: dialling(proxy, 9003) == before, DEADLINE, "it is dialled no more")
        assert len(proxy.lines()) == 3


def drain(proxy: Proxy) -> None:
    proxy.send_signal(signal.SIGTERM)
    wait_until(lambda: proxy.metrics()["edgeproxy_draining"] == 1, DEADLINE, "the drain")


def hand_over(proxy: Proxy) -> None:
    with upgrading(proxy) as upgrades:
        upgrades.upgrade()


@pytest.mark.parametrize("way", [drain, hand_over])
def test_resets_while_a_process_ends_are_as_ever_and_the_last_one_ends_it(
    proxy: Proxy, way: Callable[[Proxy], None]
) -> None:
    first = proxy.pid
    with listening(proxy.here, 9001) as server:
        relayed = []
        for _ in range(2):
            client = connect(proxy.here, 8443)
            client.sendall(TLS)
            backend = accepted(server)
            assert read(backend, HEADER + len(TLS))[HEADER:] == TLS
            relayed.append((client, backend))
        early = connect(proxy.here, 8443)
        early.sendall(TLS[:50])
        wait_until(lambda: proxy.active("in") == 3, DEADLINE, "all are there")
        who = [own(client) for client in (relayed[0][0], relayed[1][0], early)]
        way(proxy)
        reset(early)
        (one, its_backend), (other, other_backend) = relayed
        reset(one)
        assert is_reset(its_backend)
        reset(other_backend)
        assert is_reset(other)
        until_ended(first)
        its_backend.close()
        other.close()
    found = [proxy.line_after_end(one)["close"] for one in who]
    assert found == ["client_reset", "backend_reset", "client_left_early"]
    assert len(proxy.lines()) == 3
