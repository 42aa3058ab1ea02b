"""What all probes of one router work with: sockets on both sides of it, and ports that no two of them share."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lab.certify.ear import Ear, Heard, carried, holds, raw_ear, token, udp_ear
from lab.certify.packet import ICMP, TCP, Endpoint, Packet
from lab.certify.subject import Guests, Subject

if TYPE_CHECKING:
    from lab.realise.node import Node

_FIRST_PORT, _FIRST_PORTS = 31_000, 30_000  # inside: where the ports of one measurement may begin
_PATIENT_TRIES = 3  # of 1.2 s each
RESOLVER, RESOLVER_PORT = 4, 53
UDP_ADDRESS, SAMPLE_ADDRESS, IDLE_ADDRESS, TCP_ADDRESS, ICMP_ADDRESS, *CAP_ADDRESSES = range(7)


@dataclass(frozen=True, slots=True)
class Side:
    """A temporary node, with its raw sockets."""

    node: Node
    tcp: Ear[Packet]
    icmp: Ear[Packet]
    mouth: socket.socket

    def say(self, packet: Packet) -> None:
        """Send a packet as it is."""
        self.mouth.sendto(packet.encoded(), (packet.destination, 0))


class Bench:
    """Both sides of one router. The four peers are the observer's two addresses x two ports (RFC 5780 section 2.2)."""

    def __init__(
        self,
        subject: Subject,
        guests: Guests,
        nodes: dict[str, Node],
        peer_port: int,
        resolver: Ear[Heard],
        chance: random.Random,
    ) -> None:
        """Open all that is shared by the probes.

        The ports of the peers are `peer_port` and the next. `resolver` is the observer's socket at port 53, which the
        routers of one outside share: the peer `RESOLVER`.
        """
        self.subject = subject
        self._stack = ExitStack()
        self._ports = itertools.count(_FIRST_PORT + chance.randrange(_FIRST_PORTS))
        self._sequences = itertools.count(chance.randrange(1 << 32), 1 << 16)
        self.chance = chance
        self.addresses = guests.first_addresses
        self.second_address = guests.second_address
        self.guests = guests
        here, there = guests.observer_addresses
        # 0 and 1 are one address, 2 and 3 the other.
        self.peers: tuple[Endpoint, ...] = tuple(
            (address, port) for address in (here, there) for port in (peer_port, peer_port + 1)
        )
        try:
            self.first, self.second, self.observer = (
                self._side(nodes[name]) for name in (guests.first, guests.second, guests.observer)
            )
            self.ears: tuple[Ear[Heard], ...] = (*(self.udp(self.observer, peer) for peer in self.peers), resolver)
            self.control = self.inside()  # for packets that only tell that others have passed
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def address(self, role: int) -> str:
        """The inside address for a kind of probe; where there are few, kinds share one."""
        return self.addresses[role % len(self.addresses)]

    def has_own(self, role: int) -> bool:
        """Whether no other kind of probe shares the address."""
        return role < len(self.addresses)

    def port(self) -> int:
        """An inside port that no other probe uses."""
        return next(self._ports)

    def sequence(self) -> int:
        """An initial sequence number for TCP that no other connection has."""
        return next(self._sequences) & 0xFFFFFFFF

    def udp(self, side: Side, end: Endpoint) -> Ear[Heard]:
        """A UDP socket that is closed with the bench."""
        ear = udp_ear(side.node, end)
        self._stack.callback(ear.close)
        return ear

    def inside(self, role: int = UDP_ADDRESS) -> Ear[Heard]:
        """A fresh UDP socket of the first inside host."""
        return self.udp(self.first, (self.address(role), self.port()))

    async def wait_for_path(self) -> None:
        """Until both inside hosts reach the observer, or too long for it to be a matter of ARP and of new links."""
        for ear in (self.inside(), self.udp(self.second, (self.second_address, self.port()))):
            for _ in range(_PATIENT_TRIES):
                if await self.outwards(ear) is not None:
                    break

    async def outwards(self, ear: Ear[Heard], peer: int = 0) -> Endpoint | None:
        """Send from an inside socket to a peer: the source that the peer sees, None if nothing arrives."""
        heard = await self.heard_outside(ear, peer)
        return heard.source if heard else None

    async def heard_outside(self, ear: Ear[Heard], peer: int = 0) -> Heard | None:
        """The same, with all that is heard."""
        payload = token()
        to = (self.peers[0][0], RESOLVER_PORT) if peer == RESOLVER else self.peers[peer]
        send: Callable[[], object] = lambda: ear.socket.sendto(payload, to)  # noqa: E731
        return await carried(send, self.ears[peer], holds(payload))

    async def inwards(self, to: Endpoint, ear: Ear[Heard], peer: int = 0, tries: int = 4) -> Heard | None:
        """Send from a peer to an outside endpoint: what the inside socket hears of it."""
        payload = token()
        send: Callable[[], object] = lambda: self.ears[peer].socket.sendto(payload, to)  # noqa: E731
        return await carried(send, ear, holds(payload), tries)

    def _side(self, node: Node) -> Side:
        mouth = node.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._stack.callback(mouth.close)
        tcp, icmp = raw_ear(node, TCP), raw_ear(node, ICMP)
        self._stack.callback(tcp.close)
        self._stack.callback(icmp.close)
        return Side(node, tcp, icmp, mouth)
