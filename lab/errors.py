"""The errors a person may meet, named by who must act; each knows the exit code of the command that meets it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a command's exit status says."""

    OK = 0
    FAILED = 1
    WRONG_INPUT = 2
    HOST_NOT_ABLE = 3


class LabError(Exception):
    """Base of all errors of the lab; never raised itself."""

    exit_code = ExitCode.FAILED


class TopologyError(LabError):
    """The topology file must be edited; the text lists every fault, one a line, as ``file:line:column: ...``."""

    exit_code = ExitCode.WRONG_INPUT

    def __init__(self, text: str, faults: Sequence[Any] = ()) -> None:
        """`faults`: the same as `lab.topology.faults.Fault`, for who wants their parts."""
        super().__init__(text)
        self.faults = faults


class UsageError(LabError):
    """The request names something that does not exist (a lab, a node, a service) or contradicts the lab's state."""

    exit_code = ExitCode.WRONG_INPUT


class HostError(LabError):
    """The kernel, the rights or the programs of this host lack something; the text says what and how to mend it."""

    exit_code = ExitCode.HOST_NOT_ABLE

    def __init__(self, text: str, lacking: Sequence[Any] = ()) -> None:
        """`lacking`: what was found missing as `lab.host.Finding`, for who wants the parts."""
        super().__init__(text)
        self.lacking = lacking


class RealiseError(LabError):
    """A step of the plan failed, or a service never got ready; the text names the step, the node and the cause."""


class ProbeError(LabError):
    """A question could not be asked (which is never the same as the answer "no")."""


def by_name(name: str) -> type[LabError]:
    """The error class of that name, as it crosses from a lab's supervisor to its clients."""
    kinds = {kind.__name__: kind for kind in (TopologyError, UsageError, HostError, RealiseError, ProbeError)}
    return kinds.get(name, RealiseError)
