"""Requests to a supervisor from the client's side, and waiting for what they say to become true."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator

from lab import errors
from lab.errors import RealiseError
from lab.realise.message import Message, receive, send

_numbers = itertools.count()
_LONGEST_PAUSE = 0.05  # seconds between two looks
_ENDED = "the lab has ended"


def ask(channel: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> tuple[Message, list[int]]:
    """One request and its answer over a connection.

    Requests are numbered: one that was interrupted while it waited leaves its answer behind, which is not the next's.

    Raises:
        LabError, OSError: as the lab answers.
        RealiseError: the lab has ended.
    """
    number = next(_numbers)
    with _end_told():
        send(channel, message | {"number": number}, descriptors)
    while True:
        with _end_told():
            received = receive(channel)
        if received is None:
            raise RealiseError(_ENDED)
        answer, answered = received
        if answer.pop("number", None) != number:
            for descriptor in answered:
                os.close(descriptor)
        elif "error" in answer:
            raise _error(answer)
        else:
            return answer, answered


@contextlib.contextmanager
def _end_told() -> Iterator[None]:
    """Whatever the kernel calls it, nobody is at the other end any more."""
    try:
        yield
    except (BrokenPipeError, ConnectionResetError) as error:
        raise RealiseError(_ENDED) from error


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
