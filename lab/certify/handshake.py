"""A TCP connection through the router made by hand, segment by segment: nothing is repeated behind the probe's back."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from lab.certify import packet as packets
from lab.certify.bench import Bench
from lab.certify.ear import is_segment
from lab.certify.lateness import LateError
from lab.certify.packet import ACK, PSH, SYN, Endpoint, Segment


class Connection:
    """From the first inside host to a peer. `outside` is what the peer saw of the inside endpoint, once it did.

    What is asked whether it arrived raises `LateError` where its silence would say nothing.
    """

    def __init__(self, bench: Bench, address: str, peer: int = 0, port: int | None = None) -> None:
        """Nothing is sent yet."""
        self._bench = bench
        self.inside: Endpoint = (address, port or bench.port())
        self.peer: Endpoint = bench.peers[peer]
        self.outside: Endpoint | None = None
        self._mine, self._theirs = bench.sequence(), bench.sequence()  # the initial ones
        self._inner, self._outer = bench.first.tcp.at(self.inside), bench.observer.tcp.at(self.peer)
        self._told = 0  # bytes sent inwards

    async def knock(self) -> bool:
        """Send the SYN; whether the peer saw it."""
        syn = Segment(self.inside, self.peer, self._mine, 0, SYN)
        wanted = is_segment(sequence=self._mine, flags=SYN)
        heard = await self._bench.carried(lambda: self._bench.first.say(syn.packet()), self._outer, wanted)
        seen = packets.segment(heard) if heard else None
        self.outside = seen.source if seen else None
        return seen is not None

    async def answer(self, tries: int = 4) -> bool:
        """Send the peer's SYN with ACK; whether it got in."""
        return await self._gets_in(self._theirs, self._mine + 1, SYN | ACK, tries=tries)

    async def acknowledge(self) -> bool:
        """Send the last part of the handshake; whether the peer saw it."""
        return await self._gets_out(self._mine + 1, ACK)

    async def open(self) -> bool:
        """The whole handshake."""
        return await self._in_time(self.knock, self.answer, self.acknowledge)

    async def tell_inside(self, tries: int = 4) -> bool:
        """Send a byte from the peer; whether it got in."""
        sequence = self._theirs + 1 + self._told
        self._told += 1
        return await self._gets_in(sequence, self._mine + 1, PSH | ACK, b"?", tries)

    async def open_from_both_ends(self) -> bool:
        """Simultaneous open (RFC 9293 figure 7): both have sent a SYN before either saw one."""
        return await self._in_time(
            self.knock,
            lambda: self._gets_in(self._theirs, 0, SYN),
            lambda: self._gets_out(self._mine, SYN | ACK),
            lambda: self._gets_in(self._theirs, self._mine + 1, SYN | ACK),
        )

    async def _in_time(self, *steps: Callable[[], Awaitable[bool]]) -> bool:
        """Whether all do; the NAT is not to forget the first of them before the last."""
        began = time.monotonic()
        for step in steps:
            if not await step():
                return False
            if self._bench.is_over("tcp_transitory", began):
                raise LateError
        return True

    async def _gets_in(self, sequence: int, acknowledged: int, flags: int, data: bytes = b"", tries: int = 4) -> bool:
        assert self.outside is not None  # noqa: S101 - after `knock` only
        sent = Segment(self.peer, self.outside, sequence, acknowledged, flags, data).packet()
        wanted = is_segment(sequence=sequence, flags=None if data else flags, data=data or None)
        return await self._bench.carried(lambda: self._bench.observer.say(sent), self._inner, wanted, tries) is not None

    async def _gets_out(self, sequence: int, flags: int) -> bool:
        sent = Segment(self.inside, self.peer, sequence, self._theirs + 1, flags).packet()
        wanted = is_segment(sequence=sequence, flags=flags)
        return await self._bench.carried(lambda: self._bench.first.say(sent), self._outer, wanted) is not None
