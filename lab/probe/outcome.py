"""What came of asking whether something can be reached: a value, where "could not ask" is never "no"."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How an attempt ended."""

    REACHED = "reached"  # TCP: connected; UDP and ICMP: an answer came
    REFUSED = "refused"  # TCP reset, or ICMP port unreachable: the machine is there, the service is not
    UNREACHABLE = "unreachable"  # no route here, or a router or firewall on the way said so by ICMP
    FILTERED = "filtered"  # silence until the deadline, where a machine that is reached must answer
    NO_ANSWER = "no answer"  # silence until the deadline, which a reached UDP service may keep: unknown
    NOT_ASKED = "not asked"  # the question could not be put


# Of several attempts the one that says most comes first.
_TELLING = (
    Outcome.REACHED,
    Outcome.REFUSED,
    Outcome.NO_ANSWER,
    Outcome.FILTERED,
    Outcome.UNREACHABLE,
    Outcome.NOT_ASKED,
)

_OUTCOME_OF_ERROR = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ECONNRESET: Outcome.REFUSED,
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.EHOSTDOWN: Outcome.UNREACHABLE,
    errno.ENOPROTOOPT: Outcome.UNREACHABLE,  # ICMP protocol unreachable (icmp_err_convert in net/ipv4/icmp.c)
    errno.EACCES: Outcome.UNREACHABLE,  # ICMPv6 administratively prohibited (tab_unreach in net/ipv6/icmp.c)
    errno.EPROTO: Outcome.UNREACHABLE,  # ICMPv6 parameter problem
    errno.ETIMEDOUT: Outcome.FILTERED,
    errno.EPERM: Outcome.FILTERED,  # the sender's own firewall dropped it
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One address asked."""

    address: str
    outcome: Outcome
    milliseconds: float | None  # until it was reached; None otherwise
    detail: str  # what the kernel said, "" if nothing

    @classmethod
    def failed(cls, address: str, number: int) -> Attempt:
        """An attempt that ended with an error of the kernel."""
        outcome = _OUTCOME_OF_ERROR.get(number, Outcome.NOT_ASKED)
        return cls(address, outcome, None, os.strerror(number))


def most_telling(attempts: tuple[Attempt, ...]) -> Attempt | None:
    """The attempt that answers for all: reached by any is reached; the first of equals."""
    return min(attempts, key=lambda attempt: _TELLING.index(attempt.outcome), default=None)
