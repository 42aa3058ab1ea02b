"""Start a lab: its supervisor, the order to it, and the wait until all is ready."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from lab import errors, host
from lab.errors import HostError, RealiseError, UsageError
from lab.host import programs
from lab.plan.build import build
from lab.plan.encoding import to_json
from lab.plan.facts import facts
from lab.plan.step import LoadRuleset, Plan, StartService
from lab.realise import registry
from lab.realise.identity import Ids, ids_of_this_user
from lab.realise.message import Message, receive, send
from lab.topology.load import load_topology
from lab.topology.model import Topology

Progress = Callable[[str, int, int, str], None]
"""Called with a phase of the building, how many of its steps are done, of how many, and what is waited for."""

_SOURCE = Path(errors.__file__).parent.parent  # the folder that holds the package `lab`
_END_TIMEOUT = 30.0  # seconds for the kernel to end every process of a lab


def up(
    file: Path,
    *,
    name: str | None = None,
    services: bool = True,
    keep_failed: bool = False,
    progress: Progress | None = None,
) -> str:
    """Make the lab of a topology file real and wait until its services are ready; returns its name.

    Args:
        file: the topology.
        name: a name of its own for the lab; default: that of the topology.
        services: False for nodes and links alone.
        keep_failed: leave a lab whose services did not get ready for inspection.
        progress: told about every phase.

    Raises:
        TopologyError: the file has faults.
        UsageError: a lab of that name is up.
        HostError: this host or user lacks something that the lab needs.
        RealiseError: a step failed, or a service did not get ready; the lab is gone (but for `keep_failed`).
    """
    try:
        return _up(file, name, services=services, keep_failed=keep_failed, progress=progress or _silent)
    except HostError as error:
        # What the kernel said is one line; what the host lacks, and the line that mends it, is found by trying.
        lacking = host.required(host.examine())
        if not lacking:
            raise
        raise HostError(f"{error}\n{host.refusal(lacking)}") from error


def _up(file: Path, name: str | None, *, services: bool, keep_failed: bool, progress: Progress) -> str:
    # The supervisor's interpreter starts while the topology is read.
    with _Supervisor() as supervisor:
        topology = load_topology(file, name)
        plan = build(topology, services=services)
        require_host(topology, plan)
        with registry.claim(topology.name) as door:
            order = {
                "plan": to_json(plan),
                "facts": facts(topology),
                "keep": _folders_to_keep(topology.file),
                "keep_failed": keep_failed,
            }
            supervisor.order(order, door)
        supervisor.await_ready(progress)
    return topology.name


def require_host(topology: Topology, plan: Plan) -> None:
    """Refuse what is known beforehand not to work here, so that nothing is half built.

    Raises:
        UsageError: the topology asks for what this version cannot do.
        HostError: a program or the ids that a service needs are missing.
    """
    for node in topology.nodes:
        if node.image is not None:
            raise UsageError(
                f"node {node.name}: containers (image: {node.image}) are not realised by this version; "
                "leave `image` out and the node is a network namespace with the host's programs"
            )
    if any(isinstance(step, LoadRuleset) for step in plan.steps) and programs.find("nft") is None:
        raise HostError("nft is missing, and this topology has NAT or firewalls: sudo apt-get install nftables")
    starts = [step for step in plan.steps if isinstance(step, StartService)]
    for step in starts:
        if "/" not in step.argv[0] and programs.find(step.argv[0]) is None:
            raise HostError(
                f"service {step.node}/{step.service}: no program {step.argv[0]!r} on this host; "
                "install it (`lab doctor` knows the package of the usual ones)"
            )
    if ids_of_this_user() is Ids.ONE:
        changing = [f"{step.node}/{step.service}" for step in starts if step.changes_user or step.user]
        if changing:
            raise HostError(
                f"{', '.join(changing)}: these services change user, but this user has a single id to give. "
                "Mend: sudo apt-get install uidmap, then a line `USER:100000:65536` for this user "
                "in both /etc/subuid and /etc/subgid; `lab doctor` shows the exact lines. "
                "Without services: `lab up --no-services`"
            )


class _Supervisor:
    """The process that will be the lab, while it is being started."""

    def __init__(self) -> None:
        self._channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        self._pid_descriptor: int | None = None
        self._ordered = False
        # Nodes can read process 1's environment, so it gets nothing of the user's.
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": str(_SOURCE)}
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lab.realise.supervisor", str(far.fileno())],
                pass_fds=(far.fileno(),),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                cwd="/",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go; if the lab has not been released by then, it ends, and this waits for that."""
        self._channel.close()
        if not self._ordered:
            self._process.kill()
        self._process.wait()
        if self._pid_descriptor is not None:
            os.close(self._pid_descriptor)
        os.close(self._errors)

    def order(self, order: Message, door: socket.socket) -> None:
        """Tell what to build."""
        self._ordered = True
        with contextlib.suppress(BrokenPipeError):  # it said why in its last message
            send(self._channel, order, (door.fileno(),))

    def await_ready(self, progress: Progress) -> None:
        """Follow the building to its end and release the lab.

        Raises:
            LabError: it failed; unless it was to be kept, the lab is gone.
        """
        try:
            self._follow(progress)
        except BaseException:
            self._channel.close()
            if self._pid_descriptor is not None:
                registry.await_end(self._pid_descriptor, _END_TIMEOUT)
            raise

    def _follow(self, progress: Progress) -> None:
        while (received := receive(self._channel)) is not None:
            message, _ = received
            if "supervisor" in message:
                with contextlib.suppress(ProcessLookupError):
                    self._pid_descriptor = os.pidfd_open(message["supervisor"])
            elif "progress" in message:
                progress(*message["progress"])
            elif "failed" in message:
                if message.get("kept"):
                    send(self._channel, {"release": True})
                    self._pid_descriptor = None
                raise errors.by_name(message["kind"])(message["failed"])
            elif "ready" in message:
                send(self._channel, {"release": True})
                return
        raise RealiseError(f"the supervisor ended without a word{self._last_words()}")

    def _last_words(self) -> str:
        self._process.wait()
        os.lseek(self._errors, 0, os.SEEK_SET)
        text = os.read(self._errors, 64 * 1024).decode(errors="replace").strip()
        return f":\n{text}" if text else ""


def _folders_to_keep(file: Path) -> list[str]:
    """What nodes must see even where they have folders of their own: the interpreter, the programs, the topology."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), _SOURCE, file.resolve().parent}
    return sorted(str(folder) for folder in folders)


def _silent(_phase: str, _done: int, _total: int, _note: str) -> None:
    pass
