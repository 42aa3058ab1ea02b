"""PROXY headers as bytes, right ones and wrong ones (the specification: haproxy.org, doc/proxy-protocol.txt)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_LINE = 107  # bytes of version 1, with its end (section 2.1)
STREAM = 0x01
_IPV4, _IPV6 = 0x10, 0x20
_LINES = {4: "TCP4", 6: "TCP6"}


@dataclass(frozen=True)
class Endpoints:
    """Whom a header names: the client and where it was heading."""

    client: tuple[str, int]
    to: tuple[str, int]

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_address(self.client[0]).version


def line(ends: Endpoints) -> bytes:
    """Version 1 (section 2.1)."""
    words = ["PROXY", _LINES[ends.version], ends.client[0], ends.to[0], str(ends.client[1]), str(ends.to[1])]
    return f"{' '.join(words)}\r\n".encode()


def block(ends: Endpoints) -> bytes:
    """The addresses of version 2 (section 2.2)."""
    packed = [ip_address(ends.client[0]).packed, ip_address(ends.to[0]).packed]
    return b"".join([*packed, ends.client[1].to_bytes(2), ends.to[1].to_bytes(2)])


def family(ends: Endpoints) -> int:
    """The byte of family and protocol of these, over TCP."""
    return (_IPV4 if ends.version == 4 else _IPV6) | STREAM


def header(family_byte: int, content: bytes, *, command: int = 0x21, length: int | None = None) -> bytes:
    """Version 2 as it is said, be it so or not: `length` in place of the true one."""
    said = len(content) if length is None else length
    return SIGNATURE + bytes([command, family_byte]) + said.to_bytes(2) + content


def named(ends: Endpoints, tlvs: bytes = b"") -> bytes:
    """Version 2 with these endpoints."""
    return header(family(ends), block(ends) + tlvs)


def tlv(kind: int, value: bytes) -> bytes:
    """A field of version 2 (section 2.2.x)."""
    return bytes([kind]) + len(value).to_bytes(2) + value


def summed(ends: Endpoints, tlvs: bytes = b"", *, change: int = 0) -> bytes:
    """Version 2 with a checksum (section 2.2.3), right or changed."""
    without = named(ends, tlvs + tlv(0x03, bytes(4)))
    return without[:-4] + (crc32c(without) ^ change).to_bytes(4)


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def read(data: bytes) -> tuple[tuple[str, int] | None, bytes] | None:
    """The client of a header at the beginning, and what follows; no client if it names none. None: it is not whole.

    Raises:
        ValueError: no header begins so.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        if len(data) < 16 or len(data) < (end := 16 + int.from_bytes(data[14:16])):
            return None
        return _client(data[13], data[16:end]) if data[12] == 0x21 else None, data[end:]
    if data.startswith(b"PROXY "[: len(data)]):
        text, found, rest = data.partition(b"\r\n")
        if not found and len(data) < LONGEST_LINE:
            return None
        words = text.decode("ascii", "replace").split(" ")
        if len(words) == 6:
            return (str(ip_address(words[2])), int(words[4])), rest
        if words[1:2] == ["UNKNOWN"]:
            return None, rest
    raise ValueError("no PROXY header")


def _client(family_byte: int, content: bytes) -> tuple[str, int] | None:
    size = {_IPV4: 4, _IPV6: 16}.get(family_byte & 0xF0)
    if size is None or len(content) < 2 * size + 4:
        return None
    address = IPv4Address(content[:size]) if size == 4 else IPv6Address(content[:size])
    return str(address), int.from_bytes(content[2 * size : 2 * size + 2])
