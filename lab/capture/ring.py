"""A packet socket with a ring of memory that the kernel fills and this process reads (TPACKET_V3, packet_mmap.rst).

A ring is not bound to the host's limits on the buffers of sockets, keeps the time of each packet in nanoseconds, and
costs one wake-up for many packets.
"""

from __future__ import annotations

import mmap
import socket
import struct
from typing import NamedTuple

from lab.capture.offload import HEADER_SIZE, Offload

BLOCK = 128 * 1024  # bytes; holds the largest frame that an interface hands on uncut (64 KiB)
RETIRE = 0.02  # seconds after which the kernel hands over a block that is not full; it may take two of them

_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION, _VNET_HDR = 5, 6, 10, 15  # linux/if_packet.h
_TPACKET_V3 = 2
_ALL_ETHERNET = 0x0003  # ETH_P_ALL
_FRAME = 2048  # bytes; with this version only a number that must fit

_BLOCK_STATUS = struct.Struct("=I")  # of tpacket_hdr_v1
_BLOCK_HEAD = struct.Struct("=III")  # its status, number of packets, offset of the first
_STATUS_AT, _COUNT_AT = 8, 12
_USER = 1  # TP_STATUS_USER: ours to read
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_FRAME_HEAD = struct.Struct("=6I2HIIH")  # tpacket3_hdr: next, s, ns, kept, length, status, mac, net, hash, tci, tpid
_KIND_AT = 58  # sockaddr_ll.sll_pkttype behind it
_VLAN = 0x8100


class Seen(NamedTuple):
    """A frame as the socket saw it."""

    timestamp: int  # nanoseconds since the epoch
    frame: bytes
    length: int  # bytes it had, where it did not fit a block
    kind: int  # PACKET_HOST, PACKET_OUTGOING...
    offload: Offload | None


def prepare(made: socket.socket, size: int) -> None:
    """Give an unbound packet socket a ring of about `size` bytes; what it sees is kept from when it is bound.

    Raises:
        OSError: as the kernel answers.
    """
    blocks = max(size // BLOCK, 4)
    made.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
    made.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
    request = struct.pack("=7I", BLOCK, blocks, _FRAME, BLOCK // _FRAME * blocks, round(RETIRE * 1000), 0, 0)
    made.setsockopt(_SOL_PACKET, _RX_RING, request)


def bind(made: socket.socket, interface: str) -> None:
    """Let a prepared socket see all frames of an interface from now on.

    Raises:
        OSError: ENODEV if there is no such interface.
    """
    made.bind((interface, _ALL_ETHERNET))


def ring_size(interfaces: int) -> int:
    """Bytes of each ring where so many are wanted: 16 MiB, but 128 MiB together and not less than 1 MiB."""
    return max(min(16, 128 // interfaces), 1) * 1024 * 1024


class Ring:
    """Reads what a prepared and bound socket sees."""

    def __init__(self, made: socket.socket, size: int) -> None:
        """Map the ring that was prepared with this size; the socket is the ring's from now on."""
        self.socket = made
        self._blocks = max(size // BLOCK, 4)
        self._memory = mmap.mmap(made.fileno(), self._blocks * BLOCK)
        self._next = 0  # number of the block that the kernel hands over next
        self._received = 0
        self._dropped = 0

    def read(self) -> list[Seen]:
        """All that has been handed over, oldest first."""
        seen: list[Seen] = []
        for _ in range(self._blocks):  # so that even the fastest sender lets us go
            start = self._next * BLOCK
            status, count, first = _BLOCK_HEAD.unpack_from(self._memory, start + _STATUS_AT)
            if not status & _USER:
                break
            self._read_block(start + first, count, seen)
            # Cleared before it is the kernel's again: see `is_empty`.
            _BLOCK_STATUS.pack_into(self._memory, start + _COUNT_AT, 0)
            _BLOCK_STATUS.pack_into(self._memory, start + _STATUS_AT, 0)
            self._next = (self._next + 1) % self._blocks
        return seen

    def is_empty(self) -> bool:
        """Whether nothing has arrived that `read` has not returned: the kernel counts into the block that it fills."""
        status, count, _ = _BLOCK_HEAD.unpack_from(self._memory, self._next * BLOCK + _STATUS_AT)
        return not status & _USER and count == 0

    def is_gone(self) -> bool:
        """Whether the interface exists no more, once the socket has reported an error; clears the error.

        The kernel reports that an interface goes down, as it does before its end, and says no more of the end itself.
        """
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        name: str = self.socket.getsockname()[0]
        return not name

    def counts(self) -> tuple[int, int]:
        """Frames since it was bound: all that the socket saw, and those of them for which there was no room."""
        seen, dropped, _ = struct.unpack("=3I", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 12))
        self._received += seen  # the kernel counts from the last time it was asked
        self._dropped += dropped
        return self._received, self._dropped

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        self.socket.close()

    def _read_block(self, at: int, count: int, seen: list[Seen]) -> None:
        memory = self._memory
        for _ in range(count):
            following, seconds, nanoseconds, kept, length, status, mac, _, _, tci, tpid = _FRAME_HEAD.unpack_from(
                memory, at
            )
            start = at + mac
            frame = memory[start : start + kept]
            header = memory[start - HEADER_SIZE : start]
            offload = Offload.of(header) if header[0] & 1 or header[1] else None
            if status & _VLAN_VALID:
                frame, offload = _tagged(frame, offload, tci, tpid if status & _VLAN_TPID_VALID else _VLAN)
                length += 4
            seen.append(Seen(seconds * 1_000_000_000 + nanoseconds, frame, length, memory[at + _KIND_AT], offload))
            at += following


def _tagged(frame: bytes, offload: Offload | None, tci: int, tpid: int) -> tuple[bytes, Offload | None]:
    """The frame with the VLAN tag that the kernel took out of it."""
    if offload is not None:
        start = offload.checksum_start + 4
        offload = Offload(offload.needs_checksum, offload.kind, offload.segment_size, start, offload.checksum_offset)
    return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:], offload
