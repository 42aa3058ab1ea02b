"""As much of a PostgreSQL server as psql needs to ask one question (its documentation, 55.7 Message Formats)."""

from __future__ import annotations

import socket
import struct

_SSL, _GSS = 80877103, 80877104  # of the requests for encryption, which is answered by "N"
_TEXT = 25  # the type's number


def answer_like_postgres(connection: socket.socket, answer: str) -> None:
    """Let the client in, and answer what it asks by one row with this."""
    while _startup(connection) in {_SSL, _GSS}:
        connection.sendall(b"N")
    ready = _message(b"Z", b"I")
    connection.sendall(_message(b"R", struct.pack("!I", 0)) + ready)
    kind, length = struct.unpack("!cI", _read(connection, 5))
    assert kind == b"Q"
    _read(connection, length - 4)
    value = answer.encode()
    column = struct.pack("!H", 1) + b"who\0" + struct.pack("!IHIhiH", 0, 0, _TEXT, -1, -1, 0)
    row = struct.pack("!HI", 1, len(value)) + value
    connection.sendall(
        _message(b"T", column) + _message(b"D", row) + _message(b"C", b"SELECT 1\0") + ready,
    )
    assert connection.recv(1) == b"X"  # it says good-bye


def _startup(connection: socket.socket) -> int:
    """The code or version with which the client begins."""
    length, code = struct.unpack("!II", _read(connection, 8))
    _read(connection, length - 8)
    return int(code)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", 4 + len(body)) + body


def _read(connection: socket.socket, count: int) -> bytes:
    found = connection.recv(count, socket.MSG_WAITALL) if count else b""
    assert len(found) == count
    return found
