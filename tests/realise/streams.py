"""Streams of numbered datagrams from many nodes to one, all at once, each datagram timed by the receiver's kernel."""

from __future__ import annotations

import heapq
import math
import select
import socket
import statistics
import struct
import time
from dataclasses import dataclass, field

from lab.realise.lab import Lab

_HEADER = struct.Struct("!I")
_TIMESTAMP = struct.Struct("qq")
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
HEADERS = 14 + 20 + 8  # bytes: Ethernet, IPv4, UDP
PATIENCE = 3.0  # seconds after the last datagram; a machine may stand still for one
TURN = 16  # datagrams sent at most before those that have come are read, however late it is
SOME = 20  # arrivals whose time is taken together
RECEIVE_BUFFER = 1 << 20  # bytes; the kernel gives less if it is set so


@dataclass(frozen=True, slots=True)
class Flow:
    """What a node sends: so many datagrams of so many bytes, one every `interval` seconds."""

    node: str
    count: int
    interval: float
    size: int = 100


@dataclass(slots=True)
class Arrivals:
    """What came of a flow; times in milliseconds."""

    sent: list[float] = field(default_factory=list)
    arrived: list[tuple[int, float]] = field(default_factory=list)  # number and time, in the order of arrival

    @property
    def delays(self) -> list[float]:
        return [at - self.sent[number] for number, at in self.arrived]

    @property
    def lost(self) -> float:
        """Share of the datagrams that never came."""
        return 1 - len({number for number, _ in self.arrived}) / len(self.sent)

    @property
    def duplicated(self) -> float:
        """Share of the datagrams that came again."""
        return (len(self.arrived) - len({number for number, _ in self.arrived})) / len(self.sent)

    @property
    def overtaking(self) -> float:
        """Share of the arrivals before which a later one had come."""
        latest, late = -1, 0
        for number, _ in self.arrived:
            late += number < latest
            latest = max(latest, number)
        return late / len(self.arrived)

    @property
    def loss_runs(self) -> list[int]:
        """How many were lost in a row, each time."""
        came = {number for number, _ in self.arrived}
        runs, run = [], 0
        for number in range(len(self.sent)):
            if number in came:
                runs += [run] if run else []
                run = 0
            else:
                run += 1
        return runs

    def share_below(self, milliseconds: float) -> float:
        return sum(delay < milliseconds for delay in self.delays) / len(self.delays)

    def rate(self, size: int) -> float:
        """Bits a second of whole Ethernet frames while the line had one to send; the median of some frames each.

        A frame counts, with the time since the arrival before it, if it had been sent by then. When the machine stands
        still for a moment some are late, and those after them early.
        """
        pairs = zip(self.arrived, self.arrived[1:], strict=False)
        busy = [at - before for (_, before), (number, at) in pairs if self.sent[number] < before]
        times = [sum(busy[at : at + SOME]) for at in range(0, len(busy) - SOME + 1, SOME)]
        milliseconds = statistics.median(times) if times else 0.0
        return SOME * (size + HEADERS) * 8 * 1000 / milliseconds if milliseconds else math.inf


def run_flows(lab: Lab, sink: str, network: str, flows: list[Flow]) -> dict[str, Arrivals]:
    """Send all flows at once to `sink`; what arrived, by the sending node."""
    found = {flow.node: Arrivals() for flow in flows}
    senders: dict[str, socket.socket] = {}
    receivers: dict[int, tuple[socket.socket, Arrivals]] = {}
    poll = select.poll()
    try:
        for flow in flows:
            options = [(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1), (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)]
            address = (lab[sink].address(network), 0)
            receiver = lab[sink].socket(socket.AF_INET, socket.SOCK_DGRAM, options=options, bind=address)
            receiver.setblocking(False)
            receivers[receiver.fileno()] = receiver, found[flow.node]
            poll.register(receiver, select.POLLIN)
            senders[flow.node] = lab[flow.node].udp(timeout=1.0)
            senders[flow.node].connect(receiver.getsockname())
        _exchange(flows, senders, receivers, poll, found)
    finally:
        for each in [*senders.values(), *(receiver for receiver, _ in receivers.values())]:
            each.close()
    return found


def _exchange(
    flows: list[Flow],
    senders: dict[str, socket.socket],
    receivers: dict[int, tuple[socket.socket, Arrivals]],
    poll: select.poll,
    found: dict[str, Arrivals],
) -> None:
    begin = time.monotonic()
    due = [(begin + number * 0.0001, number) for number in range(len(flows))]
    end = begin + PATIENCE
    arriving: list[tuple[int, int]] = []
    while due or arriving or time.monotonic() < end:
        for _ in range(TURN):
            if not due or due[0][0] > time.monotonic():
                break
            at, number = heapq.heappop(due)
            flow = flows[number]
            sent = found[flow.node].sent
            sent.append(time.time() * 1000)
            senders[flow.node].send(_HEADER.pack(len(sent) - 1) + bytes(flow.size - _HEADER.size))
            if len(sent) < flow.count:
                heapq.heappush(due, (at + flow.interval, number))
            end = time.monotonic() + PATIENCE
        until = due[0][0] if due else end
        arriving = poll.poll(max(0.0, until - time.monotonic()) * 1000)
        for descriptor, _ in arriving:
            _receive(*receivers[descriptor])


def _receive(receiver: socket.socket, arrivals: Arrivals) -> None:
    for _ in range(64):
        try:
            data, ancillary, _, _ = receiver.recvmsg(2048, 64)
        except BlockingIOError:
            return
        seconds, nanoseconds = _TIMESTAMP.unpack(ancillary[0][2][: _TIMESTAMP.size])
        arrivals.arrived.append((_HEADER.unpack_from(data)[0], seconds * 1000 + nanoseconds / 1e6))
