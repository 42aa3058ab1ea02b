"""What all probes of one router work with: sockets on both sides of it, and ports that no two of them share."""

from __future__ import annotations

import itertools
import math
import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lab.certify import packet as packets
from lab.certify.ear import Ear, Heard, Hearing, PacketEar, T, carried, holds, token, udp_ear
from lab.certify.lateness import LateError, Lateness
from lab.certify.packet import ICMP, TCP, UDP, Endpoint, Packet
from lab.certify.subject import Guests, Subject
from lab.topology.nat_behaviour import LAST_PORT

if TYPE_CHECKING:
    from lab.realise.node import Node

_FIRST_PORT, _FIRST_PORTS = 31_000, 30_000  # inside: where the ports of one measurement may begin
_PATIENT_TRIES = 3  # of 1.5 s each
_GRACE = 0.03  # seconds after a packet that was sent last has arrived
_OF_LIFETIME = 0.9  # of a declared lifetime: so long a mapping surely lives
_MOST_LATE = 0.3, 0.25  # of the loop: seconds, and parts of the shortest declared lifetime
PORTS = 512  # of the outside, more than all probes take, but for those that count sessions
RESOLVER, RESOLVER_PORT = 4, 53
UDP_ADDRESS, SAMPLE_ADDRESS, IDLE_ADDRESS, TCP_ADDRESS, ICMP_ADDRESS, *CAP_ADDRESSES = range(7)


class Side:
    """A temporary node, with its raw sockets: its kernel knows nothing of what is said there."""

    def __init__(self, node: Node, stack: ExitStack) -> None:
        """Open them until the stack is left."""
        self.node = node
        self._mouth = node.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        stack.callback(self._mouth.close)
        self.udp, self.tcp, self.icmp = (PacketEar(node, protocol) for protocol in (UDP, TCP, ICMP))
        for ear in (self.udp, self.tcp, self.icmp):
            stack.callback(ear.close)

    def say(self, packet: Packet) -> None:
        """Send a packet as it is."""
        self._mouth.sendto(packet.encoded(), (packet.destination, 0))


class InsideEnd:
    """A UDP endpoint of an inside host."""

    def __init__(self, side: Side, end: Endpoint) -> None:
        """Listen there."""
        self.end = end
        self._side = side
        self.hearing = side.udp.at(end)

    def send(self, data: bytes, to: Endpoint) -> None:
        """Send a datagram."""
        self._side.say(packets.datagram(self.end, to, data))

    async def hear(self, data: bytes, seconds: float) -> Packet | None:
        """A datagram with this payload, if it comes within so many seconds."""
        return await self.hearing.hear(lambda packet: packet.payload[8:] == data, seconds)

    async def hear_again(self, send: Callable[[], object], data: bytes, tries: int) -> Packet | None:
        """Have it sent until it is heard."""
        return await carried(send, self.hearing, lambda packet: packet.payload[8:] == data, tries)

    def has_heard(self, data: bytes) -> bool:
        """Whether a datagram with this payload has come."""
        return any(packet.payload[8:] == data for packet in self.hearing.heard)


