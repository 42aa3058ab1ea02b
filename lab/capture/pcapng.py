"""Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian; times are nanoseconds since the epoch. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

ETHERNET = 1  # LINKTYPE_ETHERNET
RAW = 101  # LINKTYPE_RAW: begins with the IP header

INBOUND = 1  # epb_flags, bits 0 and 1
OUTBOUND = 2
UNICAST = 1 << 2  # bits 2 to 4: why it was received
MULTICAST = 2 << 2
BROADCAST = 3 << 2
PROMISCUOUS = 4 << 2  # meant for another

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_NAMES = 4
_STATISTICS = 5
_PACKET = 6
_BYTE_ORDER = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF
_NANOSECONDS = bytes([9])  # if_tsresol: 10^-9 s

_PACKET_HEAD = struct.Struct("<7I")
# What ends a packet after 0 to 3 bytes of padding: the option epb_flags, the end of options, the length once more.
_PACKET_TAILS = tuple(struct.Struct(f"<{-length % 4}x2HI4xI") for length in range(4))
_PACKET_OVERHEAD = 44  # bytes around the padded frame


@dataclass(frozen=True, slots=True)
class Interface:
    """What an Interface Description Block says."""

    name: str  # "nas:home"
    description: str = ""
    link_type: int = ETHERNET
    mac: bytes = b""  # 6 bytes, or none
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    snaplen: int = 0  # most bytes kept of a packet; 0: all
    filter: str = ""  # as tcpdump understands it


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an Interface Statistics Block says: counts of packets, from when until when."""

    began: int
    ended: int
    received: int  # by the socket, with those dropped
    dropped: int  # for want of room in its buffer
    written: int  # segments of a large packet count as so many


def section_header(hardware: str, system: str, application: str, comment: str = "") -> bytes:
    """The Section Header Block, which begins a file; its length is left open."""
    options = [(1, comment.encode()), (2, hardware.encode()), (3, system.encode()), (4, application.encode())]
    return _block(_SECTION, struct.pack("<IHHQ", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH), options)


def interface_description(interface: Interface) -> bytes:
    """An Interface Description Block; packets name an interface by the number of such blocks before its own."""
    options = [(2, interface.name.encode()), (3, interface.description.encode())]
    for address in interface.addresses:
        if isinstance(address, IPv4Interface):
            options.append((4, address.ip.packed + address.netmask.packed))
        else:
            options.append((5, address.ip.packed + bytes([address.network.prefixlen])))
    options += [(6, interface.mac), (9, _NANOSECONDS)]
    if interface.filter:
        options.append((11, b"\0" + interface.filter.encode()))  # 0: in the language of libpcap
    return _block(_INTERFACE, struct.pack("<HHI", interface.link_type, 0, interface.snaplen), options)


def name_resolution(names: Mapping[IPv4Address | IPv6Address, str]) -> bytes:
    """The Name Resolution Block: what Wireshark shows in place of addresses."""
    records = [
        (1 if address.version == 4 else 2, address.packed + name.encode() + b"\0") for address, name in names.items()
    ]
    return _block(_NAMES, _options(records) or bytes(4), [])


def enhanced_packet(interface: int, timestamp: int, frame: bytes, length: int, flags: int) -> bytes:
    """An Enhanced Packet Block: a frame, or the first bytes of one that was `length` bytes long."""
    kept = len(frame)
    size = _PACKET_OVERHEAD + (kept + 3 & ~3)
    head = _PACKET_HEAD.pack(_PACKET, size, interface, timestamp >> 32, timestamp & 0xFFFFFFFF, kept, length)
    return head + frame + _PACKET_TAILS[kept & 3].pack(2, 4, flags, size)


def interface_statistics(interface: int, statistics: Statistics) -> bytes:
    """An Interface Statistics Block."""
    # Wireshark and capinfos show isb_ifdrop (5) as what was dropped; isb_osdrop (7) is where the kernel says it was.
    options = [
        (2, _timestamp(statistics.began)),
        (3, _timestamp(statistics.ended)),
        (4, struct.pack("<Q", statistics.received)),
        (5, struct.pack("<Q", statistics.dropped)),
        (7, struct.pack("<Q", statistics.dropped)),
        (8, struct.pack("<Q", statistics.written)),
    ]
    return _block(_STATISTICS, struct.pack("<I", interface) + _timestamp(statistics.ended), options)


def _timestamp(nanoseconds: int) -> bytes:
    return struct.pack("<II", nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)


def _block(kind: int, body: bytes, options: Iterable[tuple[int, bytes]]) -> bytes:
    body += _options(options)
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Options that have a value, each padded to 32 bits, and the end of them; nothing if there are none."""
    packed = b"".join(
        struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in options if value
    )
    return packed + bytes(4) if packed else b""
