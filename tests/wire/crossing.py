"""Numbered frames sent across a served wire: which arrived, in which order, after how long, by the kernel's clock."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice

from tests.wire.master import ServedWire
from tests.wire.wire_bench import wait_until

ETH_P_TEST = 0x88B5  # IEEE 802: local experimental
BROADCAST = b"\xff" * 6
SENDER = bytes.fromhex("020000000001")
HEADER_LEN = 14
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
# A TAP's own queue holds 500 frames and more; what overflows there has not reached the wire.
WINDOW = 200


@dataclass(frozen=True)
class Arrival:
    """One frame at the far end."""

    number: int
    delay_s: float
    frame: bytes


def cross(wire: ServedWire, count: int, *, length: int = 60, one_by_one: bool = False) -> list[Arrival]:
    """Sends numbered frames of `length` bytes from a to b; gives what arrived, in order, once the wire is empty again.

    `one_by_one`: the next is sent when the one before is through.
    """
    with (
        wire.a.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
        wire.b.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_TEST)) as receiver,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sender.bind(("tap-a", ETH_P_TEST))
        receiver.bind(("tap-b", ETH_P_TEST))
        sent_at: list[float] = []
        came = wire.master.counters()["a_to_b"]["frames_in"]
        numbers = iter(range(count))
        while window := list(islice(numbers, 1 if one_by_one else WINDOW)):
            for number in window:
                sent_at.append(time.clock_gettime(time.CLOCK_REALTIME))
                sender.send(numbered_frame(number, length))
            came += len(window)
            wait_until(partial(is_through, wire, came, is_empty=one_by_one), f"{came} frames to be through")
        wait_until(partial(is_through, wire, came, is_empty=True), "the wire to be empty")
        return list(arrivals(receiver, sent_at))


def numbered_frame(number: int, length: int) -> bytes:
    """The number is said three times, so that it can be read behind one flipped bit."""
    head = BROADCAST + SENDER + ETH_P_TEST.to_bytes(2, "big") + number.to_bytes(4, "big") * 3
    return head + bytes(length - len(head))


def is_through(wire: ServedWire, came: int, *, is_empty: bool) -> bool:
    """True if the wire has read so many frames and, if asked, holds none."""
    counters = wire.master.counters()["a_to_b"]
    has_come: bool = counters["frames_in"] >= came
    return has_come and not (is_empty and counters["queued_frames"])


def arrivals(receiver: socket.socket, sent_at: list[float]) -> Iterable[Arrival]:
    receiver.setblocking(False)
    while True:
        try:
            frame, control, _, _ = receiver.recvmsg(65536, 64)
        except BlockingIOError:
            return
        seconds, nanoseconds = struct.unpack("@ll", control[0][2])
        said = [int.from_bytes(frame[at : at + 4], "big") for at in (14, 18, 22)]
        number = max(said, key=said.count)
        yield Arrival(number, seconds + nanoseconds / 1e9 - sent_at[number], frame)
