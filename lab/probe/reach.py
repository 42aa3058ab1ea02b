"""Who can reach what in a running lab: every question asked at once, from the nodes' own sockets, in one loop."""

from __future__ import annotations

import contextlib
import resource
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import RealiseError
from lab.probe.attempt import Flight, socket_kind
from lab.probe.outcome import Attempt, Outcome, most_telling
from lab.probe.question import Question, Target, questions, targets

if TYPE_CHECKING:
    import socket

    from lab.realise.lab import Lab

DEFAULT_TIMEOUT = 1.0  # seconds for each attempt
MOST_AT_ONCE = 4096  # sockets
_SPARE_DESCRIPTORS = 64  # of this process, for everything else

Progress = Callable[[int, int], None]
"""Called with how many attempts have ended, of how many."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question."""

    question: Question
    attempts: tuple[Attempt, ...]

    @property
    def best(self) -> Attempt | None:
        """The attempt that answers for all, None if there was no address to ask."""
        return most_telling(self.attempts)

    @property
    def outcome(self) -> Outcome:
        """That of the best attempt."""
        return self.best.outcome if self.best is not None else Outcome.NOT_ASKED


@dataclass(frozen=True, slots=True)
class Reachability:
    """The whole matrix."""

    lab: str
    timeout: float  # seconds
    sources: tuple[str, ...]
    targets: tuple[Target, ...]
    answers: tuple[Answer, ...]  # in the order of sources, targets, IPv4 before IPv6


def reach(
    lab: Lab,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    sources: Iterable[str] = (),
    progress: Progress | None = None,
) -> Reachability:
    """Measure the matrix.

    Args:
        lab: a running lab.
        timeout: seconds that each attempt may take.
        sources: the nodes that ask; default: all.
        progress: told now and then how far it is.

    Raises:
        UsageError: the lab has no such node.
        RealiseError: the lab has ended meanwhile, so that silence tells nothing.
    """
    asking = tuple(lab[name].name for name in dict.fromkeys(sources)) or tuple(lab.nodes)
    asked = questions(lab.facts, asking)
    attempts: list[list[Attempt | None]] = [[None] * len(question.addresses) for question in asked]
    waiting = deque(
        (number, place) for number, question in enumerate(asked) for place in range(len(question.addresses))
    )
    total = len(waiting)
    for ended, (number, place, attempt) in enumerate(_fly(lab, asked, waiting, timeout), 1):
        attempts[number][place] = attempt
        if progress is not None:
            progress(ended, total)
    answers = tuple(
        Answer(question, tuple(attempt for attempt in found if attempt is not None))
        for question, found in zip(asked, attempts, strict=True)
    )
    return Reachability(lab.name, timeout, asking, targets(lab.facts), answers)


def _fly(
    lab: Lab, asked: tuple[Question, ...], waiting: deque[tuple[int, int]], timeout: float
) -> Iterator[tuple[int, int, Attempt]]:
    """Every attempt as it ends, with the numbers of its question and of the address."""
    flights: dict[Flight, tuple[int, int]] = {}  # in the order of their beginning, so of their deadlines
    most = _most_at_once()
    with selectors.DefaultSelector() as selector, lab.watch_end() as end, _given_up(flights):
        selector.register(end, selectors.EVENT_READ)
        while waiting or flights:
            if waiting and len(flights) < most:
                number, place = waiting.popleft()
                question = asked[number]
                flight = _take_off(lab, question, question.addresses[place])
                ended = flight if isinstance(flight, Attempt) else flight.begin()
                if isinstance(flight, Flight):
                    if ended is None:
                        flights[flight] = number, place
                        selector.register(flight.socket, flight.events, flight)
                    else:
                        flight.socket.close()
                if ended is not None:
                    yield number, place, ended
            yield from _land(selector, flights, timeout, pause=0 if waiting and len(flights) < most else None)


@contextlib.contextmanager
def _given_up(flights: dict[Flight, tuple[int, int]]) -> Iterator[None]:
    """Whatever ends the measurement, the sockets of those still in flight are closed."""
    try:
        yield
    finally:
        for flight in flights:
            flight.socket.close()


def _take_off(lab: Lab, question: Question, address: str) -> Flight | Attempt:
    """An attempt with a socket of its source, or its end if there is none to be had."""
    family, kind, protocol = socket_kind(question.target.protocol, question.version)
    try:
        made: socket.socket = lab.nodes[question.source].socket(family, kind, protocol)
    except OSError as error:
        return Attempt(address, Outcome.NOT_ASKED, None, f"no socket: {error.strerror}")
    return Flight(made, question.target.protocol, question.version, question.target.port, address)


def _land(
    selector: selectors.BaseSelector, flights: dict[Flight, tuple[int, int]], timeout: float, pause: float | None
) -> Iterator[tuple[int, int, Attempt]]:
    """Those that have ended; with `pause` None, wait for at least one event or deadline."""
    if not flights:
        return
    if pause is None:
        pause = max(0.0, next(iter(flights)).began + timeout - time.monotonic())
    events = selector.select(pause)
    if any(key.data is None for key, _ in events):
        raise RealiseError("the lab has ended")
    for key, _ in events:
        flight: Flight = key.data
        attempt = flight.proceed()
        if attempt is not None:
            yield *_forget(selector, flights, flight), attempt
    overdue = time.monotonic() - timeout
    while flights and (oldest := next(iter(flights))).began <= overdue:
        yield *_forget(selector, flights, oldest), oldest.time_out()


def _forget(
    selector: selectors.BaseSelector, flights: dict[Flight, tuple[int, int]], flight: Flight
) -> tuple[int, int]:
    selector.unregister(flight.socket)
    flight.socket.close()
    return flights.pop(flight)


def _most_at_once() -> int:
    """As many sockets as this process may hold."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(64, min(hard, MOST_AT_ONCE + _SPARE_DESCRIPTORS))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - _SPARE_DESCRIPTORS if most > 2 * _SPARE_DESCRIPTORS else most // 2
