"""A TCP connection through the router made by hand, segment by segment: nothing is repeated behind the probe's back."""

from __future__ import annotations

from lab.certify import packet as packets
from lab.certify.bench import Bench
from lab.certify.ear import carried, is_segment
from lab.certify.packet import ACK, PSH, SYN, Endpoint, Segment


class Connection:
    """From the first inside host to a peer. `outside` is what the peer saw of the inside endpoint, once it did."""

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
        heard = await carried(lambda: self._bench.first.say(syn.packet()), self._outer, wanted)
        seen = packets.segment(heard) if heard else None
        self.outside = seen.source if seen else None
        return seen is not None

    async def answer(self, tries: int = 4) -> bool:
        """Send the peer's SYN with ACK; whether it got in."""
        assert self.outside is not None  # noqa: S101 - after `knock` only
        answer = Segment(self.peer, self.outside, self._theirs, self._mine + 1, SYN | ACK)
        wanted = is_segment(sequence=self._theirs, flags=SYN | ACK)
        say = self._bench.observer.say
        return await carried(lambda: say(answer.packet()), self._inner, wanted, tries) is not None

    async def acknowledge(self) -> bool:
        """Send the last part of the handshake; whether the peer saw it."""
        ack = Segment(self.inside, self.peer, self._mine + 1, self._theirs + 1, ACK)
        wanted = is_segment(sequence=self._mine + 1, flags=ACK)
        say = self._bench.first.say
        return await carried(lambda: say(ack.packet()), self._outer, wanted) is not None

    async def open(self) -> bool:
        """The whole handshake."""
        return await self.knock() and await self.answer() and await self.acknowledge()

    async def tell_inside(self, tries: int = 4) -> bool:
        """Send a byte from the peer; whether it got in."""
        assert self.outside is not None  # noqa: S101 - after `open` only
        sequence = self._theirs + 1 + self._told
        told = Segment(self.peer, self.outside, sequence, self._mine + 1, PSH | ACK, b"?")
        self._told += 1
        wanted = is_segment(sequence=sequence, data=b"?")
        say = self._bench.observer.say
        return await carried(lambda: say(told.packet()), self._inner, wanted, tries) is not None

    async def open_from_both_ends(self) -> bool:
        """Simultaneous open (RFC 9293 figure 7): both have sent a SYN before either saw one."""
        if not await self.knock() or self.outside is None:
            return False
        bench, outside = self._bench, self.outside
        syn = Segment(self.peer, outside, self._theirs, 0, SYN)
        wanted = is_segment(sequence=self._theirs, flags=SYN)
        if await carried(lambda: bench.observer.say(syn.packet()), self._inner, wanted) is None:
            return False
        both = Segment(self.inside, self.peer, self._mine, self._theirs + 1, SYN | ACK)
        wanted = is_segment(sequence=self._mine, flags=SYN | ACK)
        if await carried(lambda: bench.first.say(both.packet()), self._outer, wanted) is None:
            return False
        last = Segment(self.peer, outside, self._theirs, self._mine + 1, SYN | ACK)
        wanted = is_segment(sequence=self._theirs, flags=SYN | ACK)
        return await carried(lambda: bench.observer.say(last.packet()), self._inner, wanted) is not None
