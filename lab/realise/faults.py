"""The faults in force in a running lab: brought about and healed on request, or healed after a time."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import LabError, RealiseError, UsageError

if TYPE_CHECKING:
    from lab.realise.loop import Loop, Timer
    from lab.realise.message import Message
    from lab.realise.requests import Answer, Client, Handler
    from lab.realise.services import Services

_LONGEST = 86400.0  # seconds that a fault can be asked for


@dataclass(slots=True)
class Effect:
    """What a fault did."""

    note: str  # for people
    undo: Callable[[], list[str]] | None = None  # gives the services that start with it; None: nothing is left to undo
    awaited: list[str] = field(default_factory=list)  # services that have to get ready


BringAbout = Callable[[str, list[str]], Effect]
"""Brings a fault about, given a name that it alone has and its targets."""


@dataclass(slots=True, eq=False)
class Fault:
    """One fault in force."""

    number: int
    kind: str
    targets: tuple[str, ...]
    note: str
    undo: Callable[[], list[str]]
    since: float = field(default_factory=time.time)
    until: float | None = None
    timer: Timer | None = None
    trouble: str = ""  # why it could not be healed

    @property
    def what(self) -> str:
        return f"{self.kind} {' '.join(self.targets)}"

    def plain(self) -> Message:
        """As values for `lab fault --json`."""
        return {
            "number": self.number,
            "kind": self.kind,
            "targets": list(self.targets),
            "note": self.note,
            "since": self.since,
            "until": self.until,
            "trouble": self.trouble,
        }


@dataclass(slots=True)
class Faults:
    """Serves "fault", "heal" and "faults"; what each kind of fault does is told by `know`."""

    loop: Loop
    services: Services
    in_force: list[Fault] = field(default_factory=list)
    also_healed: list[Callable[[], list[str]]] = field(default_factory=list)  # each gives the names of what it mended
    _kinds: dict[str, BringAbout] = field(default_factory=dict)
    _passing: set[str] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def know(self, kind: str, bring_about: BringAbout, *, passing: bool = False) -> None:
        """Serve one more kind of fault; one that is `passing` is over at once and leaves nothing to undo."""
        self._kinds[kind] = bring_about
        if passing:
            self._passing.add(kind)

    def handlers(self) -> dict[str, Handler]:
        """The requests served here."""
        return {"fault": self._fault, "heal": self._heal, "faults": self._list}

    def end(self, fault: Fault) -> list[str]:
        """Undo one and give the services that start with it; if that fails, it stays in force.

        Raises:
            LabError, OSError: as the undoing.
        """
        try:
            awaited = fault.undo()
        except (LabError, OSError) as error:
            fault.trouble = str(error)
            raise
        if fault.timer is not None:
            fault.timer.cancel()
        self.in_force.remove(fault)
        return awaited

    def _fault(self, _client: Client, message: Message, _descriptors: list[int]) -> Answer:
        kind, targets, seconds = message["kind"], tuple(message["targets"]), message["seconds"]
        self._check(kind, targets, seconds)
        number = next(self._numbers)
        effect = self._kinds[kind](f"fault{number}", list(targets))
        plain = None
        if effect.undo is not None:
            fault = Fault(number, kind, targets, effect.note, effect.undo)
            self.in_force.append(fault)
            if seconds is not None:
                fault.until = fault.since + seconds
                fault.timer = self.loop.after(seconds, lambda: self._time_is_up(fault))
            plain = fault.plain()
        return {"fault": plain, "note": effect.note, "await": effect.awaited}, []

    def _check(self, kind: str, targets: tuple[str, ...], seconds: float | None) -> None:
        if kind not in self._kinds:
            raise UsageError(f"no fault is called {kind!r}; there are {', '.join(self._kinds)}")
        if not self.services.settled:
            raise UsageError("the lab is still starting; its faults come after that")
        if seconds is not None and kind in self._passing:
            raise UsageError(f"{kind} is over at once; only what lasts can be ended after {seconds:g} s")
        if seconds is not None and not 0 < seconds <= _LONGEST:
            raise UsageError(f"{seconds:g} s; a fault lasts for more than 0 and up to {_LONGEST:g} s")
        for fault in self.in_force:
            if fault.kind == kind and sorted(fault.targets) == sorted(targets):
                raise UsageError(f"{fault.what} is in force already; `lab fault heal {fault.number}` ends it")

    def _heal(self, _client: Client, message: Message, _descriptors: list[int]) -> Answer:
        number = message["fault"]
        found = [fault for fault in self.in_force if number in (None, fault.number)]
        if number is not None and not found:
            numbers = ", ".join(str(fault.number) for fault in self.in_force)
            raise UsageError(f"no fault {number} is in force; {f'there are {numbers}' if numbers else 'none is'}")
        awaited: list[str] = []
        failures: list[str] = []
        for fault in reversed(found):
            try:
                awaited += self.end(fault)
            except (LabError, OSError) as error:
                failures.append(f"{fault.what} is not healed: {error}")
        mended: list[str] = []
        for mend in self.also_healed if number is None else ():
            try:
                mended += mend()
            except (LabError, OSError) as error:
                failures.append(str(error))
        if failures:
            raise RealiseError("\n".join(failures))
        return {"healed": [fault.plain() for fault in reversed(found)], "mended": mended, "await": awaited}, []

    def _list(self, _client: Client, _message: Message, _descriptors: list[int]) -> Answer:
        return {"faults": [fault.plain() for fault in self.in_force]}, []

    def _time_is_up(self, fault: Fault) -> None:
        if fault in self.in_force:
            with contextlib.suppress(LabError, OSError):  # `lab fault` shows its trouble
                self.end(fault)
