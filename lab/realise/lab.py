"""A running lab and its nodes, as Python objects: sockets of any node in this very process, programs, logs, files."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from lab.errors import RealiseError, UsageError
from lab.realise import registry
from lab.realise.asking import ask
from lab.realise.fault import LabFaults, await_recovery
from lab.realise.link import Link
from lab.realise.message import Message
from lab.realise.node import Node

if TYPE_CHECKING:
    from lab.capture.recording import Recording

_END_TIMEOUT = 30.0  # seconds
_SOON = 1.0  # seconds in which a lab that was asked to end has mostly ended
_KEPT = 64 * 1024 * 1024  # bytes of packets that a capture without a file keeps


class Lab:
    """A handle on a running lab. Closing it leaves the lab alone; `down` (or a ``with`` block) ends it."""

    def __init__(self, name: str) -> None:
        """Connect to a lab of this user by its name.

        Raises:
            UsageError: no such lab runs.
        """
        self.name = name
        self._connect()
        self._ended = False
        try:
            self.facts: dict[str, Any] = self.ask({"ask": "inspect"})[0]
        except BaseException:
            self._channel.close()
            raise
        self.nodes: dict[str, Node] = {facts["name"]: Node(self, facts) for facts in self.facts["nodes"]}

    @classmethod
    def up(cls, file: str | Path, **options: Any) -> Self:
        """Make a topology file real and connect to it; options as for `lab.realise.launch.up`."""
        from lab.realise import launch

        return cls(launch.up(Path(file), **options))

    def __repr__(self) -> str:
        return f"<lab {self.name}, {len(self.nodes)} nodes>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def __getitem__(self, node: str) -> Node:
        """A node by its name.

        Raises:
            UsageError: the lab has no such node.
        """
        if node not in self.nodes:
            raise UsageError(f"no node {node!r} in lab {self.name}; it has {', '.join(sorted(self.nodes))}")
        return self.nodes[node]

    def link(self, name: str) -> Link:
        """A link by its name: `NODE:NETWORK`, or a network's name for every link of it.

        Raises:
            UsageError: the lab has no such link.
        """
        return Link(self, name)

    def refresh(self) -> None:
        """Ask the lab anew for its facts: somebody else may have moved a node, or changed an address."""
        self._take(self.ask({"ask": "inspect"})[0])

    def _take(self, facts: dict[str, Any]) -> None:
        self.facts = self.facts | facts
        for node in facts["nodes"]:
            self.nodes[node["name"]].facts = node

    def services(self) -> list[dict[str, Any]]:
        """The state of every service: node, service, state, pid, exit_code, restarts."""
        states: list[dict[str, Any]] = self.ask({"ask": "inspect"})[0]["states"]
        return states

    def open_log(self, node: str, service: str) -> BinaryIO:
        """The log of a service, open for reading from its start; what is written later can be read later."""
        _, (descriptor,) = self.ask({"ask": "log", "service": f"{node}/{service}"})
        return os.fdopen(descriptor, "rb")

    def log(self, node: str, service: str) -> str:
        """What a service has written to its standard output and error so far."""
        with self.open_log(node, service) as file:
            return file.read().decode(errors="replace")

    def signal_service(self, node: str, service: str, number: int) -> None:
        """Send a signal to a service's processes; its restart policy decides what follows."""
        self.ask({"ask": "signal-service", "service": f"{node}/{service}", "signal": number})

    def move(self, node: str, network: str, *, leaving: str | None = None) -> None:
        """Let a host leave a network for another, as a laptop does that goes from home to a café.

        Its interface stays, with name and MAC address; addresses, routes and resolvers are those of the new place, and
        at the place that the file gives it, it has the address that the file gives it. Connections die as in life.

        Args:
            node: a host.
            network: where it goes.
            leaving: the network that it leaves, if it has links to several.

        Raises:
            UsageError: no such node or network, or the node cannot go there.
            RealiseError: the kernel refused; the node is where it was.
        """
        answer = self.ask({"ask": "move", "node": node, "network": network, "leaving": leaving})[0]
        self._take(answer["facts"])
        await_recovery(self, answer["await"])

    @property
    def fault(self) -> LabFaults:
        """What can go wrong in this lab: `lab.fault.kill("nas/web")` and its like."""
        return LabFaults(self)

    def heal(self) -> None:
        """Undo every fault in force, the latest first, then whatever was done to links, which are as declared again.

        Waits until the services that start with that are ready.

        Raises:
            RealiseError: one could not be undone, or a service did not get ready.
        """
        self.fault.heal()

    def capture(
        self,
        *targets: str,
        to: str | os.PathLike[str] | None = None,
        filter: str = "",  # noqa: A002 - its usual name
        snaplen: int = 0,
        keep: int = _KEPT,
    ) -> Recording:
        """Record what interfaces carry as pcapng, from this call on; to be left as a ``with`` block, or stopped.

        Args:
            targets: "nas:home" (an interface), "nas" (its interfaces but the loopback), "home" (all interfaces on a
                network); none: all of all nodes.
            to: the file; without one, the latest packets are kept until the capture is closed or forgotten.
            filter: only what matches, in the language of tcpdump; names are those of the lab.
            snaplen: most bytes kept of a packet; 0: all.
            keep: without a file, most bytes kept of all packets; the latest half of them is there in any case.

        Raises:
            UsageError: a target, the filter or the path is wrong.
            HostError: the filter needs tcpdump, and there is none.
            OSError: as the kernel answers.
        """
        from lab.capture.recording import Recording

        return Recording(self.facts, self.nodes, targets, to=to, expression=filter, snaplen=snaplen, keep=keep)

    def down(self) -> None:
        """End the lab: every process, namespace, link and file of it. Ending one that has ended is no error.

        Raises:
            RealiseError: the kernel did not end its processes in 30 s.
        """
        if self._ended:
            return
        number, supervisor = registry.supervisor_of(self._channel), registry.open_supervisor(self.name, self._channel)
        if supervisor is None:
            self._channel.close()
            self._ended = True
            return
        try:
            # An answer is not needed, the end is; a broken connection may hide a lab that lives.
            with contextlib.suppress(OSError, RealiseError):
                self.ask({"ask": "down"})
            if not registry.await_end(supervisor, _SOON):
                with contextlib.suppress(OSError, RealiseError, UsageError):
                    self._connect()
                    # While the one has not ended, nobody else has its number; its name may be another lab's already.
                    if registry.supervisor_of(self._channel) == number:
                        self.ask({"ask": "down"})
            if not registry.await_end(supervisor, _END_TIMEOUT):
                raise RealiseError(f"lab {self.name} did not end within {_END_TIMEOUT:g} s")
        finally:
            os.close(supervisor)
            self._channel.close()
            self._ended = True

    def hold(self, *, hold: bool = True) -> None:
        """Let the lab end with this connection: when this process ends, in whatever way, so does the lab."""
        self.ask({"ask": "hold", "hold": hold})

    def close(self) -> None:
        """Let go of the lab without ending it."""
        self._channel.close()

    def ask(self, message: Message) -> tuple[Message, list[int]]:
        """Send one request to the supervisor and return its answer and descriptors (for the classes of this package).

        Raises:
            LabError: as the supervisor says.
            OSError: what was asked failed in the kernel, or the lab is gone.
        """
        if self._owner != os.getpid():  # forked: the connection is the parent's
            self._connect()
        with self._lock:
            return ask(self._channel, message)

    def _connect(self) -> None:
        before, self._channel = getattr(self, "_channel", None), registry.knock(self.name)
        if before is not None:
            before.close()
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def watch_end(self) -> select.epoll:
        """A descriptor that can be read from the moment the lab ends, for who waits for something else; to be closed.

        It can be so too if the supervisor has hung up on this handle; in either case nothing more is to be had from it.
        """
        watch = select.epoll()
        try:
            watch.register(self._channel, 0)  # the end (EPOLLHUP) is told unasked, an answer is not (epoll_ctl(2))
        except BaseException:
            watch.close()
            raise
        return watch

    def connection(self) -> socket.socket:
        """One more connection to the supervisor, for a process that lives with it."""
        return registry.knock(self.name)
