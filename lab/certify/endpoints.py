"""UDP: which outside endpoint an inside one gets, who may send to it, and what hairpins."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from lab.certify import packet as packets
from lab.certify.bench import UDP_ADDRESS, Bench, InsideEnd
from lab.certify.ear import token
from lab.certify.lateness import LateError
from lab.certify.packet import Endpoint
from lab.certify.seen import Conflict, FilteringSeen, HairpinSeen, MappingSeen

_SOCKETS = 4  # for mapping; one that chance makes look alike does not decide
_ROUNDS = 3  # of strangers, each followed by a packet that must pass
_CONFLICTS = 8
_GRACE = 0.03  # seconds after a packet that was sent last has arrived
_STARTING_TTL = 64


async def mapping(bench: Bench) -> tuple[MappingSeen, ...]:
    """RFC 5780 section 4.3: the same socket to four peers, one after the other."""
    return tuple(await asyncio.gather(*(_to_all_peers(bench, bench.inside()) for _ in range(_SOCKETS))))


async def filtering(bench: Bench) -> tuple[FilteringSeen, ...]:
    """RFC 5780 section 4.4: strangers send to a mapped endpoint; the peer that may do so sends last."""
    return tuple(await asyncio.gather(*(_strangers(bench) for _ in range(2))))


async def conflicts(bench: Bench) -> tuple[tuple[Conflict, ...], tuple[Conflict, ...], tuple[MappingSeen, ...]]:
    """Two hosts with one source port: to one peer, to two peers, and the second's mapping while the first has it.

    Raises:
        LateError: mappings may have ended before others met them.
    """
    same = await asyncio.gather(*(_conflict(bench, 0) for _ in range(_CONFLICTS)))
    other = await asyncio.gather(*(_conflict(bench, 2) for _ in range(_CONFLICTS)))
    under = await asyncio.gather(*(_to_all_peers(bench, each.second) for each in other[:_SOCKETS]))
    if any(bench.is_over("udp", each.began) for each in other):
        under = []
    return tuple(each.conflict for each in same), tuple(each.conflict for each in other), tuple(under)


async def hairpin(bench: Bench) -> HairpinSeen | None:
    """Both inside hosts speak to each other's outside endpoints, so that each one's filter would let the other in.

    Raises:
        LateError: nothing came, but a mapping has ended meanwhile, so that nothing could.
    """
    sender, receiver = bench.inside(), bench.neighbour()
    mine, theirs = await bench.outwards(sender), await bench.outwards(receiver)
    if mine is None or theirs is None:
        return None
    payload = token()
    heard = None
    for pause in (0.05, 0.1, 0.2):
        receiver.send(token(), mine)
        sender.send(payload, theirs)
        heard = await receiver.hear(payload, pause)
        if heard is not None:
            break
    else:
        for near, outside in ((sender, mine), (receiver, theirs)):
            if await bench.inwards(outside, near) is None:
                raise LateError
        heard = await receiver.hear(payload, _GRACE)
    numbers = packets.ports(heard) if heard else None
    return HairpinSeen((heard.source, numbers[0]) if heard and numbers else None, sender.end, mine)


async def hops(bench: Bench) -> tuple[int | None, int | None]:
    """By how much a packet's time to live shrinks on its way out and in."""
    near = bench.inside()
    out = await bench.heard_outside(near)
    back = await bench.inwards(out.source, near) if out else None
    return _hops(out.ttl if out else None), _hops(back.ttl if back else None)


@dataclass(frozen=True, slots=True)
class _Met:
    conflict: Conflict
    second: InsideEnd
    began: float  # time.monotonic()


async def _to_all_peers(bench: Bench, near: InsideEnd) -> MappingSeen:
    """Raises LateError where the first mapping may have ended before the last was made."""
    began = time.monotonic()
    outsides = [await bench.outwards(near, peer) for peer in range(len(bench.peers))]
    if bench.is_over("udp", began):
        raise LateError
    return MappingSeen(near.end, tuple(outsides))


async def _strangers(bench: Bench) -> FilteringSeen:
    near = bench.inside()
    outside = await bench.outwards(near)
    if outside is None:
        return FilteringSeen(spoken_to=False, other_port=False, other_address=False, other_both=False)
    payloads = [token() for _ in bench.peers]
    spoken_to = False
    for _ in range(_ROUNDS):
        for peer in (1, 2, 3):
            bench.ears[peer].socket.sendto(payloads[peer], outside)
        spoken_to = await bench.inwards(outside, near) is not None or spoken_to
    await near.hear(b"", _GRACE)
    port, address, both = (near.has_heard(payload) for payload in payloads[1:])
    return FilteringSeen(spoken_to, port, address, both)


async def _conflict(bench: Bench, peer_of_second: int) -> _Met:
    """Raises LateError where the first mapping may have ended before the second was made."""
    port, began = bench.port(), time.monotonic()
    first, second = InsideEnd(bench.first, (bench.address(UDP_ADDRESS), port)), bench.neighbour(port)
    one = await bench.outwards(first)
    two = await bench.outwards(second, peer_of_second)
    if one is None or two is None:
        return _Met(Conflict(one, two, answers_apart=False), second, began)
    if bench.is_over("udp", began):
        raise LateError
    apart = await _answers(bench, one, first, second, 0) and await _answers(bench, two, second, first, peer_of_second)
    return _Met(Conflict(one, two, apart), second, began)


async def _answers(bench: Bench, outside: Endpoint, right: InsideEnd, wrong: InsideEnd, peer: int) -> bool:
    answer = await bench.gets_in(outside, right, peer)
    return answer is not None and not wrong.has_heard(answer.payload[8:])


def _hops(ttl: int | None) -> int | None:
    return _STARTING_TTL - ttl if ttl is not None else None
