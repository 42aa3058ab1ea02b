"""The master of `linkwire serve` for tests: lays wires between nodes, asks, and is told.

a: tap-a 192.0.2.1/24  ---- one wire of the served process ----  tap-b 192.0.2.2/24 :b
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.wire.wire_bench import (
    ADDRESSES,
    DEADLINE_S,
    IFF_NO_PI,
    IFF_TAP,
    IFF_VNET_HDR,
    Namespace,
    bring_up,
    has_carrier,
    linkwire,
    wait_until,
)

LONGEST_ANSWER = 1 << 20
Impairment = dict[str, object]


class RefusedError(Exception):
    """The process answered with an error."""


class Master:
    """A `linkwire serve` and the socket to it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(DEADLINE_S)
        with theirs:
            self.process = subprocess.Popen(
                [linkwire(), "serve", str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
            )
        self._numbers = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        try:
            self.process.wait(timeout=DEADLINE_S)
        finally:
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate()

    def ask(self, do: str, *, descriptors: tuple[int, ...] = (), **fields: object) -> dict[str, Any]:
        """The answer; RefusedError if it is an error."""
        number = next(self._numbers)
        answer = self.say(json.dumps({"number": number, "do": do, **fields}).encode(), descriptors)
        assert answer["number"] == number
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def say(self, message: bytes, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """The answer to these bytes, whatever they are."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.socket.sendmsg([message], rights)
        answer: dict[str, Any] = json.loads(self.socket.recv(LONGEST_ANSWER))
        return answer

    def counters(self, wire: str = "wire") -> dict[str, Any]:
        """Both directions of a wire."""
        read: dict[str, Any] = self.ask("read", wire=wire)["wires"][wire]
        return read

    def open_descriptors(self) -> int:
        """How many the process has, after all that was asked before."""
        self.ask("read")
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@dataclass
class ServedWire:
    """Two nodes, the wire `wire` between them, and its master."""

    a: Namespace
    b: Namespace
    master: Master

    def impair(self, a_to_b: Impairment | None = None, b_to_a: Impairment | None = None) -> None:
        """Sets both directions; what is not given does nothing to its frames."""
        self.master.ask("change", wire="wire", a_to_b=a_to_b or {}, b_to_a=b_to_a or {})


@contextmanager
def served_wire() -> Iterator[ServedWire]:
    """A wire under a master, with carrier at both ends."""
    with ExitStack() as stack:
        a, b = stack.enter_context(Namespace()), stack.enter_context(Namespace())
        master = stack.enter_context(Master())
        attach(master, "wire", (a, "tap-a"), (b, "tap-b"))
        for name, node in (("a", a), ("b", b)):
            bring_up(node, f"tap-{name}", ADDRESSES[name], 1500)
            wait_until(partial(has_carrier, node, f"tap-{name}"), f"carrier of tap-{name}")
        yield ServedWire(a, b, master)


def attach(master: Master, wire: str, *ends: tuple[Namespace, str], **fields: object) -> None:
    """Makes a TAP in each node and gives both to the master; no descriptor of them stays here."""
    descriptors = tuple(node.tap(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) for node, name in ends)
    try:
        master.ask("attach", wire=wire, descriptors=descriptors, **{"seed": 42, **fields})
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
