"""The loop between rings and a file: reads, finishes, orders by time and writes until it is told to stop."""

from __future__ import annotations

import errno
import os
import select
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter

from lab.capture import pcapng
from lab.capture.offload import network_offset, wire_frames
from lab.capture.output import Output
from lab.capture.ring import RETIRE, Ring, Seen

_HOLD = 20 * RETIRE  # seconds that a frame is held back for frames of other interfaces that came before it
_DRAIN = 100 * RETIRE  # seconds after which what the kernel has not handed over is given up
_LOOK = 0.005  # seconds between two looks while draining
_LOOK_AGAIN = 0.2  # seconds between two looks whether an interface that went down is gone: that is not told

# epb_flags by sockaddr_ll.sll_pkttype: to us, broadcast, multicast, to another host, outgoing (packet(7)).
_FLAGS = {
    0: pcapng.INBOUND | pcapng.UNICAST,
    1: pcapng.INBOUND | pcapng.BROADCAST,
    2: pcapng.INBOUND | pcapng.MULTICAST,
    3: pcapng.INBOUND | pcapng.PROMISCUOUS,
    4: pcapng.OUTBOUND,
}

Progress = Callable[[int, int], None]
"""Called with the packets and bytes written so far."""


class Ending(StrEnum):
    """Why a recording ended."""

    ASKED = "asked"
    COUNT = "count reached"
    TIME = "time over"
    GONE = "interfaces gone"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What bounds a recording; 0 is no bound."""

    packets: int = 0
    seconds: float = 0.0
    snaplen: int = 0  # most bytes kept of a packet


@dataclass(slots=True)
class Channel:
    """One interface: its ring and what came of it."""

    ring: Ring
    is_ethernet: bool
    packets: int = 0  # written; the segments of a large frame count as so many
    bytes: int = 0  # of those packets as they were on the wire
    received: int = 0  # by the socket, and of them:
    dropped: int = 0  # for want of room
    latest: int = 0  # timestamp of a frame, in nanoseconds

    def is_read_to(self, time: int) -> bool:
        """Whether all that arrived up to then has been read: a ring hands over in the order of arrival."""
        return self.latest > time or self.ring.is_empty()


class Recorder:
    """Writes what the rings of its channels see, in the order of time."""

    def __init__(self, channels: Sequence[Channel], output: Output, bounds: Bounds) -> None:
        """The output has got its opening blocks already; the order of interfaces there is that of the channels."""
        self.channels = channels
        self._output = output
        self._bounds = bounds
        self._began = time.time_ns()
        self._pending: list[tuple[int, int, int, bytes]] = []  # timestamp, channel, bytes on the wire, block
        self._written = 0
        self._bytes = 0

    def run(self, stop: int, reader: int | None = None, progress: Progress = lambda _packets, _bytes: None) -> Ending:
        """Record until a bound is reached, the interfaces are gone or `stop` can be read; then end the file.

        Args:
            stop: a descriptor.
            reader: a descriptor of the pipe that is written to, to learn at once when nobody reads it any more.
            progress: told after each writing.

        Raises:
            OSError: the output could not be written.
        """
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        if reader is not None:
            poll.register(reader, 0)
        watched = {channel.ring.socket.fileno(): channel for channel in self.channels}
        for descriptor in watched:
            poll.register(descriptor, select.POLLIN)
        fallen: set[int] = set()
        deadline = time.monotonic() + self._bounds.seconds if self._bounds.seconds else None
        ending = None
        while ending is None:
            for descriptor, event in poll.poll(self._pause(deadline, looks_again=bool(fallen))):
                if descriptor == stop:
                    ending = Ending.ASKED
                elif descriptor == reader:
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                elif event & select.POLLERR:
                    fallen.add(descriptor)
            for descriptor in [each for each in fallen if watched[each].ring.is_gone()]:
                poll.unregister(descriptor)
                fallen.remove(descriptor)
                del watched[descriptor]
            if ending is None and deadline is not None and time.monotonic() >= deadline:
                ending = Ending.TIME
            if not watched:
                ending = Ending.GONE
            if self._collect():
                ending = Ending.COUNT
            progress(self._written, self._bytes)
        if ending is not Ending.COUNT:
            self._drain()
        self._end()
        progress(self._written, self._bytes)
        return ending

    def _pause(self, deadline: float | None, *, looks_again: bool) -> float | None:
        """Milliseconds to wait at most."""
        left = [_HOLD] if self._pending else []
        left += [_LOOK_AGAIN] if looks_again else []
        left += [max(0.0, deadline - time.monotonic())] if deadline is not None else []
        return min(left) * 1000 if left else None

    def _collect(self) -> bool:
        """Read the rings and write all that nothing older can follow; whether that was the last that is wanted."""
        floor = time.time_ns() - int(_HOLD * 1e9)
        for number, channel in enumerate(self.channels):
            for seen in channel.ring.read():
                self._take(number, channel, seen)
        self._pending.sort(key=itemgetter(0))
        if all(channel.ring.is_empty() for channel in self.channels):
            return self._write(len(self._pending))
        return self._write(bisect_right(self._pending, floor, key=itemgetter(0)))

    def _take(self, number: int, channel: Channel, seen: Seen) -> None:
        channel.latest = max(channel.latest, seen.timestamp)
        flags = _FLAGS.get(seen.kind, 0)
        if seen.offload is None:
            frames = [seen.frame]
        else:
            frames = wire_frames(seen.frame, seen.offload, network_offset(seen.frame) if channel.is_ethernet else 0)
        snaplen = self._bounds.snaplen
        for frame in frames:
            length = len(frame) if len(frames) > 1 else seen.length
            kept = frame[:snaplen] if snaplen else frame
            block = pcapng.enhanced_packet(number, seen.timestamp, kept, length, flags)
            self._pending.append((seen.timestamp, number, length, block))

    def _write(self, ready: int) -> bool:
        """Write the first so many of what is pending, within the bound; whether the bound is reached."""
        if self._bounds.packets:
            ready = min(ready, self._bounds.packets - self._written)
        if ready:
            self._output.write([block for _, _, _, block in self._pending[:ready]])
            for _, number, length, _ in self._pending[:ready]:
                channel = self.channels[number]
                channel.packets += 1
                channel.bytes += length
                self._bytes += length
            del self._pending[:ready]
            self._written += ready
        return bool(self._bounds.packets) and self._written >= self._bounds.packets

    def _drain(self) -> None:
        """Wait until what had arrived by now has been read; on a busy machine the kernel is late to hand it over."""
        nothing = select.poll()
        asked = time.time_ns()
        deadline = time.monotonic() + _DRAIN
        while True:
            is_last = time.monotonic() > deadline
            if self._collect() or is_last or all(channel.is_read_to(asked) for channel in self.channels):
                break
            nothing.poll(_LOOK * 1000)
        self._write(len(self._pending))

    def _end(self) -> None:
        """Write how many were seen and lost at each interface."""
        ended = time.time_ns()
        blocks = []
        for number, channel in enumerate(self.channels):
            channel.received, channel.dropped = channel.ring.counts()
            statistics = pcapng.Statistics(self._began, ended, channel.received, channel.dropped, channel.packets)
            blocks.append(pcapng.interface_statistics(number, statistics))
        self._output.write(blocks)
