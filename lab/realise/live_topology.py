"""The topology of a running lab as it is, and changes of it that are made real wholly or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError, RealiseError
from lab.plan.alteration import (
    Change,
    Plug,
    Reconfigure,
    RemoveAddress,
    RemoveRoute,
    WriteFile,
    alterations,
)
from lab.plan.step import AddAddress, AddRoute, ConnectToSwitch, LoadRuleset, Plan
from lab.realise.announcement import announce
from lab.realise.executor import Executor
from lab.realise.frozen_topology import thaw
from lab.realise.node_processes import end, of_service
from lab.realise.nodes import FABRIC

if TYPE_CHECKING:
    from lab.plan.step import StartService
    from lab.realise.links import Links
    from lab.realise.nodes import Nodes
    from lab.realise.requests import Requests
    from lab.realise.services import Services
    from lab.topology.model import Topology

Follower = Callable[["Topology"], Callable[[], None]]
"""Makes real what follows from a new topology beside its plan; gives what undoes that. An error stops the change."""


@dataclass(slots=True)
class LiveTopology:
    """What the file declares, and what has become of it."""

    nodes: Nodes
    services: Services
    requests: Requests
    links: Links
    frozen: str
    followers: list[Follower] = field(default_factory=list)
    _declared: Topology | None = None
    _now: Topology | None = None

    @property
    def declared(self) -> Topology:
        """As the file has it."""
        if self._declared is None:
            self._declared = thaw(self.frozen)
        return self._declared

    @property
    def now(self) -> Topology:
        """As it is."""
        return self._now or self.declared

    def change(self, after: Topology) -> list[str]:
        """Make the lab what `after` says, with the same nodes and links; a failure leaves it as it was.

        Returns the services of the lab's own that start anew with it.

        Raises:
            LabError: a step failed.
        """
        # Imported when first needed: a supervisor that changes nothing needs neither.
        from lab.plan.build import build
        from lab.plan.facts import facts

        plan = build(after)
        steps = [step for step in alterations(build(self.now), plan) if self._concerns(step.do)]
        undone: list[Callable[[], None]] = []
        try:
            for step in steps:
                self._make(step.do)
                undone.append(lambda undo=step.undo: self._make(undo))  # type: ignore[misc]
            for follower in self.followers:
                undone.append(follower(after))  # noqa: PERF401 - known as soon as done, for the next may fail
        except BaseException as error:
            self._take_back(undone, error)
            raise
        links = [step for step in plan.steps if isinstance(step, ConnectToSwitch)]
        announce(self.nodes, links, [step.do for step in steps if isinstance(step.do, AddAddress)])
        self._now = after
        self.requests.facts = self.requests.facts | facts(after)
        return [f"{s.do.start.node}/{s.do.start.service}" for s in steps if isinstance(s.do, Reconfigure)]

    def _take_back(self, undone: list[Callable[[], None]], cause: BaseException) -> None:
        """Undo what was done, the last first; goes on past what cannot be undone, and says so."""
        self.nodes.close_requests()
        failures = []
        for undo in reversed(undone):
            try:
                undo()
            except LabError as error:
                failures.append(str(error))
                self.nodes.close_requests()
        if failures:
            raise RealiseError(f"{cause}; and to take it back failed: {'; '.join(failures)}") from cause

    def _concerns(self, change: Change) -> bool:
        """Services that this lab does not run (`lab up --no-services`) have no files to write anew."""
        return (
            not isinstance(change, Reconfigure)
            or f"{change.start.node}/{change.start.service}" in self.services.running
        )

    def _make(self, change: Change) -> None:
        match change:
            case AddAddress():
                self.nodes.requests_of(change.node).add_address(change)
            case AddRoute():
                self.nodes.requests_of(change.node).add_route(change)
            case RemoveAddress(added):
                self.nodes.requests_of(added.node).remove_address(added)
            case RemoveRoute(added):
                self.nodes.requests_of(added.node).remove_route(added)
            case Plug(link):
                self._plug(link)
            case WriteFile():
                self._write(change)
            case LoadRuleset():
                Executor(self.nodes, lambda _phase, _done, _total: None).build(Plan("", (change,)))
            case Reconfigure(start):
                self._reconfigure(start)
        self.nodes.send_requests()

    def _plug(self, link: ConnectToSwitch) -> None:
        """The node sees its carrier go and come, as when it leaves one network and joins another."""
        what = f"plug {link.node} into {link.network}"
        fabric = self.nodes.requests_of(FABRIC)
        is_on = self.nodes.is_on(link.port)
        if is_on:
            fabric.turn_off(link.port_index, what)
        fabric.set_mtu(link.port_index, link.mtu, what)
        self.nodes.requests_of(link.node).set_mtu(link.index, link.mtu, what)
        self.links.replug(link)
        if is_on:
            fabric.turn_on(link.port_index, what)

    def _write(self, file: WriteFile) -> None:
        place = self.nodes.place(file.node)
        try:
            self.nodes.filesystem.own_file(file.node, place.mounts, file.path, file.text)
        except OSError as error:
            raise RealiseError(f"write {file.path} of {file.node}: {error.strerror}") from error
        finally:
            self.nodes.return_home()

    def _reconfigure(self, start: StartService) -> None:
        name = f"{start.node}/{start.service}"
        running = self.services.named(name)
        pid = running.pid
        self.services.hold(name, "new files")
        with contextlib.ExitStack() as stack:
            stack.callback(self.services.release, name, "new files")
            if pid is not None:
                end(lambda: of_service(pid), name)
            self._rewrite(start)
            running.step = running.files.step = start

    def _rewrite(self, start: StartService) -> None:
        """Written in the node, so that its links lead where they lead there."""
        place = self.nodes.place(start.node)
        folder = Path(self.services.named(f"{start.node}/{start.service}").files.folder_in_node)
        try:
            place.enter()
            for path, text in start.files:
                (folder / path).write_text(text)
        except OSError as error:
            raise RealiseError(f"write the files of {start.node}/{start.service}: {error.strerror}") from error
        finally:
            self.nodes.return_home()
