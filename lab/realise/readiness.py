"""Whether one life of a service works: looked at again and again until it does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass, field

from lab.plan.step import StartService
from lab.realise.bound_ports import bound_sockets
from lab.realise.loop import Loop, Timer
from lab.realise.nodes import Nodes
from lab.realise.process import Command, start
from lab.realise.service_files import ServiceFiles

_COMMAND_POLL = 0.05  # seconds between two runs of a ready command
_LONGEST_COMMAND = 3.0  # seconds until one that hangs is ended, and asked again


@dataclass(slots=True)
class Readiness:
    """Made just before the service's program starts, so that it can tell what was there before."""

    loop: Loop
    nodes: Nodes
    step: StartService
    files: ServiceFiles
    _log_start: int = field(init=False)
    _bound_before: set[int] = field(init=False)
    _answer: int | None = None  # exit code of the last ready command
    _asking: int | None = None  # process id of the one that runs
    _ask_again: float = 0.0
    _hung: Timer = field(init=False)

    def __post_init__(self) -> None:
        """Remember the log's length, and the sockets that are somebody else's."""
        self._log_start = self.files.log_size()
        self._bound_before = self._bound() if self.step.ready.kind == "port" else set()

    def holds(self) -> bool:
        """Whether the service is ready as far as can be seen now.

        Raises:
            RealiseError: the ready command cannot be run.
        """
        match self.step.ready.kind:
            case "port":
                return bool(self._bound() - self._bound_before)
            case "log":
                text = self.files.log_text(self._log_start)
                return re.search(self.step.ready.pattern, text, re.MULTILINE) is not None
            case "command":
                return self._command_succeeded()
            case _:
                return True

    def end(self) -> None:
        """End a ready command that runs: it hangs, or this life of the service is over."""
        if self._asking is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._asking, signal.SIGKILL)

    def _bound(self) -> set[int]:
        ready = self.step.ready
        return bound_sockets(self.nodes.place(ready.node), ready.protocol, ready.port, ready.address)

    def _command_succeeded(self) -> bool:
        """Run the ready command unless it runs; a later look finds its answer."""
        if self._answer == 0:
            return True
        if self._asking is None and time.monotonic() >= self._ask_again:
            step = self.step
            command = Command(step.ready.argv, step.environment, self.files.folder_in_node, step.user)
            nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            try:
                self._asking = start(self.nodes.place(step.node), command, (nothing, nothing, nothing))
            finally:
                os.close(nothing)
            self.loop.on_exit(self._asking, self._answered)
            self._hung = self.loop.after(_LONGEST_COMMAND, self.end)
        return False

    def _answered(self, code: int) -> None:
        self._hung.cancel()
        self._answer, self._asking = code, None
        self._ask_again = time.monotonic() + _COMMAND_POLL
