"""Frames as a wire would have carried them: a large frame cut into segments, checksums worked out. Pure.

Between interfaces of one kernel a frame may travel uncut and without its checksum, as to a card that does both. A
virtio_net_hdr before it says what is left to do (linux/virtio_net.h, VIRTIO 1.2 section 5.1.6).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER_SIZE = 10  # bytes of a virtio_net_hdr

_NEEDS_CHECKSUM = 1  # VIRTIO_NET_HDR_F_NEEDS_CSUM
_TCP_4, _TCP_6, _UDP = 1, 4, 5  # VIRTIO_NET_HDR_GSO_*
_ECN = 0x80  # VIRTIO_NET_HDR_GSO_ECN

_IPV4, _IPV6 = 0x0800, 0x86DD
_VLANS = (0x8100, 0x88A8)
_SMALLEST_NETWORK = 20  # bytes of the shortest IP header
_EXTENSIONS = (0, 43, 60, 135)  # IPv6 headers that may stand before TCP and UDP, with a length of their own
_SCTP_CHECKSUM = 8  # offset of a CRC32c, which is no Internet checksum (RFC 9260)
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80  # TCP flags (RFC 9293, RFC 3168)


@dataclass(frozen=True, slots=True)
class Offload:
    """What was left to the card."""

    needs_checksum: bool
    kind: int  # of segments; 0: it is one frame
    segment_size: int  # bytes of payload in each segment
    checksum_start: int  # offset from which on the checksum covers the frame
    checksum_offset: int  # offset of the checksum from there

    @classmethod
    def of(cls, header: bytes) -> Offload:
        """What a virtio_net_hdr in the byte order of this host says."""
        flags, kind, _, size, start, offset = struct.unpack("=BBHHHH", header)
        return cls(bool(flags & _NEEDS_CHECKSUM), kind & ~_ECN, size, start, offset)


def wire_frames(frame: bytes, offload: Offload, network: int) -> list[bytes]:
    """The frames that a wire would have carried in place of this one.

    Args:
        frame: whole, as a packet socket gives it.
        offload: what is left to do.
        network: offset of the IP header.

    A frame that is not what `offload` says it is stays as it is.
    """
    if offload.kind in (_TCP_4, _TCP_6, _UDP) and offload.segment_size:
        try:
            transport = offload.checksum_start if offload.needs_checksum else _transport_offset(frame, network)
            end = transport + (8 if offload.kind == _UDP else (frame[transport + 12] >> 4) * 4)
        except IndexError:
            return [frame]
        if transport < network + _SMALLEST_NETWORK:
            return [frame]
        if len(frame) - end > offload.segment_size:
            return _segments(frame, offload, network, transport, end)
    return [_with_checksum(frame, offload) if offload.needs_checksum else frame]


def network_offset(frame: bytes) -> int:
    """Offset of what an Ethernet frame carries, behind its VLAN tags (IEEE 802.1Q)."""
    at = 14
    while int.from_bytes(frame[at - 2 : at]) in _VLANS:
        at += 4
    return at


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): the sum of 16-bit words modulo 65535, and so of the whole as one number."""
    if len(data) & 1:
        data += b"\0"
    rest = int.from_bytes(data) % 0xFFFF
    return 0xFFFF - rest if rest else 0 if any(data) else 0xFFFF


def _with_checksum(frame: bytes, offload: Offload) -> bytes:
    """The checksum finished: the field holds the sum of the pseudo header already."""
    field = offload.checksum_start + offload.checksum_offset
    if field + 2 > len(frame) or offload.checksum_offset == _SCTP_CHECKSUM:
        return frame
    # A sum of 0 in UDP means that there is none (RFC 768); 0xffff is the same to TCP's receivers, but not usual.
    found = checksum(frame[offload.checksum_start :]) or (0xFFFF if offload.checksum_offset == 6 else 0)
    return frame[:field] + found.to_bytes(2) + frame[field + 2 :]


def _segments(frame: bytes, offload: Offload, network: int, transport: int, end: int) -> list[bytes]:
    size = offload.segment_size
    starts = range(end, len(frame), size)
    made = []
    for number, start in enumerate(starts):
        part = frame[start : start + size]
        head = bytearray(frame[:end])
        _adjust_network(head, network, len(head) - network + len(part), number)
        if offload.kind == _UDP:
            struct.pack_into("!H", head, transport + 4, 8 + len(part))
            field, has_sum = transport + 6, offload.needs_checksum or head[transport + 6 : transport + 8] != b"\0\0"
        else:
            sequence = int.from_bytes(head[transport + 4 : transport + 8]) + start - end
            struct.pack_into("!I", head, transport + 4, sequence & 0xFFFFFFFF)
            head[transport + 13] &= 0xFF if number == 0 else ~_CWR & 0xFF
            head[transport + 13] &= 0xFF if start == starts[-1] else ~(_FIN | _PSH) & 0xFF
            field, has_sum = transport + 16, True
        if has_sum:
            head[field : field + 2] = b"\0\0"
            covered = _pseudo_header(head, network, transport, len(part)) + head[transport:] + part
            struct.pack_into("!H", head, field, checksum(covered) or (0xFFFF if offload.kind == _UDP else 0))
        made.append(bytes(head) + part)
    return made


def _adjust_network(head: bytearray, network: int, length: int, number: int) -> None:
    """Write the length into the IP header; in IPv4 also an identification of its own, and the checksum."""
    if head[network] >> 4 == 6:
        struct.pack_into("!H", head, network + 4, length - 40)
        return
    identification = int.from_bytes(head[network + 4 : network + 6]) + number
    struct.pack_into("!HH", head, network + 2, length, identification & 0xFFFF)
    head[network + 10 : network + 12] = b"\0\0"
    end = network + (head[network] & 0xF) * 4
    struct.pack_into("!H", head, network + 10, checksum(bytes(head[network:end])))


def _pseudo_header(head: bytearray, network: int, transport: int, payload: int) -> bytes:
    """What the checksum of TCP and UDP covers of the IP header (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    length = len(head) - transport + payload
    protocol = 17 if len(head) - transport == 8 else 6
    if head[network] >> 4 == 6:
        return bytes(head[network + 8 : network + 40]) + struct.pack("!II", length, protocol)
    return bytes(head[network + 12 : network + 20]) + struct.pack("!HH", protocol, length)


def _transport_offset(frame: bytes, network: int) -> int:
    """Offset of the TCP or UDP header. Raises IndexError if the frame is too short."""
    if frame[network] >> 4 == 4:
        return network + (frame[network] & 0xF) * 4
    following, at = frame[network + 6], network + 40
    while following in _EXTENSIONS:
        following, at = frame[at], at + 8 + frame[at + 1] * 8
    return at
