"""What was heard counts, however late the loop is."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import closing

from lab.certify.ear import Ear

SHORT = 0.01  # seconds


def test_a_packet_that_waits_when_a_late_loop_comes_to_the_deadline_is_heard() -> None:
    """Packet and deadline fall into one turn of the loop."""

    async def heard() -> bytes | None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with closing(there), closing(Ear(here, lambda each: each.recv(100))) as ear:
            hearing = asyncio.ensure_future(ear.hear(lambda data: data == b"here", SHORT))
            for _ in range(3):
                await asyncio.sleep(0)  # it waits now
            there.send(b"here")
            block(until=time.monotonic() + 5 * SHORT)
            return await hearing

    assert asyncio.run(heard()) == b"here"


def test_what_does_not_come_is_not_heard() -> None:
    async def heard() -> bytes | None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with closing(there), closing(Ear(here, lambda each: each.recv(100))) as ear:
            there.send(b"another")
            return await ear.hear(lambda data: data == b"here", SHORT)

    assert asyncio.run(heard()) is None


def block(until: float) -> None:
    """As a busy machine does: no turn of the loop meanwhile."""
    while time.monotonic() < until:
        pass
