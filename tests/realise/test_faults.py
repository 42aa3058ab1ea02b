"""The book of what is in force: in which order it is undone, and what stays when an undoing fails."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import cast

import pytest

from lab.errors import RealiseError
from lab.realise.faults import Fault, Faults
from lab.realise.loop import Loop
from lab.realise.message import Message
from lab.realise.requests import Client
from lab.realise.services import Services


def in_force(undoings: list[Callable[[], list[str]]]) -> Faults:
    """Faults with these undoings, numbered from 1; healing needs neither a loop nor services."""
    faults = Faults(cast("Loop", None), cast("Services", None))
    for number, undo in enumerate(undoings, 1):
        faults.in_force.append(Fault(number, "kill", (f"node-{number}",), "", undo))
    return faults


def heal(faults: Faults, number: int | None = None) -> Message:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return faults.handlers()["heal"](Client(ours), {"fault": number}, [])[0]


def undoing(undone: list[str], name: str, failure: Exception | None = None) -> Callable[[], list[str]]:
    def undo() -> list[str]:
        if failure is not None:
            raise failure
        undone.append(name)
        return [f"service of {name}"]

    return undo


def test_all_are_undone_the_latest_first() -> None:
    undone: list[str] = []
    faults = in_force([undoing(undone, name) for name in ("first", "second", "third")])
    answer = heal(faults)
    assert undone == ["third", "second", "first"]
    assert [fault["number"] for fault in answer["healed"]] == [3, 2, 1]
    assert answer["await"] == [f"service of {name}" for name in undone]
    assert faults.in_force == []


def test_the_one_with_the_number_is_undone_and_no_other() -> None:
    undone: list[str] = []
    faults = in_force([undoing(undone, name) for name in ("first", "second", "third")])
    heal(faults, 2)
    assert undone == ["second"]
    assert [fault.number for fault in faults.in_force] == [1, 3]


def test_what_cannot_be_undone_stays_and_keeps_no_other_from_it() -> None:
    undone: list[str] = []
    faults = in_force([undoing(undone, "first"), undoing(undone, "second", RealiseError("the kernel refused"))])
    with pytest.raises(RealiseError, match="kill node-2 is not healed: the kernel refused"):
        heal(faults)
    assert undone == ["first"]
    assert [(fault.number, fault.trouble) for fault in faults.in_force] == [(2, "the kernel refused")]
