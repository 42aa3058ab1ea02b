"""Multipath TCP between edge and home: a connection lives on when one of their lines dies, and ends as it is meant."""

from __future__ import annotations

import fcntl
import hashlib
import random
import re
import select
import socket
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from lab.realise.node import Node
from tests.proxy.ends import DEADLINE, accepted, is_reset, own, read, read_all, reset
from tests.proxy.mptcp import (
    ASKED,
    EDGE,
    HOME,
    TIMES,
    TOPOLOGY,
    both,
    coming,
    connections,
    counted,
    exchange,
    joined,
    needs_mptcp,
    serving,
    tell_ways,
    ways,
)
from tests.proxy.running import Proxy
from tests.realise.conftest import Up

pytestmark = needs_mptcp

GIVING_UP = "net.mptcp.close_timeout"  # seconds until a connection without ways is ended
PART = 3_000_000  # bytes, of which each transfer has two, each way


@pytest.fixture(scope="module")
def lab(module_up: Up) -> Lab:
    lab = module_up(TOPOLOGY)
    tell_ways(lab)
    return lab


@pytest.fixture
def proxies(lab: Lab, folder: Path) -> Iterator[tuple[Proxy, Proxy]]:
    with both(lab, folder) as found:
        yield found


@pytest.fixture
def server(lab: Lab) -> Iterator[socket.socket]:
    with serving(lab) as server:
        yield server


class Half:
    """One direction of a transfer: bytes that a seed gives, in two parts, and what came of them at the other end."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, seed: int) -> None:
        self.sender, self.receiver = sender, receiver
        self.arrived, self.error = 0, ""
        self._chance = random.Random(seed)
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        try:
            while some := self.receiver.recv(1 << 16):
                self._received.update(some)
                self.arrived += len(some)
        except OSError as error:
            self.error = repr(error)

    def send(self) -> None:
        """One part, in a thread, for the other direction's stands still where nobody reads it."""
        data = self._chance.randbytes(PART)
        self._sent.update(data)
        self._writing = threading.Thread(target=self._write, args=(data,))
        self._writing.start()

    def _write(self, data: bytes) -> None:
        try:
            self.sender.sendall(data)
        except OSError as error:
            self.error = repr(error)

    def finish(self) -> None:
        self._writing.join()
        if not self.error:
            self.sender.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        self._reading.join()

    @property
    def is_whole(self) -> bool:
        return not self.error and self.arrived == 2 * PART and self._sent.digest() == self._received.digest()


def transfer(lab: Lab, server: socket.socket, *, has_ways: bool) -> tuple[list[Half], str]:
    """Both ways at once, of which the first line dies in the middle."""
    edge = lab["edge"]
    with coming(lab) as client, accepted(server) as backend:
        who = own(client)
        halves = [Half(client, backend, 1), Half(backend, client, 2)]
        for half in halves:
            half.send()
        for half in halves:
            wait_until(lambda half=half: half.arrived == PART, DEADLINE, "the first part")  # type: ignore[misc]
        if has_ways:
            wait_until(lambda: ways(edge, "10.2.0.2") == 1, DEADLINE, "the second way")
        assert (connections(edge, "10.1.0.2:4443"), ways(edge, "10.2.0.2")) == (int(has_ways), int(has_ways))
        with lab.link("home:fibre").cut():
            for half in halves:
                half.send()
            for half in halves:
                half.finish()
            for half in halves:
                half.end()
    return halves, who


@pytest.mark.essential
def test_a_transfer_outlives_the_line_that_it_began_on(lab: Lab, folder: Path, server: socket.socket) -> None:
    with both(lab, folder, EDGE + TIMES, HOME + TIMES) as (edge, home):
        halves, who = transfer(lab, server, has_ways=True)
        assert [half.error for half in halves] == ["", ""]
        assert [half.is_whole for half in halves] == [True, True]
        line = edge.line(who)
        assert line["close"] in {"client_closed", "backend_closed"}
        assert (line["bytes_in"], line["bytes_out"]) == (2 * PART, 2 * PART)
        assert line["backend_subflows"] >= 1
        assert counted(edge, "backend", "mptcp") == counted(home, "client", "mptcp") == 1
        assert "timeouts.user_timeout: connections by MPTCP have no such time" in edge.said


@pytest.mark.parametrize("side", ["edge", "home"])
def test_without_the_key_at_either_end_it_does_not(lab: Lab, folder: Path, server: socket.socket, side: str) -> None:
    texts = [text.replace(ASKED, "") if side == name else text for name, text in (("edge", EDGE), ("home", HOME))]
    # Who has asked in vain has the times of plain TCP where its kernel says that it is plain TCP, at home.
    with both(lab, folder, texts[0] + TIMES, texts[1] + TIMES) as (edge, home):
        if side == "edge":
            halves, who = transfer(lab, server, has_ways=False)
            assert not any(half.is_whole for half in halves)
            assert edge.line(who)["close"] == "peer_vanished"
            assert "backend_subflows" not in edge.line(who)
            assert counted(home, "client", "tcp") == 1
        else:
            with joined(lab, server) as (client, backend):
                assert (ways(lab["edge"], "10.1.0.2"), ways(lab["edge"], "10.2.0.2")) == (1, 0)
                who = own(client)
                client.shutdown(socket.SHUT_WR)
                assert read_all(backend) == b""
            assert edge.line(who)["backend_subflows"] == 0
            assert counted(edge, "backend", "tcp") == 1


