"""How long mappings live when nothing happens, and whose packets keep them alive: many idle at once, each its time.

A packet passes the router between its sending and its hearing, which on a busy machine lie apart; so every idle time is
known between two bounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from lab.certify.bench import ICMP_ADDRESS, IDLE_ADDRESS, RESOLVER, TCP_ADDRESS, Bench
from lab.certify.ear import T, token
from lab.certify.handshake import Connection
from lab.certify.lateness import LateError
from lab.certify.packet import ECHO_REPLY, ECHO_REQUEST, ICMP, Packet, echo
from lab.certify.seen import Idle, Refreshed

TIMERS = ("udp", "udp_dns", "tcp_established", "tcp_transitory", "icmp")
_OF_DECLARED = (0.5, 0.8, 0.9, 1.1, 1.2, 1.35)  # of a declared lifetime
_OF_PATIENCE = (0.1, 0.25, 0.5, 1.0)  # of the patience, where nothing is declared or more than that
_BEFORE_REFRESH, _AFTER_REFRESH = 0.65, 0.65  # of a declared lifetime; together more than it
_OPENED = 3  # times, if the machine is late
_TRIES = 3  # of the packet that asks whether a mapping is alive


@dataclass(frozen=True, slots=True)
class _Opened:
    """A fresh mapping: when the last packet through it was sent and heard, and how to ask whether it is alive."""

    sent: float  # time.monotonic()
    heard: float
    knock: Callable[[], Awaitable[bool]]


def pauses(declared: float | None, patience: float) -> Sequence[float]:
    """Seconds to leave mappings idle: around a declared lifetime if that is short enough."""
    if declared is not None and declared * _OF_DECLARED[-1] <= patience:
        return [declared * part for part in _OF_DECLARED]
    return [patience * part for part in _OF_PATIENCE]


def is_measurable(declared: float | None, patience: float) -> bool:
    """Whether its end can be waited for."""
    return declared is not None and declared * max(_OF_DECLARED[-1], _BEFORE_REFRESH + _AFTER_REFRESH) <= patience


async def lifetimes(bench: Bench, timer: str, seconds: Sequence[float]) -> tuple[Idle, ...]:
    """Mappings of one kind, each left alone for another time; those that could not be made are left out."""

    async def one(pause: float) -> Idle | None:
        opened = await _opened(bench, timer)
        if opened is None:
            return None
        await _nothing(bench, opened.heard + pause - time.monotonic())
        asked = time.monotonic()
        try:
            alive, passed = await asyncio.gather(opened.knock(), _passed(bench))
        except LateError:
            return None
        if passed is None:
            return None
        return Idle(round(asked - opened.heard, 3), round(passed - opened.sent, 3), alive)

    found = await asyncio.gather(*(one(pause) for pause in seconds))
    return tuple(each for each in found if each is not None)


async def refresh(bench: Bench, direction: str, lifetime: float) -> Refreshed | None:
    """A UDP mapping with a packet `outbound` or `inbound` on the way, asked after more than its lifetime.

    Raises:
        LateError: nothing passes when it is asked.
    """
    near = bench.inside(IDLE_ADDRESS)
    begun = time.monotonic()
    outside = await bench.outwards(near)
    made = time.monotonic()
    if outside is None:
        return None
    await _nothing(bench, lifetime * _BEFORE_REFRESH)
    sent = time.monotonic()
    passed = await (bench.outwards(near) if direction == "outbound" else bench.inwards(outside, near))
    heard = time.monotonic()
    if passed is None:
        return None
    await _nothing(bench, lifetime * _AFTER_REFRESH)
    asked = time.monotonic()
    answer, answered = await asyncio.gather(bench.gets_in(outside, near, tries=_TRIES), _passed(bench))
    if answered is None:
        return None
    return Refreshed(round(max(heard - begun, answered - sent), 3), round(asked - made, 3), answer is not None)


async def _passed(bench: Bench) -> float | None:
    """When a packet has got in that was sent after what was sent just before: by then that has passed as well.

    None: nothing gets in, so that silence says nothing of mappings.
    """
    return time.monotonic() if await bench.passes(bench.control) else None


async def _opened(bench: Bench, timer: str) -> _Opened | None:
    for _ in range(_OPENED):
        try:
            return await _OPENINGS[timer](bench)
        except LateError:
            continue
    return None


async def _open_dns(bench: Bench) -> _Opened | None:
    return await _open_udp(bench, RESOLVER)


async def _open_udp(bench: Bench, peer: int = 0) -> _Opened | None:
    near = bench.inside(IDLE_ADDRESS)
    outside = await bench.outwards(near, peer)
    if outside is None:
        return None
    answered = await bench.inwards(outside, near, peer)
    sent = time.monotonic()  # the last packet goes out: not every NAT counts those that come in
    if answered is None or await bench.outwards(near, peer) != outside:
        return None

    async def knock() -> bool:
        return await bench.gets_in(outside, near, peer, _TRIES) is not None

    return _Opened(sent, time.monotonic(), knock)


async def _open_established(bench: Bench) -> _Opened | None:
    """Within the time of one that is not open yet; else the NAT does not take it for open."""
    connection = Connection(bench, bench.address(TCP_ADDRESS))
    began = time.monotonic()
    if not (await connection.knock() and await connection.answer()):
        return None
    sent = time.monotonic()
    if not await connection.acknowledge():
        return None
    if bench.is_over("tcp_transitory", began):
        raise LateError

    async def knock() -> bool:
        return await connection.tell_inside(_TRIES)

    return _Opened(sent, time.monotonic(), knock)


async def _open_transitory(bench: Bench) -> _Opened | None:
    """Only the SYN; the peer's answer asks whether it is remembered."""
    connection = Connection(bench, bench.address(TCP_ADDRESS))
    sent = time.monotonic()
    if not await connection.knock():
        return None

    async def knock() -> bool:
        return await connection.answer(_TRIES)

    return _Opened(sent, time.monotonic(), knock)


