"""Sockets that are heard from their making on, all in one event loop: nothing that arrives is missed or read twice."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from lab.certify import packet as packets
from lab.certify.packet import Endpoint, Packet, Segment

if TYPE_CHECKING:
    from lab.realise.node import Node

_LONGEST = 65535 + 14  # bytes of a packet, in a frame
_IP_RECVTTL = 12  # linux/in.h
_ROOM = 1 << 20  # bytes of a receive buffer
_TRIES = (0.1, 0.2, 0.4, 0.8)  # seconds of waiting after each sending
_MARK = b"lab nat "
_numbers = itertools.count(1)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heard:
    """A UDP datagram."""

    source: Endpoint
    data: bytes
    ttl: int | None


class Hearing(Generic[T]):
    """What was heard so far, and who waits for what."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.heard: list[T] = []
        self._waiting: list[tuple[Callable[[T], bool], asyncio.Future[T]]] = []

    async def hear(self, wanted: Callable[[T], bool], seconds: float) -> T | None:
        """The first thing heard, before or from now on, that is wanted; None if none comes in so many seconds."""
        for each in self.heard:
            if wanted(each):
                return each
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        entry = (wanted, future)
        self._waiting.append(entry)
        try:  # not wait_for: from Python 3.12 on its deadline wins over what came in the same turn of a late loop
            await asyncio.wait({future}, timeout=seconds)
            return future.result() if future.done() else None
        finally:
            self._waiting.remove(entry)

    def add(self, found: T) -> None:
        """Something was heard."""
        self.heard.append(found)
        for wanted, future in self._waiting:
            if not future.done() and wanted(found):
                future.set_result(found)


class Ear(Hearing[T]):
    """A socket, and what it has heard so far as `read` makes it out."""

    def __init__(self, made: socket.socket, read: Callable[[socket.socket], T | None]) -> None:
        """Listen from here on; the socket belongs to the ear."""
        super().__init__()
        made.setblocking(False)
        self.socket = made
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(made, self._listen)

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self.socket)
        self.socket.close()

    def _listen(self) -> None:
        while True:
            try:
                found = self._read(self.socket)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for something sent before
                continue
            if found is not None:
                self.add(found)


class PacketEar(Ear[Packet]):
    """All IPv4 packets of a protocol that reach a node, sorted by where they go, so that many can listen at once."""

    def __init__(self, node: Node, protocol: int) -> None:
        """Open a raw socket in the node."""
        made = node.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        super().__init__(made, lambda each: packets.decoded(each.recv(_LONGEST)))
        self._by_end: dict[Endpoint, Hearing[Packet]] = {}

    def at(self, end: Endpoint) -> Hearing[Packet]:
        """What is sent to an address and port (for ICMP: to an address, and 0)."""
        return self._by_end.setdefault(end, Hearing())

    def add(self, found: Packet) -> None:
        """Only for those who listen where it goes; the same packet to anywhere else is nobody's."""
        numbers = packets.ports(found)
        self.at((found.destination, numbers[1] if numbers else 0)).add(found)


async def carried(send: Callable[[], object], ear: Hearing[T], wanted: Callable[[T], bool], tries: int = 4) -> T | None:
    """Send until what is wanted is heard, at most so many times; what is late is waited for a little longer."""
    for pause in _TRIES[:tries]:
        send()
        heard = await ear.hear(wanted, pause)
        if heard is not None:
            return heard
    return None


def token() -> bytes:
    """A payload that no other datagram of this process has."""
    return _MARK + struct.pack("!Q", next(_numbers))


def holds(payload: bytes) -> Callable[[Heard], bool]:
    """Whether a datagram carries this payload."""
    return lambda heard: heard.data == payload


def udp_ear(node: Node, end: Endpoint) -> Ear[Heard]:
    """A UDP socket of a node, bound to one address (IPv4 or IPv6) and a port; 0: any."""
    is_ipv4 = ":" not in end[0]
    made = node.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM, bind=end)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    if is_ipv4:
        made.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    return Ear(made, _read_datagram)


def frame_ear(node: Node, interface: str) -> Ear[Packet]:
    """All IPv4 packets that come in on an interface of a node, before its firewall judges them."""
    return Ear(node.packet(interface), _read_frame)


def is_segment(
    *, sequence: int | None = None, flags: int | None = None, data: bytes | None = None
) -> Callable[[Packet], bool]:
    """Whether a packet is a TCP segment with this number, these flags, this data, as far as given."""

    def judge(packet: Packet) -> bool:
        found: Segment | None = packets.segment(packet)
        return (
            found is not None
            and (sequence is None or found.sequence == sequence)
            and (flags is None or found.flags == flags)
            and (data is None or found.data == data)
        )

    return judge


def _read_datagram(made: socket.socket) -> Heard:
    data, ancillary, _, source = made.recvmsg(_LONGEST, 64)
    lives = [int.from_bytes(value[:4], "little") for _, _, value in ancillary]
    return Heard((source[0], source[1]), data, lives[0] if lives else None)


def _read_frame(made: socket.socket) -> Packet | None:
    data, address = made.recvfrom(_LONGEST)
    is_incoming = address[2] != socket.PACKET_OUTGOING
    return packets.decoded(data[14:]) if is_incoming and data[12:14] == b"\x08\x00" else None
