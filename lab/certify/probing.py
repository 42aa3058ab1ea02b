"""All probes of one router, as many at once as do not disturb each other; and of many routers at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, TypeVar

from lab.certify import endpoints, icmp, idle, inbound, sampling, tcp
from lab.certify.bench import PORTS, RESOLVER_PORT, Bench, Side
from lab.certify.ear import Ear, Heard, udp_ear
from lab.certify.fragments import fragments
from lab.certify.path import while_passing
from lab.certify.seen import Idle, Refreshed, Seen
from lab.certify.subject import Subject, guests
from lab.realise.growth import grow

if TYPE_CHECKING:
    from lab.realise.lab import Lab

T = TypeVar("T")
_FIRST_PEER_PORT, _PEER_PORTS = 20_000, 40_000  # of observers: two for each router
_SESSIONS = 96  # of one host, at least, for all probes: the second has about 70
_LISTENED = 1.0  # seconds, at least, that silence is listened to; so no certificate takes less than a seed lasts


def measure(lab: Lab, subjects: Sequence[Subject], patience: float, seed: int) -> dict[str, Seen]:
    """What is seen of each router; temporary nodes come for it, and are gone afterwards.

    Raises:
        UsageError: there is no room for them, or another certificate of this lab is being measured.
        LabError: they could not be made.
    """
    chance = random.Random(seed)  # noqa: S311 - any ports and addresses will do
    steps, who = guests(lab.facts, subjects, seed)
    first_pair = chance.randrange(_PEER_PORTS // 2)
    with grow(lab, steps) as nodes:

        async def every() -> list[Seen]:
            """Sockets first, for to get one takes a while in which nothing is heard."""
            with ExitStack() as stack:
                shared: dict[str, tuple[Side, Ear[Heard]]] = {}
                benches = []
                for number, subject in enumerate(subjects):
                    found = who[subject.router]
                    if found.observer not in shared:
                        node, end = nodes[found.observer], (found.observer_addresses[0], RESOLVER_PORT)
                        shared[found.observer] = Side(node, stack), stack.enter_context(closing(udp_ear(node, end)))
                    peer_port = _FIRST_PEER_PORT + (first_pair + number) * 2 % _PEER_PORTS
                    bench = Bench(subject, found, nodes, peer_port, *shared[found.observer], chance)
                    benches.append(stack.enter_context(bench))
                return await asyncio.gather(*(probe(bench, lab, patience) for bench in benches))

        found = asyncio.run(every())
    return {subject.router: seen for subject, seen in zip(subjects, found, strict=True)}


async def probe(bench: Bench, lab: Lab, patience: float) -> Seen:
    """Everything of one router, as long as packets pass it at all. `patience`: the most seconds of an idle timer."""
    ends = f"between {bench.subject.inside} and {bench.subject.outside}"
    if not await bench.wait_for_path():
        return _unseen(bench, f"no packet passes {ends}")
    declared = bench.subject.declared or {}
    if bench.room < PORTS:
        return _unseen(bench, f"{bench.room} outside ports are fewer than the {PORTS} that they take")
    most = min((each for key in ("sessions", "port_block") if (each := declared.get(key))), default=_SESSIONS)
    probing = _everything(bench, lab, patience) if most >= _SESSIONS else _only_caps(bench, most)
    return await while_passing(bench, probing) or _unseen(bench, f"what passed {ends} ended")


def _unseen(bench: Bench, why: str) -> Seen:
    return Seen(outside_addresses=bench.subject.outside_addresses, failures=(f"all probes: {why}",))


async def _only_caps(bench: Bench, most: int) -> Seen:
    """What more sessions would tell would be of the cap, not of what they ask."""
    caps = await sampling.caps(bench, (bench.subject.declared or {}).get("sessions") or sampling.MOST_SESSIONS + 1)
    failure = f"all probes but one: {most} sessions or ports of one host are fewer than the {_SESSIONS} that they take"
    return Seen(outside_addresses=bench.subject.outside_addresses, caps=caps, failures=(failure,))


async def _everything(bench: Bench, lab: Lab, patience: float) -> Seen:
    declared: Mapping[str, Any] = bench.subject.declared or {}
    timers: Mapping[str, float | None] = declared.get("timers", {})
    failures: list[str] = []

    async def attempt(name: str, probing: Awaitable[T]) -> T | None:
        try:
            return await probing
        except OSError as error:
            failures.append(f"{name}: {error.strerror or error}")
            return None

    # Ports one after the other, before anything else takes some.
    spread = await sampling.spread(bench)
    near = await sampling.near(bench, spread)
    privileged = await sampling.privileged(bench)
    neighbour = await sampling.neighbour(bench, spread)

    async def lives(timer: str) -> tuple[str, tuple[Idle, ...]]:
        lifetime = timers.get(timer) or (timers.get("udp") if timer == "udp_dns" else None)
        seconds = idle.pauses(lifetime, patience)
        return timer, await attempt(timer, idle.lifetimes(bench, timer, seconds)) or ()

    async def kept(direction: str) -> tuple[str, Refreshed | None]:
        lifetime = timers.get("udp")
        if lifetime is None or not idle.is_measurable(lifetime, patience):
            return direction, None
        return direction, await attempt(f"refresh {direction}", idle.refresh(bench, direction, lifetime))

    slow = asyncio.gather(
        asyncio.gather(*(lives(timer) for timer in idle.TIMERS)),
        asyncio.gather(*(kept(direction) for direction in ("outbound", "inbound"))),
        attempt("unsolicited", tcp.unsolicited(bench, max(patience, _LISTENED))),
        attempt("unmapped", tcp.unmapped(bench, max(patience, _LISTENED))),
    )
    most = declared.get("sessions")
    quick = asyncio.gather(
        attempt("mapping", endpoints.mapping(bench)),
        attempt("filtering", endpoints.filtering(bench)),
        attempt("conflicts", endpoints.conflicts(bench)),
        attempt("hairpin", endpoints.hairpin(bench)),
        attempt("hops", endpoints.hops(bench)),
    )
    by_tcp = asyncio.gather(
        attempt("mapping of TCP", tcp.mapping(bench)),
        attempt("filtering of TCP", tcp.filtering(bench)),
        attempt("handshake", tcp.handshake(bench)),
        attempt("simultaneous open", tcp.simultaneous_open(bench)),
        attempt("hairpin of TCP", tcp.hairpin(bench)),
    )
    rest = asyncio.gather(
        attempt("errors", icmp.errors(bench)),
        attempt("echo", icmp.echo(bench)),
        attempt("fragments", fragments(bench)),
        attempt("forwards", inbound.forwards(bench, lab)),
        attempt("IPv6", inbound.ipv6(bench)),
        attempt("caps", sampling.caps(bench, most or sampling.MOST_SESSIONS + 1)),
    )
    found = await asyncio.gather(slow, quick, by_tcp, rest)
    (lifetimes, refreshes, unsolicited, unmapped), (mapping, filtering, conflicts, hairpin, hops) = found[:2]
    (mapping_tcp, filtering_tcp, handshake, simultaneous, hairpin_tcp) = found[2]
    (errors, echo, pieces, forwarded, ipv6, caps) = found[3]
    same, other, under = conflicts or ((), (), ())
    return Seen(
        outside_addresses=bench.subject.outside_addresses,
        mapping=mapping or (),
        mapping_tcp=mapping_tcp or (),
        filtering=filtering or (),
        filtering_tcp=(filtering_tcp,) if filtering_tcp else (),
        spread=spread,
        near=near,
        privileged=privileged,
        neighbour=neighbour,
        same_peer=same,
        other_peer=other,
        under_conflict=under,
        caps=caps or (),
        idle=dict(lifetimes),
        refresh=dict(refreshes),
        hairpin=hairpin,
        hairpin_tcp=hairpin_tcp,
        tcp_handshake=handshake,
        simultaneous_open=simultaneous,
        unsolicited_syn=unsolicited,
        unmapped_syn=unmapped,
        errors=errors[0] if errors else {},
        survives_errors=errors[1] if errors else None,
        echo=echo or (),
        fragments=pieces or {},
        ttl=hops or (None, None),
        forwards=forwarded or (),
        ipv6=ipv6 or {},
        failures=tuple(failures),
    )