async def _open_echo(bench: Bench) -> _Opened | None:
    """An echo request; a second reply, made by hand, asks whether its mapping is remembered."""
    address, identifier, peer = bench.address(ICMP_ADDRESS), bench.port(), bench.peers[0][0]
    data = token()
    request = Packet(address, peer, ICMP, echo(ECHO_REQUEST, identifier, 1, data))
    sent = time.monotonic()
    heard = await bench.carried(
        lambda: bench.first.say(request), bench.observer.icmp.at((peer, 0)), _echo_with(ECHO_REQUEST, data)
    )
    answered = await bench.hear(bench.first.icmp.at((address, 0)), _echo_with(ECHO_REPLY, data), 0.5)
    if heard is None or answered is None:
        return None
    late = Packet(peer, heard.source, ICMP, echo(ECHO_REPLY, int.from_bytes(heard.payload[4:6], "big"), 2, data))

    async def knock() -> bool:
        wanted = _echo_with(ECHO_REPLY, data, number=2)
        return (
            await bench.carried(lambda: bench.observer.say(late), bench.first.icmp.at((address, 0)), wanted, _TRIES)
            is not None
        )

    return _Opened(sent, time.monotonic(), knock)


def _echo_with(kind: int, data: bytes, number: int = 1) -> Callable[[Packet], bool]:
    start, wanted = bytes([kind]), number.to_bytes(2, "big") + data
    return lambda packet: packet.payload[:1] == start and packet.payload[6:] == wanted


async def _nothing(bench: Bench, seconds: float) -> None:
    """Let time pass."""
    if seconds > 0:
        await bench.ears[0].hear(_unheard_of, seconds)


def _unheard_of(_: T) -> bool:
    return False


_OPENINGS: dict[str, Callable[[Bench], Awaitable[_Opened | None]]] = {
    "udp": _open_udp,
    "udp_dns": _open_dns,
    "tcp_established": _open_established,
    "tcp_transitory": _open_transitory,
    "icmp": _open_echo,
}
