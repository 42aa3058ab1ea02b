"""ICMP: echo through the NAT, errors about mapped flows in both directions, and whether these end a mapping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lab.certify import packet as packets
from lab.certify.bench import ICMP_ADDRESS, Bench, Side
from lab.certify.ear import token
from lab.certify.lateness import LateError
from lab.certify.packet import (
    ECHO_REPLY,
    ECHO_REQUEST,
    FRAGMENTATION_NEEDED,
    ICMP,
    PORT_UNREACHABLE,
    TIME_EXCEEDED,
    UNREACHABLE,
    Endpoint,
    Packet,
)
from lab.certify.seen import Conflict

# Which errors are tried: type, code, MTU (RFC 5508 REQ-10, RFC 5382 REQ-9).
KINDS = {
    "port unreachable": (UNREACHABLE, PORT_UNREACHABLE, 0),
    "fragmentation needed": (UNREACHABLE, FRAGMENTATION_NEEDED, 1280),
    "time exceeded": (TIME_EXCEEDED, 0, 0),
}
_TRIES = 3


async def echo(bench: Bench) -> tuple[Conflict, ...]:
    """Both inside hosts ping with one identifier; the replies are the observer's own.

    Raises:
        LateError: the first mapping may have ended before the second was made.
    """
    identifier, began = bench.port(), time.monotonic()
    one = await _ping(bench, bench.first, bench.address(ICMP_ADDRESS), identifier)
    two = await _ping(bench, bench.second, bench.second_address, identifier)
    if one is not None and bench.is_over("icmp", began):
        raise LateError
    return (Conflict(one, two, one is not None and two is not None),)


async def errors(bench: Bench) -> tuple[dict[str, bool], bool | None]:
    """Which errors about a UDP flow pass, by "kind in" and "kind out", and whether the flow goes on after them.

    Raises:
        LateError: it does not, but may have ended by itself.
    """
    near, began = bench.inside(ICMP_ADDRESS), time.monotonic()
    inside = near.end
    outside = await bench.outwards(near)
    if outside is None or await bench.inwards(outside, near) is None:
        return {}, None
    peer = bench.peers[0]
    sent = packets.datagram(outside, peer, b"as the peer got it")
    come = packets.datagram(peer, inside, b"as the inside got it")
    tried: list[tuple[str, Side, Side, str, Packet, Endpoint, Endpoint]] = [
        ("in", bench.observer, bench.first, outside[0], sent, inside, peer),
        ("out", bench.first, bench.observer, peer[0], come, peer, outside),
    ]

    async def one(name: str, way: str, teller: Side, hearer: Side, to: str, about: Packet, *ends: Endpoint) -> bool:
        kind, code, mtu = KINDS[name]
        by = peer[0] if way == "in" else inside[0]
        message = Packet(by, to, ICMP, packets.error(kind, code, about, mtu))
        is_about = _is_about(kind, code, *ends)
        senders = (by,) if way == "in" else bench.subject.outside_addresses  # not an inside address (5508 REQ-5)

        def wanted(packet: Packet) -> bool:
            return packet.source in senders and is_about(packet)

        say = lambda: teller.say(message)  # noqa: E731
        return await bench.carried(say, hearer.icmp.at((ends[0][0], 0)), wanted, _TRIES) is not None

    names = [(name, *each) for name in KINDS for each in tried]
    passed = await asyncio.gather(*(one(*each) for each in names))
    by_name = {f"{name[0]} {name[1]}": answer for name, answer in zip(names, passed, strict=True)}
    survives = await bench.gets_in(outside, near) is not None and await bench.outwards(near) == outside
    if not survives and bench.is_over("udp", began):
        raise LateError
    return by_name, survives


def _is_about(kind: int, code: int, near: Endpoint, far: Endpoint) -> Callable[[Packet], bool]:
    """Whether an ICMP packet is such an error about a packet from `near` to `far`, as its receiver knows these."""

    def judge(packet: Packet) -> bool:
        inner = packets.quoted(packet)
        if inner is None or packet.payload[0] != kind or packet.payload[1] != code:
            return False
        numbers = packets.ports(inner)
        return numbers is not None and ((inner.source, numbers[0]), (inner.destination, numbers[1])) == (near, far)

    return judge


async def _ping(bench: Bench, side: Side, address: str, identifier: int) -> Endpoint | None:
    """What the observer saw as source and identifier, if its reply came back to who asked."""
    data = token()
    request = Packet(address, bench.peers[0][0], ICMP, packets.echo(ECHO_REQUEST, identifier, 1, data))
    observed = bench.observer.icmp.at((request.destination, 0))
    heard = await bench.carried(lambda: side.say(request), observed, lambda each: _is_echo(each, ECHO_REQUEST, data))
    reply = await bench.hear(side.icmp.at((address, 0)), lambda each: _is_echo(each, ECHO_REPLY, data), 0.5)
    if heard is None or reply is None or _identifier(reply) != identifier:
        return None
    return heard.source, _identifier(heard)


def _is_echo(packet: Packet, kind: int, data: bytes) -> bool:
    return packet.payload[:1] == bytes([kind]) and packet.payload[8:] == data


def _identifier(packet: Packet) -> int:
    return int.from_bytes(packet.payload[4:6], "big")
