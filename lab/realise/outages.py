"""Faults of machines and programs: to kill, pause or restart a node or a service, and how they recover."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import LabError, UsageError
from lab.realise.faults import Effect, Faults
from lab.realise.node_processes import Find, end, of_node, of_service, send_signal, stop
from lab.realise.services import State

if TYPE_CHECKING:
    from lab.realise.loop import Loop
    from lab.realise.message import Message
    from lab.realise.nodes import Nodes
    from lab.realise.power import Power
    from lab.realise.requests import Answer, Client, Handler
    from lab.realise.services import Running, Services

_GRACE = 3.0  # seconds from SIGTERM to SIGKILL
_LOOK = 0.01  # seconds between two looks whether all have ended
_SETTLED = (State.READY, State.ENDED, State.FAILED)


@dataclass(slots=True)
class Outages:
    """Brings these faults about; serves "recovery"."""

    loop: Loop
    nodes: Nodes
    services: Services
    power: Power
    faults: Faults
    _restarting: set[str] = field(default_factory=set)
    _not_restarted: dict[str, str] = field(default_factory=dict)  # target: why

    def __post_init__(self) -> None:
        self.faults.know("kill", self._kill)
        self.faults.know("pause", self._pause)
        self.faults.know("restart", self._restart, passing=True)

    def handlers(self) -> dict[str, Handler]:
        """The requests served here."""
        return {"recovery": self._recovery}

    def _recovery(self, _client: Client, message: Message, _descriptors: list[int]) -> Answer:
        """Of these services and nodes: which are not ready, why not, which failed, and how long (seconds) is usual."""
        services = [name for name in message["await"] if name in self.services.running]
        left = [name for name in services if self._is_awaited(name)]
        failed = [self._not_restarted.pop(name) for name in message["await"] if name in self._not_restarted]
        failed += [
            self.services.why_not_ready(name) for name in services if self.services.named(name).state is State.FAILED
        ]
        return {
            "left": left + [name for name in message["await"] if name in self._restarting],
            "why": [self.services.why_not_ready(name) for name in left],
            "failed": failed,
            "patience": 2 * _GRACE + sum(self.services.named(name).step.ready_timeout for name in services),
        }, []

    def _is_awaited(self, name: str) -> bool:
        return self.services.named(name).state not in _SETTLED and not self._is_held(name)

    def _is_held(self, name: str) -> bool:
        """Whether a fault keeps it from starting, or one of those that it comes after."""
        running = self.services.named(name)
        return running.state is State.HELD or (
            running.state is State.WAITING and any(self._is_held(before) for before in running.step.after)
        )

    def _kill(self, name: str, targets: list[str]) -> Effect:
        (target,) = targets
        node, service = self._target(target)
        if service is None:
            self.power.switch_off(node, name)
            return Effect("switched off: no carrier, no process", lambda: self._switch_on(node, name))
        pid = self._pid(service)
        self.services.hold(service.name, name)
        try:
            end(lambda: of_service(pid), service.name)
        except BaseException:
            self.services.release(service.name, name)
            raise
        policy = "" if service.step.restart == "never" else f"; its `restart: {service.step.restart}` is held back"
        return Effect(f"ended by SIGKILL{policy}", lambda: self._release([service], name))

    def _pause(self, _name: str, targets: list[str]) -> Effect:
        (target,) = targets
        node, service = self._target(target)
        if service is None:
            self.power.freeze(node)
            return Effect("stands still, deaf and mute; its links keep their carrier", lambda: self._thaw(node))
        pid = self._pid(service)
        stopped = stop(lambda: of_service(pid))

        def go_on() -> list[str]:
            stopped.go_on()
            return []

        return Effect("stopped; its sockets stay open and nobody answers", go_on)

    def _restart(self, _name: str, targets: list[str]) -> Effect:
        (target,) = targets
        node, service = self._target(target, healthy=False)
        if target in self._restarting:
            raise UsageError(f"{target} is being restarted already")
        ended = [
            fault for fault in self.faults.in_force if fault.kind in ("kill", "pause") and fault.targets == (target,)
        ]
        started = [name for fault in reversed(ended) for name in self.faults.end(fault)]
        if any(fault.kind == "kill" for fault in ended):
            return Effect("started", awaited=started)
        self.nodes.running_place(node)
        if service is not None:
            pid = service.pid
            first = of_service(pid) if pid is not None else set()
            self._shut_down(target, [service], lambda: of_service(pid, first) if pid is not None else set())
            return Effect("restarted", awaited=[target])
        services, place = self.services.of_node(node), self.nodes.place(node)
        self._shut_down(target, services, lambda: of_node(place), lambda: self._power_cycle(node))
        return Effect("restarted", awaited=[node, *(each.name for each in services)])

    def _shut_down(
        self, target: str, services: list[Running], find: Find, then: Callable[[], None] = lambda: None
    ) -> None:
        """End processes as a machine does that shuts down: SIGTERM, SIGKILL for who takes too long; then start anew."""
        for service in services:
            self.services.hold(service.name, target)
        self._restarting.add(target)
        deadline = time.monotonic() + _GRACE
        send_signal(find(), signal.SIGTERM)

        def look() -> None:
            try:
                if find():
                    if time.monotonic() < deadline:
                        self.loop.after(_LOOK, look)
                        return
                    end(find, target)
                then()
            except (LabError, OSError) as error:
                self._not_restarted[target] = f"{target} was not restarted: {error}"
            self._restarting.discard(target)
            self._release(services, target)

        look()

    def _power_cycle(self, node: str) -> None:
        self.power.switch_off(node, node)
        self.power.switch_on(node, node)

    def _switch_on(self, node: str, holder: str) -> list[str]:
        self.power.switch_on(node, holder)
        return [running.name for running in self.services.of_node(node)]

    def _thaw(self, node: str) -> list[str]:
        self.power.thaw(node)
        return []

    def _release(self, services: list[Running], holder: str) -> list[str]:
        for service in services:
            self.services.release(service.name, holder)
        return [service.name for service in services]

    def _target(self, target: str, *, healthy: bool = True) -> tuple[str, Running | None]:
        """The node, and the service if one is meant, of "nas" or "nas/web".

        Raises:
            UsageError: no such node or service; or, if it has to be `healthy`, the node does not run.
        """
        node, slash, service = target.partition("/")
        if node in self.nodes.guests:
            raise UsageError(
                f"{node} is a guest, here for as long as its client stays; faults are of the lab's own nodes"
            )
        require(node, list(self.nodes.places), "node")
        if slash:
            require(service, [each.step.service for each in self.services.of_node(node)], f"service of {node}")
        if healthy:
            self.nodes.running_place(node)
            if {node, target} & self._restarting:
                raise UsageError(f"{target} is being restarted; try again when it is ready")
        return node, self.services.named(target) if slash else None

    def _pid(self, service: Running) -> int:
        if service.pid is None or service.state is State.HELD:
            raise UsageError(f"service {service.name} is not running: it is {service.state}")
        return service.pid


def require(name: str, known: list[str], what: str) -> None:
    """Refuse a name that is none of those known.

    Raises:
        UsageError: with the nearest name, and the others.
    """
    if name in known:
        return
    from lab.topology.faults import did_you_mean, listed

    raise UsageError(f"no {what} is called {name!r}{did_you_mean(name, known)}; there are: {listed(known) or 'none'}")
