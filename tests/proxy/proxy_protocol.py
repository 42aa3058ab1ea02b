"""The PROXY protocol once more, written from its specification: builds headers, reads those that the proxy sends."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct
import time
from dataclasses import dataclass, field
from ipaddress import ip_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UDP6, UNIX = 0x00, 0x11, 0x12, 0x21, 0x22, 0x31
ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID = 1, 2, 3, 4, 5
SIGNED = 0xEA  # edgeproxy's own: docs/edgeproxy.md, "Signed headers"
ENDS = ("203.0.113.7", 40000), ("198.51.100.1", 443)
ENDS6 = ("2001:db8::7", 40000), ("2001:db8::1", 443)

Ends = tuple[tuple[str, int], tuple[str, int]]


@dataclass(frozen=True)
class Header:
    """What a header said, and what followed it."""

    version: int
    source: tuple[str, int]
    destination: tuple[str, int]
    rest: bytes
    tlvs: dict[int, bytes] = field(default_factory=dict)
    is_sum_right: bool | None = None  # of the CRC32C; None: there is none


def v1(ends: Ends = ENDS) -> bytes:
    (source, sport), (destination, dport) = ends
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {sport} {dport}\r\n".encode()


def v2(ends: Ends | None = ENDS, tlvs: bytes = b"", command: int = PROXY, family: int | None = None) -> bytes:
    body = b""
    if ends is not None:
        addresses = [ip_address(address).packed for address, _ in ends]
        body = b"".join(addresses) + struct.pack("!HH", *(port for _, port in ends))
    if family is None:
        family = UNSPEC if ends is None else TCP6 if ":" in ends[0][0] else TCP4
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body + tlvs)) + body + tlvs


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_sum(ends: Ends = ENDS, tlvs: bytes = b"", wrong_by: int = 0) -> bytes:
    """A header of version 2 with its CRC32C, or with one that is wrong."""
    blank = v2(ends, tlvs + tlv(CRC32C, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank) ^ wrong_by)


def signed(
    key: bytes,
    ends: Ends | None = ENDS,
    tlvs: bytes = b"",
    *,
    family: int | None = None,
    has_sum: bool = False,
    age: float = 0.0,
    nonce: bytes = b"",
) -> bytes:
    """A header of version 2 that was signed so many seconds ago; without ends a LOCAL one."""
    signed_at = struct.pack("!Q", round((time.time() - age) * 1000))
    value = b"\1" + signed_at + (nonce or os.urandom(16)) + bytes(32)
    after = tlv(CRC32C, bytes(4)) if has_sum else b""
    command = LOCAL if ends is None else PROXY
    blank = v2(ends, tlvs + tlv(SIGNED, value) + after, command, family)
    end = len(blank) - len(after)
    header = blank[: end - 32] + hmac.digest(key, blank, hashlib.sha256) + blank[end:]
    return header[:-4] + struct.pack("!I", crc32c(header)) if has_sum else header


def is_signed(header: bytes, key: bytes) -> bool:
    """Whether one whole header, as edgeproxy builds it, has this key's signature: last, or before its checksum."""
    sums = header[-7:-4] == struct.pack("!BH", CRC32C, 4)
    end = len(header) - 7 * sums
    kind = header[end - 60 : end - 56]
    blank = header[: end - 32] + bytes(32) + (header[end:-4] + bytes(4) if sums else b"")
    right = hmac.compare_digest(header[end - 32 : end], hmac.digest(key, blank, hashlib.sha256))
    return right and kind == struct.pack("!BHB", SIGNED, 57, 1)


def crc32c(data: bytes) -> int:
    """CRC-32C, reflected (RFC 4960 appendix B)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def decode(data: bytes) -> Header:
    """The header with which these bytes begin."""
    return _decode_v2(data) if data.startswith(SIGNATURE) else _decode_v1(data)


def _decode_v1(data: bytes) -> Header:
    line, end, rest = data.partition(b"\r\n")
    assert end, data
    proxy, family, source, destination, sport, dport = line.decode().split(" ")
    assert proxy == "PROXY"
    assert family == {4: "TCP4", 6: "TCP6"}[ip_address(source).version]
    return Header(1, (source, int(sport)), (destination, int(dport)), rest)


def _decode_v2(data: bytes) -> Header:
    command, family, length = struct.unpack("!BBH", data[12:16])
    assert command == PROXY
    body, rest = data[16 : 16 + length], data[16 + length :]
    assert len(body) == length
    size, of = {TCP4: (4, socket.AF_INET), TCP6: (16, socket.AF_INET6)}[family]
    addresses = [socket.inet_ntop(of, body[at : at + size]) for at in (0, size)]
    sport, dport = struct.unpack("!HH", body[2 * size : 2 * size + 4])
    tlvs: dict[int, bytes] = {}
    blank, at = bytearray(data[: 16 + length]), 2 * size + 4
    while at < length:
        kind, count = struct.unpack("!BH", body[at : at + 3])
        assert kind not in tlvs
        tlvs[kind] = body[at + 3 : at + 3 + count]
        assert len(tlvs[kind]) == count
        if kind == CRC32C:
            blank[16 + at + 3 : 16 + at + 7] = bytes(4)
        at += 3 + count
    right = crc32c(bytes(blank)) == int.from_bytes(tlvs[CRC32C]) if CRC32C in tlvs else None
    return Header(2, (addresses[0], sport), (addresses[1], dport), rest, tlvs, right)
