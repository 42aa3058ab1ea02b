"""Datagrams in fragments, in order and out of order, in both directions (RFC 4787 REQ-14)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from lab.certify import packet as packets
from lab.certify.bench import ICMP_ADDRESS, Bench
from lab.certify.ear import holds, token
from lab.certify.packet import MORE_FRAGMENTS, Packet

_PIECE = 1200  # bytes, a multiple of 8
_PIECES = 3
_TRIES = 3
_identifications = itertools.count(1)


async def fragments(bench: Bench) -> dict[str, bool]:
    """Whether a datagram in three pieces arrives whole, by direction and order."""
    near = bench.inside(ICMP_ADDRESS)
    outside = await bench.outwards(near)
    if outside is None:
        return {}
    peer = bench.peers[0]

    async def arrives(way: str, order: Sequence[int]) -> bool:
        data = token() + bytes(_PIECE * _PIECES - 64)
        ends = (near.end, peer) if way == "out" else (peer, outside)
        teller = bench.first if way == "out" else bench.observer

        def send() -> None:
            pieces = cut(packets.datagram(*ends, data), next(_identifications) & 0xFFFF or 1)
            for place in order:
                teller.say(pieces[place])

        if way == "in":
            return (
                await bench.carried(send, near.hearing, lambda packet: packet.payload[8:] == data, _TRIES) is not None
            )
        return await bench.carried(send, bench.ears[0], holds(data), _TRIES) is not None

    orders = {"in order": (0, 1, 2), "out of order": (2, 0, 1)}
    tried = [(way, order) for way in ("out", "in") for order in orders]
    arrived = await asyncio.gather(*(arrives(way, orders[order]) for way, order in tried))
    return {f"{way} {order}": passed for (way, order), passed in zip(tried, arrived, strict=True)}


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