@contextmanager
def tuned(node: Node, settings: dict[str, str]) -> Iterator[None]:
    """Its kernel has these (kernel: Documentation/networking/mptcp-sysctl.rst, ip-sysctl.rst)."""
    before = [f"{name}={node.run(['sysctl', '-n', name], check=True).stdout.strip()}" for name in settings]
    node.run(["sysctl", "-w", *(f"{name}={value}" for name, value in settings.items())], check=True)
    try:
        yield
    finally:
        node.run(["sysctl", "-w", *before], check=True)


def test_both_lines_dead_is_a_peer_that_has_vanished(lab: Lab, folder: Path, server: socket.socket) -> None:
    with both(lab, folder, EDGE + TIMES) as (proxy, _), joined(lab, server) as (client, _backend):
        who = own(client)
        with tuned(lab["edge"], {GIVING_UP: "1"}), lab.link("home:fibre").cut(), lab.link("home:lte").cut():
            assert is_reset(client)
        assert proxy.line(who)["close"] == "peer_vanished"


def test_ends_pass_as_they_are_meant(lab: Lab, proxies: tuple[Proxy, Proxy], server: socket.socket) -> None:
    edge, home = proxies
    with joined(lab, server) as (client, backend):
        client.shutdown(socket.SHUT_WR)
        assert read_all(backend) == b""
        backend.sendall(b"after the end" * 10_000)
        backend.close()
        assert read_all(client) == b"after the end" * 10_000
        who = own(client)
    assert edge.line(who)["close"] == "client_closed"
    with joined(lab, server) as (client, backend):
        backend.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        client.sendall(b"last")
        client.shutdown(socket.SHUT_WR)
        assert read_all(backend) == b"last"
        who = own(client)
    assert edge.line(who)["close"] == "backend_closed"
    with joined(lab, server) as (client, backend):
        who = own(client)
        reset(client)
        assert is_reset(backend)
    assert edge.line(who)["close"] == "client_reset"
    with joined(lab, server) as (client, backend):
        who = own(client)
        reset(backend)
        assert is_reset(client)
    assert edge.line(who)["close"] == "backend_reset"
    wait_until(lambda: home.connections() == [] and len(home.lines()) == 4, DEADLINE, "the lines of home")
    ends = [{line["unique_id"]: line["close"] for line in proxy.lines()} for proxy in proxies]
    assert ends[0] == ends[1]
    assert counted(edge, "backend", "mptcp") == 4


def test_a_way_that_comes_later_is_used_and_counted(
    lab: Lab, proxies: tuple[Proxy, Proxy], server: socket.socket
) -> None:
    edge, _ = proxies
    lab["home"].run(["ip", "mptcp", "endpoint", "flush"], check=True)
    with ExitStack() as stack:
        told = stack.callback(tell_ways, lab)
        with joined(lab, server) as (client, backend):
            who = own(client)
            assert ways(lab["edge"], "10.2.0.2") == 0
            stack.pop_all()
            told(lab)
            wait_until(lambda: ways(lab["edge"], "10.2.0.2") == 1, DEADLINE, "the second way")
            exchange(client, backend)
            reset(client)
            assert is_reset(backend)
        assert edge.line(who)["backend_subflows"] == 2


def unacknowledged(end: socket.socket) -> int:
    """Bytes (SIOCOUTQ, tcp(7)): a reset would drop them here."""
    answer = fcntl.ioctl(end, termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def test_last_words_before_a_reset_arrive(lab: Lab, proxies: tuple[Proxy, Proxy], server: socket.socket) -> None:
    edge, _ = proxies
    with joined(lab, server) as (client, backend):
        who = own(client)
        backend.sendall(b"w" * 200_000)
        wait_until(lambda: unacknowledged(backend) == 0, DEADLINE, "home's kernel has it all")
        reset(backend)
        assert read(client, 200_000) == b"w" * 200_000
        assert is_reset(client)
    assert edge.line(who)["close"] == "backend_reset"


def left_at(lab: Lab) -> int:
    """Bytes that home has for the edge and that the edge has no room for."""
    told = lab["home"].run(["ss", "-MniOH", "sport", ":4443", "dst", "10.1.0.1"], check=True).stdout
    (written,) = re.findall(r"write_seq:(\S+)", told)
    (taken,) = re.findall(r"snd_una:(\S+)", told)
    return (int(written, 16) - int(taken, 16)) % 2**64


def test_a_connection_is_not_closed_before_a_reader_that_pauses_has_all(
    lab: Lab, folder: Path, server: socket.socket
) -> None:
    """Home has room for all bytes, all beyond it for a part. Of a closed connection its kernel would drop the rest."""
    small, large = "4096 65536 65536", "4096 8000000 8000000"
    with (
        tuned(lab["client"], {"net.ipv4.tcp_rmem": small}),
        tuned(lab["edge"], {"net.ipv4.tcp_rmem": small, "net.ipv4.tcp_wmem": small}),
        tuned(lab["home"], {"net.ipv4.tcp_wmem": large}),
        both(lab, folder) as (edge, home),
        joined(lab, server) as (client, backend),
    ):
        who = own(client)
        client.shutdown(socket.SHUT_WR)
        assert read_all(backend) == b""
        data = random.Random(3).randbytes(PART)
        backend.sendall(data)
        home.wait_for(lambda line: line["bytes_out"] == len(b"back") + PART, "home has passed all on")
        backend.close()
        ends = select.poll()
        ends.register(client, 0)  # tells of no bytes, but of a reset, or of the end
        assert ends.poll(1_000) == []
        assert left_at(lab) > 0
        assert [line["bytes_out"] for line in home.connections()] == [len(b"back") + PART]
        assert hashlib.sha256(read_all(client)).digest() == hashlib.sha256(data).digest()
        line = edge.line(who)
        assert (line["close"], line["backend_subflows"] >= 1) == ("client_closed", True)
        wait_until(lambda: home.connections() == [], DEADLINE, "home has closed it")