class Bench:
    """Both sides of one router. The four peers are the observer's two addresses x two ports (RFC 5780 section 2.2)."""

    def __init__(
        self,
        subject: Subject,
        guests: Guests,
        nodes: dict[str, Node],
        peer_port: int,
        observer: Side,
        resolver: Ear[Heard],
        chance: random.Random,
        lateness: Lateness,
    ) -> None:
        """Open all that is shared by the probes.

        The ports of the peers are `peer_port` and the next. Routers of one outside share the `observer` and
        its socket at port 53, the peer `RESOLVER`.
        """
        self.subject = subject
        self._stack = ExitStack()
        self._ports = itertools.count(_FIRST_PORT + chance.randrange(_FIRST_PORTS))
        self._sequences = itertools.count(chance.randrange(1 << 32), 1 << 16)
        self.chance = chance
        self.lateness = lateness
        self.addresses = guests.first_addresses
        self.second_address = guests.second_address
        self.guests = guests
        here, there = guests.observer_addresses
        # 0 and 1 are one address, 2 and 3 the other.
        self.peers: tuple[Endpoint, ...] = tuple(
            (address, port) for address in (here, there) for port in (peer_port, peer_port + 1)
        )
        forwards = (subject.declared or {}).get("forwards", ())
        self._others = {port for _, port in self.peers} | {forward["port"] for forward in forwards}
        try:
            self.observer = observer
            self.first, self.second = (Side(nodes[name], self._stack) for name in (guests.first, guests.second))
            self.ears: tuple[Ear[Heard], ...] = (
                *(self.udp_socket(observer, peer) for peer in self.peers),
                resolver,
            )
            self.control = self.inside()  # for packets that only tell that others have passed
            self.round_trip = 0.0  # seconds out and back in, once the path is known
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def room(self) -> int:
        """How many outside ports there are, as far as that is declared."""
        ports = (self.subject.declared or {}).get("ports", {})
        each: int = ports.get("last", LAST_PORT) - ports.get("first", 1) + 1
        return each * len(self.subject.outside_addresses)

    def lifetime(self, timer: str) -> float:
        """The seconds of a timer, as far as that is declared; infinite otherwise."""
        return (self.subject.declared or {}).get("timers", {}).get(timer) or math.inf

    def was_late(self, began: float) -> bool:
        """Whether the loop has since been so late that mappings and packets of a probe may have been lost by that."""
        timers: dict[str, float | None] = (self.subject.declared or {}).get("timers", {})
        seconds, part = _MOST_LATE
        return self.lateness.since(began) > min([seconds, *(part * each for each in timers.values() if each)])

    def is_over(self, timer: str, began: float) -> bool:
        """Whether a mapping that was made then may have ended since."""
        return time.monotonic() - began >= _OF_LIFETIME * self.lifetime(timer)

    def address(self, role: int) -> str:
        """The inside address for a kind of probe; where there are few, kinds share one."""
        return self.addresses[role % len(self.addresses)]

    def has_own(self, role: int) -> bool:
        """Whether no other kind of probe shares the address."""
        return role < len(self.addresses)

    def port(self) -> int:
        """A port that no other probe uses, inside or as a stranger beside the peers; no peer's, and of no forward."""
        return next(port for port in self._ports if port not in self._others)

    def sequence(self) -> int:
        """An initial sequence number for TCP that no other connection has."""
        return next(self._sequences) & 0xFFFFFFFF

    def udp_socket(self, side: Side, end: Endpoint) -> Ear[Heard]:
        """A UDP socket that is closed with the bench."""
        ear = udp_ear(side.node, end)
        self._stack.callback(ear.close)
        return ear

    def inside(self, role: int = UDP_ADDRESS) -> InsideEnd:
        """A fresh endpoint of the first inside host."""
        return InsideEnd(self.first, (self.address(role), self.port()))

    def neighbour(self, port: int | None = None) -> InsideEnd:
        """One of the second inside host."""
        return InsideEnd(self.second, (self.second_address, port or self.port()))

    async def wait_for_path(self) -> bool:
        """Until both inside hosts reach the observer and are answered; False: not even after some seconds."""
        for near in (self.control, self.neighbour()):
            for _ in range(_PATIENT_TRIES):  # the first may be a matter of ARP and of new links
                if await self.passes(near):
                    break
            else:
                return False
        began = time.monotonic()
        await self.passes(self.control)
        self.round_trip = time.monotonic() - began
        return True

    async def passes(self, near: InsideEnd) -> bool:
        """Whether the observer hears an inside endpoint, and it the answer."""
        outside = await self.outwards(near)
        return outside is not None and await self.inwards(outside, near) is not None

    async def outwards(self, near: InsideEnd, peer: int = 0) -> Endpoint | None:
        """Send from an inside endpoint to a peer: the source that the peer sees, None if nothing arrives."""
        heard = await self.heard_outside(near, peer)
        return heard.source if heard else None

    async def heard_outside(self, near: InsideEnd, peer: int = 0) -> Heard | None:
        """The same, with all that is heard."""
        payload = token()
        to = (self.peers[0][0], RESOLVER_PORT) if peer == RESOLVER else self.peers[peer]
        return await carried(lambda: near.send(payload, to), self.ears[peer], holds(payload))

    async def hear(self, hearing: Hearing[T], wanted: Callable[[T], bool], seconds: float) -> T | None:
        """What is heard within so many seconds. None if it does not come, not if it is late.

        After a silence a packet goes out and one comes in; what was sent before has passed then.

        Raises:
            LateError: they do not.
        """
        found = await hearing.hear(wanted, seconds)
        if found is not None:
            return found
        late = await self._late(hearing, wanted)
        return late  # noqa: RET504 - mypy

    async def carried(
        self, send: Callable[[], object], hearing: Hearing[T], wanted: Callable[[T], bool], tries: int = 4
    ) -> T | None:
        """The same, of what is sent until it is heard."""
        found = await carried(send, hearing, wanted, tries)
        if found is not None:
            return found
        late = await self._late(hearing, wanted)
        return late  # noqa: RET504 - mypy

    async def _late(self, hearing: Hearing[T], wanted: Callable[[T], bool]) -> T | None:
        if not await self.passes(self.control):
            raise LateError
        return await hearing.hear(wanted, _GRACE)

    async def gets_in(self, to: Endpoint, near: InsideEnd, peer: int = 0, tries: int = 4) -> Packet | None:
        """As `inwards`, where None is to mean that it is kept out."""
        payload = token()
        send = lambda: self.ears[peer].socket.sendto(payload, to)  # noqa: E731
        return await self.carried(send, near.hearing, lambda packet: packet.payload[8:] == payload, tries)

    async def inwards(self, to: Endpoint, near: InsideEnd, peer: int = 0, tries: int = 4) -> Packet | None:
        """Send from a peer to an outside endpoint: what the inside endpoint hears of it."""
        payload = token()
        return await near.hear_again(lambda: self.ears[peer].socket.sendto(payload, to), payload, tries)
