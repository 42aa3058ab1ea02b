"""First messages of real TLS clients (OpenSSL, as Python has it), whole and cut into records."""

from __future__ import annotations

import ssl
import struct
from contextlib import suppress

_HEADER = 5  # bytes of a record's header (RFC 8446 5.1)


def hello(name: str | None = None, alpn: tuple[str, ...] = ()) -> bytes:
    """A ClientHello that asks for this name."""
    context = ssl.create_default_context()
    if name is None:
        context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    found = outgoing.read()
    assert len(found) == _HEADER + struct.unpack("!H", found[3:5])[0], "one record"
    return found


def long_hello(name: str) -> bytes:
    """One that needs several segments, as those with post-quantum keys do."""
    found = hello(name, tuple(f"protocol-{number}-{'x' * 40}" for number in range(60)))
    assert len(found) > 3000
    return found


def in_records(whole: bytes, size: int) -> bytes:
    """The same handshake message in records of so many bytes each (RFC 8446 5.1 allows it)."""
    message = whole[_HEADER:]
    parts = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(whole[:3] + struct.pack("!H", len(part)) + part for part in parts)


def padded_hello(name: str, padding: int) -> bytes:
    """One with so many bytes in an extension that nobody knows (RFC 8701), in records of 1 KiB."""
    whole = hello(name)
    body = whole[_HEADER + 4 :]
    at = 34 + 1 + body[34]  # version, random, session
    at += 2 + struct.unpack("!H", body[at : at + 2])[0]  # ciphers
    at += 1 + body[at]  # compression
    extensions = body[at + 2 :] + struct.pack("!HH", 0x3A3A, padding) + bytes(padding)
    body = body[:at] + struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3) + body
    return in_records(whole[:_HEADER] + message, 1024)
