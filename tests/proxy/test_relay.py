"""What passes between client and backend: every byte once, ends as they are meant, silence and speed within bounds."""

from __future__ import annotations

import fcntl
import hashlib
import random
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from lab.realise.asking import wait_until
from tests.proxy.conftest import Start
from tests.proxy.ends import DEADLINE, accepted, connect, fill, is_reset, listening, own, read, read_all, reset
from tests.proxy.running import Proxy

CONFIG = """
[listener.in]
tcp = ["HERE:8443"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9001"]
"""
MEGABYTE = 1_000_000
SMALL = 64 * 1024
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(scope="module")
def proxy(module_start: Start) -> Proxy:
    return module_start(CONFIG)


@contextmanager
def relayed(proxy: Proxy, buffer: int = 0) -> Iterator[Pair]:
    """A client and its backend, between whom a byte has passed each way; `buffer` bytes for what they have not read."""
    with listening(proxy.here, 9001, buffer=buffer) as server, pair(proxy, server, buffer) as (client, backend):
        client.sendall(b"c")
        assert read(backend, 1) == b"c"
        backend.sendall(b"b")
        assert read(client, 1) == b"b"
        yield client, backend


@contextmanager
def pair(proxy: Proxy, server: socket.socket, buffer: int = 0) -> Iterator[Pair]:
    with connect(proxy.here, 8443, buffer=buffer) as client, accepted(server) as backend:
        yield client, backend


