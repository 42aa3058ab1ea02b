"""All probes of one router, as many at once as do not disturb each other; and of many routers at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, TypeVar

from lab.certify import endpoints, icmp, idle, inbound, sampling, tcp
from lab.certify.bench import PORTS, RESOLVER_PORT, Bench, Side
from lab.certify.ear import Ear, Heard, udp_ear
from lab.certify.fragments import fragments
from lab.certify.lateness import LateError, Lateness
from lab.certify.path import while_passing
from lab.certify.seen import Idle, Refreshed, Seen
from lab.certify.subject import Subject, guests
from lab.realise.growth import grow

if TYPE_CHECKING:
    from lab.realise.lab import Lab

T = TypeVar("T")
_FIRST_PEER_PORT, _PEER_PORTS = 20_000, 40_000  # of observers: two for each router
_AT_ONCE = 8  # routers, but for their idle mappings: all share one loop, and each is late by what others do
_LATE = 3  # times that a probe is put, if the machine is late
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
                lateness = stack.enter_context(closing(Lateness()))
                turns = asyncio.Semaphore(_AT_ONCE)
                benches = []
                for number, subject in enumerate(subjects):
                    found = who[subject.router]
                    if found.observer not in shared:
                        node, end = nodes[found.observer], (found.observer_addresses[0], RESOLVER_PORT)
                        shared[found.observer] = Side(node, stack), stack.enter_context(closing(udp_ear(node, end)))
                    peer_port = _FIRST_PEER_PORT + (first_pair + number) * 2 % _PEER_PORTS
                    bench = Bench(subject, found, nodes, peer_port, *shared[found.observer], chance, lateness)
                    benches.append(stack.enter_context(bench))
                return await asyncio.gather(*(probe(bench, lab, patience, turns) for bench in benches))

        found = asyncio.run(every())
    return {subject.router: seen for subject, seen in zip(subjects, found, strict=True)}


async def probe(bench: Bench, lab: Lab, patience: float, turns: asyncio.Semaphore) -> Seen:
    """Everything of one router, as long as packets pass it at all.

    Args:
        bench: the sockets on both sides of it.
        lab: where its port forwards lead.
        patience: the most seconds of an idle timer.
        turns: of all routers that are measured; who has none yet waits.
    """
    ends = f"between {bench.subject.inside} and {bench.subject.outside}"
    if not await bench.wait_for_path():
        return _unseen(bench, f"no packet passes {ends}")
    declared = bench.subject.declared or {}
    if bench.room < PORTS:
        return _unseen(bench, f"{bench.room} outside ports are fewer than the {PORTS} that they take")
    most = min((each for key in ("sessions", "port_block") if (each := declared.get(key))), default=_SESSIONS)
    probing = _everything(bench, lab, patience, turns) if most >= _SESSIONS else _only_caps(bench, most)
    return await while_passing(bench, probing) or _unseen(bench, f"what passed {ends} ended")


def _unseen(bench: Bench, why: str) -> Seen:
    return Seen(outside_addresses=bench.subject.outside_addresses, failures=(f"all probes: {why}",))


async def _only_caps(bench: Bench, most: int) -> Seen:
    """What more sessions would tell would be of the cap, not of what they ask."""
    caps = await sampling.caps(bench, (bench.subject.declared or {}).get("sessions") or sampling.MOST_SESSIONS + 1)
    failure = f"all probes but one: {most} sessions or ports of one host are fewer than the {_SESSIONS} that they take"
    return Seen(outside_addresses=bench.subject.outside_addresses, caps=caps, failures=(failure,))


async def _everything(bench: Bench, lab: Lab, patience: float, turns: asyncio.Semaphore) -> Seen:
    declared: Mapping[str, Any] = bench.subject.declared or {}
    timers: Mapping[str, float | None] = declared.get("timers", {})
    failures: list[str] = []

    async def attempt(
        name: str, probing: Callable[[Bench], Awaitable[T]], *, times: int = _LATE, is_quick: bool = True
    ) -> T | None:
        """What is found; None where it cannot be tried, or the machine was late whenever it was.

        What is not quick waits on purpose, and knows itself how late it was.
        """
        for _ in range(times):
            await bench.lateness.turn()
            began = time.monotonic()
            try:
                found = await probing(bench)
            except OSError as error:
                failures.append(f"{name}: {error.strerror or error}")
                return None
            except LateError:
                continue
            if not (is_quick and bench.was_late(began)):
                return found
        failures.append(f"{name}: the machine was late")
        return None

    async def lives(timer: str) -> tuple[str, tuple[Idle, ...]]:
        lifetime = timers.get(timer) or (timers.get("udp") if timer == "udp_dns" else None)
        seconds = idle.pauses(lifetime, patience)
        return timer, await attempt(timer, lambda _: idle.lifetimes(bench, timer, seconds), is_quick=False) or ()

    async def kept(direction: str) -> tuple[str, Refreshed | None]:
        lifetime = timers.get("udp")
        if lifetime is None or not idle.is_measurable(lifetime, patience):
            return direction, None
        return direction, await attempt(
            f"refresh {direction}", lambda _: idle.refresh(bench, direction, lifetime), is_quick=False
        )

    async with turns:
        # Ports one after the other, before anything else takes some.
        spread = await sampling.spread(bench)
        near = await sampling.near(bench, spread)
        privileged = await sampling.privileged(bench)
        neighbour = await sampling.neighbour(bench, spread)
        listened = max(patience, _LISTENED)
        slow = asyncio.gather(
            asyncio.gather(*(lives(timer) for timer in idle.TIMERS)),
            asyncio.gather(*(kept(direction) for direction in ("outbound", "inbound"))),
            attempt("unsolicited", lambda _: tcp.unsolicited(bench, listened), is_quick=False),
            attempt("unmapped", lambda _: tcp.unmapped(bench, listened), is_quick=False),
        )
        is_capped = bool(declared.get("sessions") or declared.get("port_block"))
        most = declared.get("sessions") or sampling.MOST_SESSIONS + 1
        quick = asyncio.gather(
            attempt("mapping", endpoints.mapping),
            attempt("filtering", endpoints.filtering),
            attempt("conflicts", endpoints.conflicts, times=1 if is_capped else _LATE),  # twice is too many sessions
            attempt("hairpin", endpoints.hairpin),
            attempt("hops", endpoints.hops),
        )
        by_tcp = asyncio.gather(
            attempt("mapping of TCP", tcp.mapping),
            attempt("filtering of TCP", tcp.filtering),
            attempt("handshake", tcp.handshake),
            attempt("simultaneous open", tcp.simultaneous_open),
            attempt("hairpin of TCP", tcp.hairpin),
        )
        rest = asyncio.gather(
            attempt("errors", icmp.errors),
            attempt("echo", icmp.echo),
            attempt("fragments", fragments),
            attempt("forwards", lambda _: inbound.forwards(bench, lab)),
            attempt("IPv6", inbound.ipv6),
            attempt("caps", lambda _: sampling.caps(bench, most), is_quick=False),
        )
        try:
            found = await asyncio.gather(quick, by_tcp, rest)
        except BaseException:
            slow.cancel()
            await asyncio.wait({slow})
            raise
    (lifetimes, refreshes, unsolicited, unmapped) = await slow
    (mapping, filtering, conflicts, hairpin, hops) = found[0]
    (mapping_tcp, filtering_tcp, handshake, simultaneous, hairpin_tcp) = found[1]
    (errors, echo, pieces, forwarded, ipv6, caps) = found[2]
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
