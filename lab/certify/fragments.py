"""Datagrams in fragments, in order and out of order, in both directions (RFC 4787 REQ-14)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from lab.certify import packet as packets
from lab.certify.bench import ICMP_ADDRESS, Bench, Side
from lab.certify.ear import Ear, Heard, carried, holds, token
from lab.certify.packet import MORE_FRAGMENTS, Endpoint, Packet

_PIECE = 1200  # bytes, a multiple of 8
_PIECES = 3
_identifications = itertools.count(1)


async def fragments(bench: Bench) -> dict[str, bool]:
    """Whether a datagram in three pieces arrives whole, by direction and order."""
    ear = bench.inside(ICMP_ADDRESS)
    outside = await bench.outwards(ear)
    if outside is None:
        return {}
    inside: Endpoint = ear.socket.getsockname()
    tried = {
        f"{way} {order}": (teller, hearer, source, to, places)
        for order, places in {"in order": (0, 1, 2), "out of order": (2, 0, 1)}.items()
        for way, teller, hearer, source, to in (
            ("out", bench.first, bench.ears[0], inside, bench.peers[0]),
            ("in", bench.observer, ear, bench.peers[0], outside),
        )
    }
    arrived = await asyncio.gather(*(_arrives(*each) for each in tried.values()))
    return dict(zip(tried, arrived, strict=True))


async def _arrives(teller: Side, hearer: Ear[Heard], source: Endpoint, to: Endpoint, order: Sequence[int]) -> bool:
    data = token() + bytes(_PIECE * _PIECES - 64)

    def send() -> None:
        pieces = cut(packets.datagram(source, to, data), next(_identifications) & 0xFFFF or 1)
        for place in order:
            teller.say(pieces[place])

    return await carried(send, hearer, holds(data), 3) is not None


def cut(whole: Packet, identification: int) -> list[Packet]:
    """A packet as fragments of at most `_PIECE` bytes each (RFC 791 section 3.2)."""
    starts = range(0, len(whole.payload), _PIECE)
    return [
        Packet(
            whole.source,
            whole.destination,
            whole.protocol,
            whole.payload[start : start + _PIECE],
            whole.ttl,
            identification,
            start // 8 | (MORE_FRAGMENTS if start + _PIECE < len(whole.payload) else 0),
        )
        for start in starts
    ]
