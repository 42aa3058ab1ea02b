"""Requests to a supervisor from the client's side, and waiting for what they say to become true."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from lab import errors
from lab.errors import RealiseError
from lab.realise.message import Message, receive, send

_LONGEST_PAUSE = 0.05  # seconds between two looks


def ask(channel: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> tuple[Message, list[int]]:
    """One request and its answer over a connection."""
    send(channel, message, descriptors)
    received = receive(channel)
    if received is None:
        raise RealiseError("the lab has ended")
    answer, answered = received
    if "error" in answer:
        raise _error(answer)
    return answer, answered


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Ask again until the condition is true.

    Raises:
        TimeoutError: it was not within so many seconds; the text says `what` was waited for.
    """
    deadline = time.monotonic() + seconds
    pause = 0.001
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s until {what}, in vain")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _error(answer: Message) -> Exception:
    if answer["kind"] == "OSError":
        return OSError(answer["errno"], answer["error"])
    return errors.by_name(answer["kind"])(answer["error"])
