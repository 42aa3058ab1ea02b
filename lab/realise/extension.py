"""More nodes for a running lab, for as long as whoever asked for them stays: the supervisor's side of `growth`."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import LabError, UsageError
from lab.plan.encoding import from_json
from lab.plan.guest import FIRST_GUEST_PORT_INDEX
from lab.plan.step import (
    AddAddress,
    AddRoute,
    ConnectToSwitch,
    CreateNode,
    LoadRuleset,
    Plan,
    SetSysctls,
    ShareFile,
)
from lab.realise.executor import Executor
from lab.realise.nodes import FABRIC, Nodes

if TYPE_CHECKING:
    from lab.realise.message import Message
    from lab.realise.requests import Answer, Client, Handler

_LAST_PORT_INDEX = (1 << 31) - 1  # of any interface (struct ifinfomsg)
# Of a folder and a host, and with dots none that a topology can have.
_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9-]+(?:\.[a-z0-9-]+)*\Z")
_ALLOWED = (ShareFile, CreateNode, ConnectToSwitch, SetSysctls, AddAddress, AddRoute, LoadRuleset)


@dataclass(slots=True)
class Extension:
    """Serves "grow": the steps of a partial plan, undone when the connection that asked ends."""

    nodes: Nodes
    _ports: set[int] = field(default_factory=set)  # of guests, by their index in the fabric

    def handlers(self) -> dict[str, Handler]:
        """The requests served here."""
        return {"grow": self._grow}

    def _grow(self, client: Client, message: Message, _descriptors: list[int]) -> Answer:
        plan = from_json(message["plan"])
        self._check(plan)
        names = {step.node for step in plan.steps if isinstance(step, CreateNode)}
        ports = {step.port_index for step in plan.steps if isinstance(step, ConnectToSwitch)}
        self.nodes.guests |= names
        self._ports |= ports
        try:
            Executor(self.nodes, _silent).build(plan)
        except BaseException:
            self._undo(names, ports)
            raise
        client.on_leave.append(lambda: self._undo(names, ports))
        return {}, []

    def _check(self, plan: Plan) -> None:
        """Only steps that concern nodes of the plan's own: what is done to others could not be undone."""
        new: set[str] = set()
        ports: set[int] = set()
        for step in plan.steps:
            if not isinstance(step, _ALLOWED):
                raise UsageError(f"{type(step).__name__} has no place in a running lab; allowed: {_names(_ALLOWED)}")
            if isinstance(step, CreateNode):
                self._check_name(step.node, new)
                new.add(step.node)
            if isinstance(step, ConnectToSwitch):
                self._check_port(step, ports)
                ports.add(step.port_index)
        for step in plan.steps:
            for node in step.nodes if isinstance(step, ShareFile) else (step.node,):  # type: ignore[union-attr]
                if node not in new:
                    raise UsageError(f"{step.describe()}: {node} is none of the nodes that this plan creates")

    def _check_name(self, name: str, new: set[str]) -> None:
        if not _NAME.match(name):
            raise UsageError(
                f"a new node cannot be called {name!r}; allowed: names as other nodes have, with dots between"
            )
        if name in self.nodes.places or name == FABRIC or name in new:
            raise UsageError(f"this lab has a node {name!r} already")

    def _check_port(self, step: ConnectToSwitch, ports: set[int]) -> None:
        """Ports are deleted by their index, which must never be another's."""
        index = step.port_index
        if type(index) is not int or not FIRST_GUEST_PORT_INDEX <= index <= _LAST_PORT_INDEX:
            raise UsageError(
                f"port {index!r} of {step.node}; those of guests are {FIRST_GUEST_PORT_INDEX} to {_LAST_PORT_INDEX}"
            )
        if index in self._ports or index in ports:
            raise UsageError(f"port {index} of {step.node} is taken by another guest; another name gives another port")

    def _undo(self, names: set[str], ports: set[int]) -> None:
        """Take away what there is of a plan; a part that never came to be is passed over.

        Never fails: a port that could not be deleted goes with the namespace of its node.
        """
        self.nodes.close_requests()  # nothing that was gathered for the guests may be sent
        for index in ports:
            with contextlib.suppress(LabError, OSError):
                self.nodes.requests_of(FABRIC).delete_link(index, f"unplug port {index}")
                self.nodes.requests_of(FABRIC).send()
        for name in names:
            self.nodes.remove(name)
        self.nodes.close_requests()
        self.nodes.guests -= names
        self._ports -= ports


def _names(kinds: tuple[type, ...]) -> str:
    return ", ".join(kind.__name__ for kind in kinds)


def _silent(_phase: str, _done: int, _total: int) -> None:
    pass
