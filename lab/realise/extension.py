"""More nodes for a running lab, for as long as whoever asked for them stays: the supervisor's side of `growth`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError, UsageError
from lab.plan.encoding import from_json
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

_ALLOWED = (ShareFile, CreateNode, ConnectToSwitch, SetSysctls, AddAddress, AddRoute, LoadRuleset)


@dataclass(slots=True)
class Extension:
    """Serves "grow": the steps of a partial plan, undone when the connection that asked ends."""

    nodes: Nodes

    def handlers(self) -> dict[str, Handler]:
        """The requests served here."""
        return {"grow": self._grow}

    def _grow(self, client: Client, message: Message, _descriptors: list[int]) -> Answer:
        plan = from_json(message["plan"])
        for step in plan.steps:
            if not isinstance(step, _ALLOWED):
                raise UsageError(f"{type(step).__name__} has no place in a running lab: {step.describe()}")
            if isinstance(step, CreateNode) and (step.node in self.nodes.places or step.node == FABRIC):
                raise UsageError(f"this lab has a node {step.node!r} already")
        try:
            Executor(self.nodes, _silent).build(plan)
        except BaseException:
            self._undo(plan)
            raise
        client.on_leave.append(lambda: self._undo(plan))
        return {}, []

    def _undo(self, plan: Plan) -> None:
        """Take away what there is of the plan; a part that never came to be is passed over."""
        self.nodes.close_requests()
        for step in plan.steps:
            if isinstance(step, ConnectToSwitch):
                with contextlib.suppress(LabError):
                    self.nodes.requests_of(FABRIC).delete_link(step.port_index, f"unplug {step.node}")
                    self.nodes.send_requests()
        for step in plan.steps:
            if isinstance(step, CreateNode) and step.node in self.nodes.places:
                self.nodes.remove(step.node)
        self.nodes.close_requests()


def _silent(_phase: str, _done: int, _total: int) -> None:
    pass
