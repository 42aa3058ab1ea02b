"""IPv4 packets as bytes, written and read, where sockets would hide or do too much. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

ICMP, TCP, UDP = 1, 6, 17  # protocol numbers (IANA)
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16  # flags of TCP (RFC 9293 section 3.1)
ECHO_REPLY, UNREACHABLE, ECHO_REQUEST, TIME_EXCEEDED = 0, 3, 8, 11  # types of ICMP (RFC 792)
PORT_UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4  # codes of UNREACHABLE
MORE_FRAGMENTS = 0x2000
_TTL = 64
_WINDOW = 65535
_HEADER = struct.Struct("!BBHHHBBH4s4s")

Endpoint = tuple[str, int]
"""Address and port; for ICMP queries the identifier stands in the port's place."""


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 packet, or a fragment of one."""

    source: str
    destination: str
    protocol: int
    payload: bytes
    ttl: int = _TTL
    identification: int = 0  # 0: the kernel that sends it gives it one
    fragment: int = 0  # flags and offset as in the header

    def encoded(self) -> bytes:
        """With a right header checksum, as where it is quoted by an ICMP error."""
        length = _HEADER.size + len(self.payload)
        ends = IPv4Address(self.source).packed, IPv4Address(self.destination).packed
        start = (0x45, 0, length, self.identification, self.fragment, self.ttl, self.protocol)
        total = checksum(_HEADER.pack(*start, 0, *ends))
        return _HEADER.pack(*start, total, *ends) + self.payload


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment without options."""

    source: Endpoint
    destination: Endpoint
    sequence: int
    acknowledgement: int
    flags: int
    data: bytes = b""
    ttl: int = _TTL

    def packet(self) -> Packet:
        ports = self.source[1], self.destination[1]
        numbers = self.sequence & 0xFFFFFFFF, self.acknowledgement & 0xFFFFFFFF
        start = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, self.flags, _WINDOW, 0, 0) + self.data
        total = checksum(_pseudo_header(self.source[0], self.destination[0], TCP, len(start)) + start)
        payload = start[:16] + struct.pack("!H", total) + start[18:]
        return Packet(self.source[0], self.destination[0], TCP, payload, self.ttl)


def datagram(source: Endpoint, destination: Endpoint, data: bytes) -> Packet:
    """A UDP datagram with its checksum."""
    start = struct.pack("!HHHH", source[1], destination[1], 8 + len(data), 0) + data
    total = checksum(_pseudo_header(source[0], destination[0], UDP, len(start)) + start) or 0xFFFF
    return Packet(source[0], destination[0], UDP, start[:6] + struct.pack("!H", total) + data)


def echo(kind: int, identifier: int, sequence: int, data: bytes) -> bytes:
    """An ICMP echo request or reply."""
    return _icmp(struct.pack("!BBHHH", kind, 0, 0, identifier, sequence) + data)


def error(kind: int, code: int, quoted: Packet, mtu: int = 0) -> bytes:
    """An ICMP error that quotes the header and the first bytes of a packet (RFC 792; RFC 1191 for `mtu`)."""
    return _icmp(struct.pack("!BBHHH", kind, code, 0, 0, mtu) + quoted.encoded()[: _HEADER.size + 64])


def decoded(raw: bytes) -> Packet | None:
    """The packet in these bytes; None if there is none. What link layers append is cut off."""
    if len(raw) < _HEADER.size or raw[0] >> 4 != 4:
        return None
    size, length = (raw[0] & 15) * 4, int.from_bytes(raw[2:4], "big")
    _, _, _, identification, fragment, ttl, protocol, _, source, destination = _HEADER.unpack(raw[: _HEADER.size])
    payload = raw[size : max(length, size)] if length else raw[size:]
    ends = str(IPv4Address(source)), str(IPv4Address(destination))
    return Packet(*ends, protocol, payload, ttl, identification, fragment)


def segment(packet: Packet) -> Segment | None:
    """The TCP segment in a packet; its options are skipped."""
    if packet.protocol != TCP or len(packet.payload) < 20:
        return None
    near, far, sequence, acknowledgement, offset, flags = struct.unpack("!HHIIBB", packet.payload[:14])
    ends = (packet.source, near), (packet.destination, far)
    return Segment(*ends, sequence, acknowledgement, flags, packet.payload[(offset >> 4) * 4 :], packet.ttl)


def ports(packet: Packet) -> tuple[int, int] | None:
    """Source and destination port of a UDP or TCP packet, of which 4 bytes will do."""
    if packet.protocol not in (TCP, UDP) or len(packet.payload) < 4:
        return None
    near, far = struct.unpack("!HH", packet.payload[:4])
    return near, far


def quoted(packet: Packet) -> Packet | None:
    """The packet that an ICMP error quotes; None for other ICMP messages and for wrong checksums."""
    message = packet.payload
    is_error = packet.protocol == ICMP and len(message) > 8 and message[0] in (UNREACHABLE, TIME_EXCEEDED)
    return decoded(message[8:]) if is_error and checksum(message) == 0 else None


def checksum(data: bytes) -> int:
    """RFC 1071; 0 for data that holds its own right checksum."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _icmp(start: bytes) -> bytes:
    return start[:2] + struct.pack("!H", checksum(start)) + start[4:]


def _pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    return ends + struct.pack("!BBH", 0, protocol, length)
