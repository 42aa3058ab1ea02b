"""TCP: mapping, filtering, the ways to open a connection, and what a SYN meets that nobody waits for."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from lab.certify import packet as packets
from lab.certify.bench import TCP_ADDRESS, Bench
from lab.certify.ear import is_segment
from lab.certify.handshake import Connection
from lab.certify.lateness import LateError
from lab.certify.packet import ACK, ICMP, RST, SYN, Endpoint, Packet, Segment
from lab.certify.seen import FilteringSeen, HairpinSeen, MappingSeen, Silence

_SOCKETS = 4
_ROUNDS = 3  # of strangers, each followed by a segment that must pass
_GRACE = 0.03  # seconds after a segment that was sent last has arrived
_UNUSED_PORT = 64_999  # outside, of no forward and no mapping
_STRANGER = 3  # the peer at the other address and port


async def mapping(bench: Bench) -> tuple[MappingSeen, ...]:
    """One inside endpoint opens connections to all four peers."""
    return tuple(await asyncio.gather(*(_to_all_peers(bench) for _ in range(_SOCKETS))))


async def filtering(bench: Bench) -> FilteringSeen | None:
    """SYNs of strangers to the outside endpoint of an open connection; then its peer speaks."""
    connection = Connection(bench, bench.address(TCP_ADDRESS))
    if not await connection.open() or connection.outside is None:
        return None
    outside = connection.outside
    numbers = [(peer, bench.sequence()) for peer in (1, 2, 3)]
    spoken_to = False
    for _ in range(_ROUNDS):
        for peer, number in numbers:
            bench.observer.say(Segment(bench.peers[peer], outside, number, 0, SYN).packet())
        spoken_to = await connection.tell_inside() or spoken_to
    passed = [
        await bench.first.tcp.at(connection.inside).hear(is_segment(sequence=number), _GRACE) is not None
        for _, number in numbers
    ]
    return FilteringSeen(spoken_to, *passed)


async def handshake(bench: Bench) -> bool:
    """Whether a plain connection opens, and carries a byte inwards."""
    connection = Connection(bench, bench.address(TCP_ADDRESS))
    return await connection.open() and await connection.tell_inside()


async def simultaneous_open(bench: Bench) -> bool:
    """RFC 5382 REQ-2a."""
    return await Connection(bench, bench.address(TCP_ADDRESS)).open_from_both_ends()


async def unsolicited(bench: Bench, seconds: float) -> Silence | None:
    """What a stranger's SYN to a mapped port is told within so many seconds."""
    connection = Connection(bench, bench.address(TCP_ADDRESS))
    if not await connection.open() or connection.outside is None:
        return None
    return await _told(bench, connection.outside, seconds)


async def unmapped(bench: Bench, seconds: float) -> Silence:
    """What a SYN to a port without mapping is told."""
    return await _told(bench, (bench.subject.outside_addresses[0], _UNUSED_PORT), seconds)


async def hairpin(bench: Bench) -> HairpinSeen | None:
    """SYNs of both inside hosts to each other's outside endpoints, as when both punch holes.

    Raises:
        LateError: nothing came, but a mapping has ended meanwhile, so that nothing could.
    """
    sender = Connection(bench, bench.address(TCP_ADDRESS))
    port = bench.port()
    peer = bench.peers[0]
    theirs = Segment((bench.second_address, port), peer, bench.sequence(), 0, SYN)
    heard = await bench.carried(
        lambda: bench.second.say(theirs.packet()),
        bench.observer.tcp.at(peer),
        is_segment(sequence=theirs.sequence, flags=SYN),
    )
    seen = packets.segment(heard) if heard else None
    if seen is None or not await sender.knock() or sender.outside is None:
        return None
    number = bench.sequence()
    wanted = is_segment(sequence=number, flags=SYN)
    receiver = bench.second.tcp.at(theirs.source)
    for pause in (0.05, 0.1, 0.2):
        bench.second.say(Segment(theirs.source, sender.outside, number + 1, 0, SYN).packet())
        bench.first.say(Segment(sender.inside, seen.source, number, 0, SYN).packet())
        arrived = await receiver.hear(wanted, pause)
        if arrived is not None:
            break
    else:
        answer = Segment(peer, seen.source, bench.sequence(), theirs.sequence + 1, SYN | ACK)
        is_answer = is_segment(sequence=answer.sequence)
        if await bench.carried(partial(bench.observer.say, answer.packet()), receiver, is_answer) is None:
            raise LateError
        if not await sender.answer():
            raise LateError
        arrived = await receiver.hear(wanted, _GRACE)
    found = packets.segment(arrived) if arrived else None
    return HairpinSeen(found.source if found else None, sender.inside, sender.outside)


async def _to_all_peers(bench: Bench) -> MappingSeen:
    """Raises LateError where the first mapping may have ended before the last was made."""
    port, began = bench.port(), time.monotonic()
    outsides: list[Endpoint | None] = []
    for peer in range(len(bench.peers)):
        connection = Connection(bench, bench.address(TCP_ADDRESS), peer, port)
        outsides.append(connection.outside if await connection.knock() else None)
    if bench.is_over("tcp_transitory", began):
        raise LateError
    return MappingSeen((bench.address(TCP_ADDRESS), port), tuple(outsides))


async def _told(bench: Bench, to: Endpoint, seconds: float) -> Silence:
    """The first answer to one SYN of a stranger: reset, open, unreachable, or silence."""
    here = bench.peers[_STRANGER][0], bench.port()
    syn = Segment(here, to, bench.sequence(), 0, SYN)
    began = time.monotonic()
    bench.observer.say(syn.packet())
    ways = (
        (bench.observer.tcp.at(here), lambda packet: packet.source == to[0]),  # not of another router
        (bench.observer.icmp.at((here[0], 0)), lambda packet: _quotes(packet, syn)),
    )
    hearing = [asyncio.ensure_future(ear.hear(wanted, seconds)) for ear, wanted in ways]
    done, waiting = await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    took = time.monotonic() - began
    if not any(task.result() for task in done) and not await bench.passes(bench.control):
        raise LateError  # so that the silence says nothing
    answers = [found for ear, wanted in ways if (found := await ear.hear(wanted, 0)) is not None]
    return Silence(_word(answers[0]) if answers else "silence", round(took, 3))


def _word(packet: Packet) -> str:
    found = packets.segment(packet)
    if found is None:
        return "unreachable"
    return "reset" if found.flags & RST else "open" if found.flags & (SYN | ACK) == SYN | ACK else "an answer"


def _quotes(packet: Packet, syn: Segment) -> bool:
    inner = packets.quoted(packet) if packet.protocol == ICMP else None
    return inner is not None and packets.ports(inner) == (syn.source[1], syn.destination[1])