def blocks(megabytes: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    return (chance.randbytes(MEGABYTE) for _ in range(megabytes))


def send_blocks(end: socket.socket, megabytes: int, seed: int) -> None:
    for block in blocks(megabytes, seed):
        end.sendall(block)
    end.shutdown(socket.SHUT_WR)


def digest(parts: Iterator[bytes]) -> str:
    found = hashlib.blake2b()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def received(end: socket.socket, size: int = 1 << 18) -> Iterator[bytes]:
    return iter(lambda: end.recv(size), b"")


@contextmanager
def beside(act: Callable[[], None]) -> Iterator[None]:
    """Something that a thread does meanwhile."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join(2 * DEADLINE)
        assert not thread.is_alive()


@pytest.mark.essential
def test_a_hundred_megabytes_arrive_after_the_client_has_ended_its_side(proxy: Proxy) -> None:
    with relayed(proxy) as (client, backend):
        client.shutdown(socket.SHUT_WR)
        assert read_all(backend) == b""
        with beside(lambda: send_blocks(backend, 100, seed=1)):
            assert digest(received(client)) == digest(blocks(100, seed=1))
        who = own(client)
    line = proxy.ended(who, "client_closed")
    assert (line["bytes_in"], line["bytes_out"]) == (1, 100 * MEGABYTE + 1)


def test_both_ways_at_once_with_readers_that_stall_lose_nothing(proxy: Proxy) -> None:
    def stalling(end: socket.socket, seed: int, found: list[bool]) -> None:
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:  # buffers of all three processes are full by then
            end.recv(1, socket.MSG_PEEK)
        found.append(digest(received(end, 50_021)) == digest(blocks(12, seed)))

    with relayed(proxy, SMALL) as (client, backend):
        found: list[bool] = []
        with (
            beside(lambda: send_blocks(client, 12, seed=2)),
            beside(lambda: send_blocks(backend, 12, seed=3)),
            beside(lambda: stalling(backend, 2, found)),
        ):
            stalling(client, 3, found)
        assert found == [True, True]
        who = own(client)
    line = proxy.line(who)
    assert line["close"] in {"client_closed", "backend_closed"}
    assert (line["bytes_in"], line["bytes_out"]) == (12 * MEGABYTE + 1, 12 * MEGABYTE + 1)


@pytest.mark.parametrize("first", ["client", "backend"])
def test_one_direction_may_end_and_the_other_go_on(proxy: Proxy, first: str) -> None:
    with relayed(proxy) as (client, backend):
        ending, other = (client, backend) if first == "client" else (backend, client)
        ending.shutdown(socket.SHUT_WR)
        assert read_all(other) == b""
        for _ in range(3):
            other.sendall(b"more")
            assert read(ending, 4) == b"more"
        other.shutdown(socket.SHUT_WR)
        assert read_all(ending) == b""
        who = own(client)
    proxy.ended(who, f"{first}_closed")


def test_what_a_backend_said_before_it_closed_arrives(proxy: Proxy) -> None:
    with relayed(proxy) as (client, backend):
        backend.sendall(b"x" * 300_000)
        backend.close()
        assert read_all(client) == b"x" * 300_000
        who = own(client)
        client.shutdown(socket.SHUT_WR)
    proxy.ended(who, "backend_closed")


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_reset_is_passed_on_as_a_reset(proxy: Proxy, first: str) -> None:
    with relayed(proxy) as (client, backend):
        who = own(client)
        breaking, other = (client, backend) if first == "client" else (backend, client)
        reset(breaking)
        assert is_reset(other)
    proxy.ended(who, f"{first}_reset")


def send_for_ever(end: socket.socket) -> None:
    """Also while nothing is taken: up to a deadline, which is an error of its own."""
    while True:
        end.sendall(b"x" * 100_000)


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_reset_after_an_end_of_the_same_side_is_a_reset(proxy: Proxy, first: str) -> None:
    with relayed(proxy) as (client, backend):
        who = own(client)
        breaking, other = (client, backend) if first == "client" else (backend, client)
        breaking.shutdown(socket.SHUT_WR)
        assert read_all(other) == b""
        reset(breaking)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_for_ever(other)
    proxy.ended(who, f"{first}_reset")


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_reset_after_an_end_of_the_other_side_is_a_reset(proxy: Proxy, first: str) -> None:
    with relayed(proxy) as (client, backend):
        who = own(client)
        breaking, other = (client, backend) if first == "client" else (backend, client)
        other.shutdown(socket.SHUT_WR)
        assert read_all(breaking) == b""
        reset(breaking)
        assert is_reset(other)
    proxy.ended(who, f"{first}_reset")


def unacknowledged(end: socket.socket) -> int:
    """Bytes of it that the kernel at the other end does not have (SIOCOUTQ, tcp(7))."""
    return int.from_bytes(fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def send_what_is_taken(end: socket.socket, most: int) -> bytes:
    """Send until it is enough or nothing more is taken; what of it is surely with the other end."""
    data, sent = random.Random(most).randbytes(most), 0
    end.settimeout(0.5)
    with suppress(TimeoutError):
        while sent < most:
            sent += end.send(data[sent : sent + 100_000])
        wait_until(lambda: unacknowledged(end) == 0, 2.0, "all is acknowledged")
    return data[: sent - unacknowledged(end)]


def before_the_reset(end: socket.socket) -> bytes:
    """Everything up to a reset; a FIN must not come."""
    got = b""
    while True:
        try:
            some = end.recv(100_000)
        except ConnectionResetError:
            return got
        assert some, "a FIN"
        got += some


@pytest.mark.parametrize("first", ["client", "backend"])
@pytest.mark.parametrize("most", [MEGABYTE, 50 * MEGABYTE], ids=["little", "more-than-is-taken"])
def test_what_an_end_said_before_its_reset_reaches_a_reader_that_comes_late(
    proxy: Proxy, first: str, most: int
) -> None:
    with relayed(proxy) as (client, backend):
        who = own(client)
        breaking, other = (client, backend) if first == "client" else (backend, client)
        said = send_what_is_taken(breaking, most)
        assert said, "what this is about"
        reset(breaking)
        with pytest.raises(TimeoutError):  # nothing is cut while it waits
            wait_until(lambda: proxy.lines_of(who), 2.5, "the end")
        got = before_the_reset(other)
        assert len(got) >= len(said)
        assert hashlib.sha256(got[: len(said)]).digest() == hashlib.sha256(said).digest()
    line = proxy.ended(who, f"{first}_reset")
    assert line["bytes_in" if first == "client" else "bytes_out"] == len(got) + 1


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_reset_reaches_an_end_that_does_not_read(start: Start, first: str) -> None:
    """While its bytes wait for the other end, nothing is read of the one that breaks; it is noticed nevertheless."""
    proxy = start(CONFIG + '[timeouts]\nhalf_closed = "300ms"\n')
    with relayed(proxy) as (client, backend):
        who = own(client)
        breaking, other = (client, backend) if first == "client" else (backend, client)
        fill(breaking)
        reset(breaking)
        proxy.ended(who, f"{first}_reset")
        with pytest.raises(ConnectionResetError):
            read_all(other)


@pytest.mark.parametrize("first", ["client", "backend"])
def test_what_stalls_is_given_to_a_reader_that_comes_late(proxy: Proxy, first: str) -> None:
    with relayed(proxy) as (client, backend):
        who = own(client)
        sending, other = (client, backend) if first == "client" else (backend, client)
        fill(sending)
        sending.shutdown(socket.SHUT_WR)
        count = sum(len(part) for part in received(other))
        other.shutdown(socket.SHUT_WR)
        assert read_all(sending) == b""
    line = proxy.ended(who, f"{first}_closed")
    assert line["bytes_in" if first == "client" else "bytes_out"] == count + 1


def test_silence_ends_a_connection_and_a_byte_puts_that_off(start: Start) -> None:
    proxy = start(CONFIG + '[timeouts]\nidle = "6s"\n')
    with relayed(proxy) as (client, backend):
        who, begun = own(client), time.monotonic()
        never = threading.Event()
        while time.monotonic() - begun < 7:
            last = time.monotonic()
            client.sendall(b"x")
            assert read(backend, 1) == b"x"
            assert not never.wait(0.1)  # a pace, not a wait for something
        assert is_reset(client)
        assert time.monotonic() - last > 5.9
        assert is_reset(backend)
    proxy.ended(who, "idle_timeout")


@pytest.mark.parametrize("first", ["client", "backend"])
def test_silence_after_one_end_has_its_own_time(start: Start, first: str) -> None:
    proxy = start(CONFIG + '[timeouts]\nhalf_closed = "500ms"\n')
    with relayed(proxy) as (client, backend):
        who, begun = own(client), time.monotonic()
        ending, other = (client, backend) if first == "client" else (backend, client)
        ending.shutdown(socket.SHUT_WR)
        assert read_all(other) == b""
        assert is_reset(ending)
        assert time.monotonic() - begun > 0.4
    proxy.ended(who, "half_closed_timeout")


def test_a_reader_that_never_reads_is_silence_too(start: Start) -> None:
    proxy = start(CONFIG + '[timeouts]\nidle = "5s"\n')
    with relayed(proxy) as (client, backend):
        who = own(client)
        with suppress(ConnectionResetError, BrokenPipeError):
            fill(client)
            assert is_reset(client)
        del backend
    proxy.ended(who, "idle_timeout")


@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_flow_has_its_rate(start: Start, direction: str) -> None:
    proxy = start(CONFIG.replace('8443"]', '8443"]\nrate_per_flow = "1MB/s"'))
    with relayed(proxy) as (client, backend):
        begun = time.monotonic()
        sending, other = (client, backend) if direction == "in" else (backend, client)
        with beside(lambda: send_blocks(sending, 2, seed=4)):
            assert digest(received(other)) == digest(blocks(2, seed=4))
        assert 1.85 < time.monotonic() - begun < 15, "the rate, and no tenth of it"


@pytest.mark.parametrize("direction", ["in", "out"])
def test_all_flows_of_a_listener_share_its_rate(start: Start, direction: str) -> None:
    proxy = start(CONFIG.replace('8443"]', '8443"]\nrate = "2MB/s"'))
    whole: list[bytes] = []
    with listening(proxy.here, 9001) as server, pair(proxy, server) as one, pair(proxy, server) as two:
        (sending, other), (also, there) = (one, two) if direction == "in" else (one[::-1], two[::-1])
        begun = time.monotonic()
        with (
            beside(lambda: send_blocks(sending, 2, seed=5)),
            beside(lambda: send_blocks(also, 2, seed=6)),
            beside(lambda: whole.append(read_all(there))),
        ):
            assert digest(received(other)) == digest(blocks(2, seed=5))
        assert b"".join(whole) == b"".join(blocks(2, seed=6))
        assert 1.85 < time.monotonic() - begun < 15, "the rate, and no tenth of it"
        # The other direction has a rate of its own, which nobody has used.
        other.sendall(b"x" * 90_000)
        assert len(read(sending, 90_000)) == 90_000


def test_bytes_are_told_while_a_connection_lasts(proxy: Proxy) -> None:
    with relayed(proxy) as (client, backend):
        who = own(client)
        client.sendall(b"x" * 999)
        assert len(read(backend, 999)) == 999
        backend.sendall(b"y" * 99)
        assert len(read(client, 99)) == 99
        wait_until(lambda: seen(proxy, who) == (1000, 100), DEADLINE, "the bytes of a connection")
        wait_until(lambda: proxy.active("in") == 1, DEADLINE, "it is the only one")


def seen(proxy: Proxy, who: str) -> tuple[int, int]:
    (connection,) = [line for line in proxy.connections() if line["peer"] == who]
    return connection["bytes_in"], connection["bytes_out"]
