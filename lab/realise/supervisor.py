"""The lab's process 1: makes the lab, keeps it, hands out its sockets and processes. When it ends, all of it ends.

Started by `lab.realise.launch` with one argument: the descriptor of the channel to whoever starts the lab.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from lab.errors import HostError, LabError, RealiseError
from lab.plan.encoding import from_json
from lab.plan.step import StartService
from lab.realise.executor import Executor
from lab.realise.extension import Extension
from lab.realise.faults import Faults
from lab.realise.filesystem import Filesystem
from lab.realise.identity import enter_user_namespace, is_root_of_the_host
from lab.realise.link_requests import LinkRequests
from lab.realise.links import Links
from lab.realise.live_topology import LiveTopology
from lab.realise.loop import Loop
from lab.realise.message import Message, receive, send
from lab.realise.network_faults import NetworkFaults
from lab.realise.nodes import Nodes
from lab.realise.outages import Outages
from lab.realise.power import Power
from lab.realise.requests import Requests
from lab.realise.services import Services
from lab.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    drop_capabilities,
    unshare,
)

# What no lab needs and what would reach the host's kernel if its user is root: SYS_MODULE, SYS_RAWIO, SYS_BOOT,
# SYS_TIME, MAC_OVERRIDE, MAC_ADMIN, SYSLOG, WAKE_ALARM (linux/capability.h).
_CAPABILITIES_OF_THE_HOST = (16, 17, 22, 25, 32, 33, 34, 35)

_MOST_WAITING = 256  # connections that wait to be accepted, while the lab is built say


def main() -> None:
    """Fork process 1 of a new lab and leave it alone; it serves until the lab is taken down."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)  # no service may speak for its supervisor
    # Whatever the starter blocked or ignored: ended children must be heard of, and be there until they are waited for.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        received = receive(channel)
        if received is None:
            sys.exit(0)  # the topology had faults, or its reader went away
        _enter_namespaces()
        pid = os.fork()
        if pid == 0:
            _serve(channel, *received)
        # Until its parent has ended, nobody collects it, so its number is its own.
        send(channel, {"supervisor": pid}, (os.pidfd_open(pid),))
    except LabError as error:
        _report(channel, error)
        sys.exit(1)


def _enter_namespaces() -> None:
    enter_user_namespace()
    if is_root_of_the_host():
        drop_capabilities(_CAPABILITIES_OF_THE_HOST)
    before = _namespaces()
    try:
        unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
    except OSError as error:
        raise HostError(
            f"this user may not have namespaces of its own ({error.strerror}): see `lab doctor` for what to change"
        ) from error
    # A sandbox that only pretends to unshare must not have its host changed by what comes next.
    if before & _namespaces():
        raise HostError("this host says that it made new namespaces, but did not; no lab can live here")


def _namespaces() -> set[Path]:
    return {Path(f"/proc/self/ns/{kind}").readlink() for kind in ("mnt", "uts", "ipc", "net")}


def _serve(channel: socket.socket, order: Message, descriptors: list[int]) -> NoReturn:
    """Be process 1: build the lab, then answer requests until told to end."""
    try:
        # No handlers: a process 1 without them cannot be ended from inside (pid_namespaces(7)), only by SIGKILL from
        # outside or by the request of its owner.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.chdir("/")
        os.umask(0o022)
        _allow_many_descriptors()
        Lab(channel, order, socket.socket(fileno=descriptors[0])).run()
    except BrokenPipeError:
        pass  # whoever started the lab is gone, and so is the lab
    except LabError as error:
        _report(channel, error)
    except BaseException:  # noqa: BLE001 - the last words of process 1
        _report(channel, RealiseError(f"the supervisor failed, which is a defect:\n{traceback.format_exc()}"))
    finally:
        os._exit(1)


class Lab:
    """A lab from its first namespace to its last request."""

    def __init__(self, channel: socket.socket, order: Message, door: socket.socket) -> None:
        """Hold the channel to the starter, its order, and the socket where clients will knock."""
        self._channel: socket.socket | None = channel
        self._order = order
        self._plan = from_json(order["plan"])
        self._loop = Loop()
        # From here on `lab down` and `lab ps` find the lab, though they must wait until it is built.
        door.listen(_MOST_WAITING)
        door.setblocking(False)
        self._door = door

    def run(self) -> NoReturn:
        """Build, start the services, serve."""
        filesystem = Filesystem(tuple(self._order["keep"]), protect_kernel=is_root_of_the_host())
        try:
            filesystem.prepare()
        except OSError as error:
            raise HostError(f"{error.strerror} ({error.filename}): see `lab doctor`") from error
        nodes = Nodes(filesystem)
        Executor(nodes, self._progress).build(self._plan)
        links = Links(self._loop, nodes, self._plan)
        links.realise()
        self._link_requests = LinkRequests(self._loop, links)
        services = Services(self._loop, nodes, self._services_progress, self._ready, self._failed)
        self._requests = Requests(self._loop, nodes, services, self._order["facts"])
        self._requests.serve(Extension(nodes).handlers() | self._link_requests.handlers())
        self._requests.tell(links.troubles)
        self._requests.at_end(links.end)
        faults = Faults(self._loop, services)
        outages = Outages(self._loop, nodes, services, Power(nodes, services, self._plan, links), faults)
        topology = LiveTopology(nodes, services, self._requests, links, self._order["topology"])
        network_faults = NetworkFaults(nodes, services, faults, topology, links)
        self._requests.serve(faults.handlers() | outages.handlers() | network_faults.handlers())
        self._loop.on_readable(self._door, self._requests.accept_from(self._door))
        if self._channel is not None:
            self._loop.on_readable(self._channel, self._starter_spoke)
        services.start([step for step in self._plan.steps if isinstance(step, StartService)])
        self._loop.run()

    def _progress(self, phase: str, done: int, total: int, note: str = "") -> None:
        if self._channel is not None:
            send(self._channel, {"progress": [phase, done, total, note]})

    def _services_progress(self, done: int, total: int, waiting_for: str) -> None:
        self._progress("services", done, total, waiting_for)

    def _ready(self) -> None:
        self._link_requests.start_schedules()
        self._say({"ready": True})

    def _failed(self, error: RealiseError) -> None:
        kept = self._order["keep_failed"]
        self._say({"failed": str(error), "kind": type(error).__name__, "kept": kept})
        if not kept:
            os._exit(1)

    def _say(self, message: Message) -> None:
        if self._channel is not None:
            send(self._channel, message)

    def _starter_spoke(self) -> None:
        """The starter lets go of the lab with a message; an end without one means that it died or gave up."""
        channel, released = self._channel, None
        with contextlib.suppress(OSError, ValueError):
            released = receive(channel) if channel is not None else None
        if channel is None or released is None:
            os._exit(1)
        self._loop.forget(channel)
        channel.close()
        self._channel = None


def _allow_many_descriptors() -> None:
    """Each node holds a few open namespaces."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _report(channel: socket.socket, error: LabError) -> None:
    with contextlib.suppress(OSError):
        send(channel, {"failed": str(error), "kind": type(error).__name__})


if __name__ == "__main__":
    main()
