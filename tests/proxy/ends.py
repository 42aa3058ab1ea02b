"""The two ends of a proxied connection: clients and backends as plain sockets."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

DEADLINE = 60.0  # seconds
# For clients in nodes of a lab, each of its own; the kernel gives none of these (ip_local_port_range, ip(7)).
PORTS = itertools.count(10_000)


def connect(address: str, port: int, source: str = "", buffer: int = 0) -> socket.socket:
    """A client that sends each write at once; `buffer` is how much it takes unread (SO_RCVBUF)."""
    is_ipv6 = ":" in address
    client = _client_of(source or ("::1" if is_ipv6 else "127.0.0.1"), socket.AF_INET6 if is_ipv6 else socket.AF_INET)
    client.settimeout(DEADLINE)
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    try:
        client.connect((address, port))
    except BaseException:
        client.close()
        raise
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _client_of(source: str, family: int = socket.AF_INET) -> socket.socket:
    """A socket at an endpoint that no client of this process has had: by it a connection is found in the log."""
    while True:
        client = socket.socket(family)
        client.bind((source, 0))
        if is_first_of(client):
            return client
        client.close()  # the kernel gives a port again at once after a reset


def is_first_of(end: socket.socket) -> bool:
    """Whether no socket of this kind before had this endpoint, of all that were asked about."""
    key = (end.type, *end.getsockname()[:2])
    is_first = key not in _had
    _had.add(key)
    return is_first


_had: set[tuple[object, ...]] = set()


def listening(address: str, port: int, backlog: int = 4096, buffer: int = 0) -> socket.socket:
    """A backend; `buffer` is what each of its connections takes unread (SO_RCVBUF)."""
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if buffer:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    server.listen(backlog)
    server.settimeout(DEADLINE)
    return server


def accepted(server: socket.socket) -> socket.socket:
    """The next connection of a backend."""
    connection, _ = server.accept()
    connection.settimeout(DEADLINE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def own(end: socket.socket) -> str:
    """Its own endpoint, as the log writes it."""
    return endpoint(end.getsockname())


def peer(end: socket.socket) -> str:
    """Its peer's endpoint, as the log writes it."""
    return endpoint(end.getpeername())


def endpoint(name: tuple[str, int]) -> str:
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def fill(end: socket.socket) -> None:
    """Send until nothing more is taken."""
    end.settimeout(0.5)
    with suppress(TimeoutError):
        while True:
            end.sendall(b"x" * 100_000)
    end.settimeout(DEADLINE)


def read_all(end: socket.socket) -> bytes:
    """Everything up to the other side's FIN."""
    return b"".join(iter(lambda: end.recv(1 << 16), b""))


def read(end: socket.socket, count: int) -> bytes:
    """Exactly so many bytes, or those before the FIN."""
    found = b""
    while len(found) < count and (some := end.recv(count - len(found))):
        found += some
    return found


def is_reset(end: socket.socket) -> bool:
    """Whether what comes next is a reset; a FIN or a byte is not."""
    try:
        return end.recv(1) is None
    except ConnectionResetError:
        return True


def refused(address: str, port: int, said: bytes = b"", source: str = "127.0.0.1") -> str:
    """Who is reset, be it while it connects, says this, or listens; it must not get a byte nor a FIN."""
    with _client_of(source) as client:
        client.settimeout(DEADLINE)
        who = own(client)
        try:
            client.connect((address, port))
            client.sendall(said)
            assert is_reset(client)
        except (ConnectionResetError, BrokenPipeError):
            pass
    return who


def reset(end: socket.socket) -> None:
    """End it by a reset (SO_LINGER with no time, socket(7))."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def pieces(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@contextmanager
def deaf(address: str, port: int) -> Iterator[None]:
    """A port that answers no SYN: its queue of connections is full (listen(2))."""
    with listening(address, port, 0) as server, ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(socket.socket())
            client.settimeout(1)
            try:
                client.connect(server.getsockname())
            except TimeoutError:
                yield
                return
        raise AssertionError("it still answers")
