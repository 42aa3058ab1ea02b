"""The services of a lab: start them in order, know when they are ready, start them again when they end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from lab.errors import RealiseError, UsageError
from lab.plan.step import StartService
from lab.realise.bound_ports import bound_addresses
from lab.realise.loop import Loop, Timer
from lab.realise.nodes import Nodes
from lab.realise.process import Command, start
from lab.realise.readiness import Readiness
from lab.realise.service_files import ServiceFiles

_POLL = 0.005  # seconds between two looks at a service that is not ready yet
_LATER_POLL = 0.1  # the same once the lab is up and a service starts again
_FIRST_BACKOFF = 0.1  # seconds before a service that ended is started again; doubles each time
_LONGEST_BACKOFF = 5.0  # seconds; who has been ready for longer begins anew
_LOG_LOOK = 0.2  # seconds between two looks at the sizes of logs
_LOG_TAIL = 20  # lines shown of a service that failed


class State(StrEnum):
    """Where a service is in its life."""

    WAITING = "waiting"  # for those it comes after
    STARTING = "starting"  # not ready yet
    READY = "ready"
    HELD = "held"  # kept from running by a fault (`lab fault`)
    ENDED = "ended"  # not to be started again
    FAILED = "failed"


_DONE = (State.READY, State.ENDED)


@dataclass(slots=True)
class Running:
    """One service and its process."""

    step: StartService
    files: ServiceFiles
    state: State = State.WAITING
    pid: int | None = None
    exit_code: int | None = None
    restarts: int = 0
    backoff: float = _FIRST_BACKOFF
    deadline: float = 0.0
    ready_since: float = 0.0
    readiness: Readiness | None = None  # of the present life
    holders: set[str] = field(default_factory=set)  # the faults that keep it from running
    next_life: Timer | None = None  # its start after a pause

    @property
    def name(self) -> str:
        return f"{self.step.node}/{self.step.service}"


@dataclass(slots=True)
class Services:
    """All services of a lab."""

    loop: Loop
    nodes: Nodes
    on_progress: Callable[[int, int, str], None]
    on_ready: Callable[[], None]
    on_failure: Callable[[RealiseError], None]
    running: dict[str, Running] = field(default_factory=dict)
    _polling: bool = False
    _settled: bool = False

    def start(self, steps: list[StartService]) -> None:
        """Start what depends on nothing; the rest follows as it may. Calls `on_ready` or `on_failure` once."""
        for step in steps:
            files = ServiceFiles(self.nodes.filesystem, step)
            running = Running(step, files)
            self.running[running.name] = running
        for running in self.running.values():
            running.files.write()
        self.loop.after(_LOG_LOOK, self._bound_logs)
        self._advance()

    def states(self) -> list[dict[str, object]]:
        """Every service as plain values for `lab ps`."""
        return [
            {
                "node": running.step.node,
                "service": running.step.service,
                "state": str(running.state),
                "pid": running.pid,
                "exit_code": running.exit_code,
                "restarts": running.restarts,
            }
            for running in self.running.values()
        ]

    def named(self, name: str) -> Running:
        """A service by "node/service".

        Raises:
            UsageError: no such service.
        """
        if name not in self.running:
            known = ", ".join(sorted(self.running)) or "none"
            raise UsageError(f"no service {name!r} in this lab; it has {known}")
        return self.running[name]

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a service's whole session; its restart policy then decides.

        Raises:
            UsageError: no such service, or it is not running.
        """
        pid = self.named(name).pid
        if pid is None:
            raise UsageError(f"service {name} is not running")
        os.killpg(pid, number)

    @property
    def settled(self) -> bool:
        """Whether whoever waited for the lab to be ready has been told how that went."""
        return self._settled

    def of_node(self, node: str) -> list[Running]:
        """Every service of a node."""
        return [running for running in self.running.values() if running.step.node == node]

    def why_not_ready(self, name: str) -> str:
        """What a service waits for, with the end of its log."""
        running = self.named(name)
        if running.state is State.WAITING:
            return f"service {name} waits for {', '.join(running.step.after)}"
        return f"service {name} is not ready: waits until {running.step.ready.describe()}{self._tail(running)}"

    def hold(self, name: str, holder: str) -> None:
        """From here on the service is not started, whatever its restart policy; ending its processes is the caller's.

        Raises:
            UsageError: no such service.
        """
        running = self.named(name)
        running.holders.add(holder)
        running.state = State.HELD
        if running.next_life is not None:
            running.next_life.cancel()

    def release(self, name: str, holder: str) -> None:
        """Start the service, after those that it comes after, unless something else still holds it."""
        running = self.named(name)
        running.holders.discard(holder)
        if running.state is State.HELD and not running.holders:
            running.state, running.backoff = State.WAITING, _FIRST_BACKOFF
            self._advance()

    def _advance(self) -> None:
        """Start whatever may start, and say so if nothing is left to wait for."""
        ready = {name for name, running in self.running.items() if running.state in _DONE}
        for running in self.running.values():
            if running.state is State.WAITING and running.pid is None and ready.issuperset(running.step.after):
                running.deadline = time.monotonic() + running.step.ready_timeout
                self._start(running)
        waiting = [name for name, running in self.running.items() if running.state not in _DONE]
        if self._settled:  # whoever waited for the lab has gone
            return
        self.on_progress(len(self.running) - len(waiting), len(self.running), waiting[0] if waiting else "")
        if not waiting:
            self._settled = True
            self.on_ready()

    def _start(self, running: Running) -> None:
        step = running.step
        running.state, running.exit_code = State.STARTING, None
        command = Command(step.argv, step.environment, running.files.folder_in_node, step.user)
        try:
            running.readiness = Readiness(self.loop, self.nodes, step, running.files)
            with running.files.streams() as streams:
                running.pid = start(self.nodes.place(step.node), command, streams)
        except (OSError, RealiseError) as error:  # OSError: the node did something to the folder of its logs
            self._give_up(running, f": {error}")
            return
        self.loop.on_exit(running.pid, lambda code: self._ended(running, code))
        self._poll_soon()

    def _holds(self, running: Running) -> bool:
        try:
            return running.readiness is not None and running.readiness.holds()
        except RealiseError as error:
            self._give_up(running, f": its ready check: {error}")
            return False

    def _poll_soon(self) -> None:
        if not self._polling:
            self._polling = True
            self.loop.after(_LATER_POLL if self._settled else _POLL, self._poll)

    def _poll(self) -> None:
        self._polling = False
        now = time.monotonic()
        starting = [running for running in self.running.values() if running.state is State.STARTING]
        advanced = False
        for running in starting:
            if running.pid is not None and self._holds(running):
                running.state, running.ready_since = State.READY, now
                advanced = True
            elif now > running.deadline and not self._settled:
                self._give_up(running, self._too_late(running))
                return
        if advanced:
            self._advance()
        if any(running.state is State.STARTING for running in starting):
            self._poll_soon()

    def _ended(self, running: Running, code: int) -> None:
        # A program that does its work and ends may do both between two looks at it.
        shows_at_once = running.step.ready.kind in ("port", "log")
        was_ready = running.state is State.READY or (shows_at_once and self._holds(running))
        if running.readiness is not None:
            running.readiness.end()
        running.pid, running.exit_code = None, code
        if running.state is State.WAITING:  # released before it had ended
            self._advance()
            return
        if running.state is State.FAILED or running.holders:
            return
        if running.state is State.READY and time.monotonic() - running.ready_since > _LONGEST_BACKOFF:
            running.backoff = _FIRST_BACKOFF
        if running.step.restart == "always" or (running.step.restart == "on-failure" and code != 0):
            running.state = State.STARTING
            running.restarts += 1
            running.next_life = self.loop.after(running.backoff, lambda: self._start(running))
            running.backoff = min(running.backoff * 2, _LONGEST_BACKOFF)
            self._poll_soon()
        elif self._settled or (code == 0 and (was_ready or running.step.ready.kind == "started")):
            running.state = State.ENDED
            self._advance()
        else:
            when = "before the lab was" if was_ready or running.step.ready.kind == "started" else "before it was"
            self._give_up(running, f" {_how(code)} {when} ready{self._tail(running)}")

    def _bound_logs(self) -> None:
        for running in self.running.values():
            running.files.bound_log()
        self.loop.after(_LOG_LOOK, self._bound_logs)

    def _give_up(self, running: Running, why: str) -> None:
        """Take a service for failed; before the lab is ready, the lab fails with it."""
        running.state = State.FAILED
        if not self._settled:
            self._settled = True
            self.on_failure(RealiseError(f"service {running.name}{why}"))

    def _too_late(self, running: Running) -> str:
        step = running.step
        text = f" was not ready within {step.ready_timeout:g} s: waited until "
        text += step.ready.describe()
        if step.ready.kind == "port":
            found = bound_addresses(self.nodes.place(step.ready.node), step.ready.protocol)
            text += f"; bound there: {', '.join(found[:8]) or 'nothing'}"
        return text + self._tail(running)

    def _tail(self, running: Running) -> str:
        lines = running.files.log_text().splitlines()[-_LOG_TAIL:]
        if not lines:
            return "; its log is empty"
        return "; the last lines of its log:\n" + "\n".join(f"    {line}" for line in lines)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    named = {int(number): number.name for number in signal.Signals}
    return f"was ended by {named.get(-code, f'signal {-code}')}"
