"""Messages between a lab's supervisor and its clients: JSON objects with descriptors over a SOCK_SEQPACKET socket.

A message too long for one packet travels in a memory file whose descriptor comes first.
"""

from __future__ import annotations

import array
import json
import os
import socket
import stat
from typing import Any

_LONGEST_PACKET = 32 * 1024  # bytes; well below the kernel's default socket buffer (net.core.wmem_default)
_LONGEST_MEMORY = 64 * 1024 * 1024  # bytes; the order for ten thousand nodes is a tenth of it
_MOST_DESCRIPTORS = 16

Message = dict[str, Any]


def send(channel: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message; the descriptors stay open here.

    Raises:
        OSError: the other end is gone, or (non-blocking sockets) is not reading.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) <= _LONGEST_PACKET:
        _send_packet(channel, b"p" + body, descriptors)
        return
    memory = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(body)
        _send_packet(channel, b"m", (memory, *descriptors))
    finally:
        os.close(memory)


def receive(channel: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (now ours to close), or None at the end.

    Raises:
        OSError: the socket failed or timed out.
        ValueError: what came is not a message.
    """
    body, descriptors = _receive_packet(channel)
    if not body:
        _close(descriptors)
        return None
    try:
        text = _read_memory(descriptors.pop(0)) if body == b"m" else body[1:]
        message = json.loads(text)
    except (ValueError, IndexError, RecursionError, OSError) as error:
        _close(descriptors)
        raise ValueError(f"not a message: {error}") from error
    if not isinstance(message, dict):
        _close(descriptors)
        raise ValueError(f"not a message: an object is one, {type(message).__name__} is not")  # noqa: TRY004
    return message, descriptors


def _send_packet(channel: socket.socket, packet: bytes, descriptors: tuple[int, ...]) -> None:
    # The signal that a broken pipe would raise is of no use to a library.
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([packet], rights, socket.MSG_NOSIGNAL)


def _receive_packet(channel: socket.socket) -> tuple[bytes, list[int]]:
    space = socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
    packet, ancillary, flags, _ = channel.recvmsg(_LONGEST_PACKET + 1, space, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        _close(list(found))
        raise ValueError(
            f"not a message: longer than {_LONGEST_PACKET} bytes or with over {_MOST_DESCRIPTORS} descriptors"
        )
    return packet, list(found)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _read_memory(descriptor: int) -> bytes:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LONGEST_MEMORY:
            raise ValueError(f"what it travels in is no memory file of at most {_LONGEST_MEMORY} bytes")
        return os.pread(descriptor, status.st_size, 0)
    finally:
        os.close(descriptor)
