"""Many inside endpoints at once and what they become outside: ports, blocks, pools, and how many there may be."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from lab.certify.bench import CAP_ADDRESSES, PORTS, SAMPLE_ADDRESS, Bench, Side
from lab.certify.ear import holds, token
from lab.certify.packet import Endpoint, datagram
from lab.certify.seen import Sample

SAMPLE = 32  # endpoints: that chance keeps the parity of all has a probability of 2^-32
_NEAR = 16
_PRIVILEGED = (137, 500, 512, 623, 911, 1000)
_FIRST_UNPRIVILEGED, _LAST_PORT = 1024, 65535
_AT_ONCE = 64  # datagrams before the first is waited for
_ROUNDS = 3
_PAUSE = 0.15  # seconds
MOST_SESSIONS = 4096  # a larger cap is not tried
FIRST_OF_CAP = 2048  # inside port; the others follow, each in its turn
_MORE_THAN_CAP = 16


async def spread(bench: Bench) -> Sample:
    """Inside ports from all over the unprivileged range, even ones and their successors."""
    even = bench.chance.sample(range(2048, 30_000, 2), SAMPLE // 2)
    ports = [port for each in even for port in (each, each + 1)]
    bench.chance.shuffle(ports)  # lest one after the other keeps parity by itself
    return await _burst(bench, bench.first, bench.address(SAMPLE_ADDRESS), ports)


async def near(bench: Bench, found: Sample) -> Sample | None:
    """Inside ports between those that `spread` became: a NAT that keeps ports within its range keeps these."""
    outsides = sorted(outside[1] for _, outside in found.pairs)
    if not outsides:
        return None
    used = {inside[1] for inside, _ in found.pairs} | set(outsides)
    first = max(outsides[0], _FIRST_UNPRIVILEGED)
    last = max(outsides[-1], min(first + 2 * SAMPLE, _LAST_PORT))  # where ports follow each other there is more
    free = [port for port in range(first, last + 1) if port not in used]
    if len(free) < _NEAR:
        return None
    ports = bench.chance.sample(free, _NEAR)
    return await _burst(bench, bench.first, bench.address(SAMPLE_ADDRESS), ports)


async def privileged(bench: Bench) -> Sample:
    """Inside ports below 1024."""
    return await _burst(bench, bench.first, bench.address(SAMPLE_ADDRESS), _PRIVILEGED)


async def neighbour(bench: Bench, found: Sample) -> Sample:
    """The second host with the same ports to the same peer: none of them can stay."""
    ports = [inside[1] for inside, _ in found.pairs]
    return await _burst(bench, bench.second, bench.second_address, ports)


async def caps(bench: Bench, most: int) -> tuple[Sample, ...]:
    """More sessions of inside addresses than one may have; none of addresses that have sessions of other probes.

    Nothing where the first would have ended before the last was tried, or where they would leave others no ports.
    """
    ports = range(FIRST_OF_CAP, FIRST_OF_CAP + most + _MORE_THAN_CAP)
    if most > MOST_SESSIONS or bench.room < PORTS + len(CAP_ADDRESSES) * len(ports):
        return ()
    own = [bench.address(role) for role in CAP_ADDRESSES if bench.has_own(role)]
    lifetime = (bench.subject.declared or {}).get("timers", {}).get("udp", math.inf)
    found = []
    for address in own:
        began = time.monotonic()
        sample = await _burst(bench, bench.first, address, ports)
        if time.monotonic() - began < lifetime:
            found.append(sample)
    return tuple(found)


async def _burst(bench: Bench, side: Side, address: str, ports: Sequence[int]) -> Sample:
    """A datagram of each port to the first peer, in this order."""
    peer, ear = bench.peers[0], bench.ears[0]
    payloads = {port: token() for port in ports}
    missing = list(ports)
    for _ in range(_ROUNDS):
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            for port in part:
                side.say(datagram((address, port), peer, payloads[port]))
            await ear.hear(holds(payloads[part[-1]]), _PAUSE + bench.round_trip)
        heard = {each.data: each.source for each in ear.heard}
        missing = [port for port in missing if payloads[port] not in heard]
        if not missing or not await bench.passes(bench.control):
            break
        heard = {each.data: each.source for each in ear.heard}  # what was late
        missing = [port for port in missing if payloads[port] not in heard]
    pairs: list[tuple[Endpoint, Endpoint]] = [
        ((address, port), heard[payload]) for port, payload in payloads.items() if payload in heard
    ]
    return Sample(tuple(pairs), len(ports))
