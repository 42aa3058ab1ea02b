"""Faults from the client's side: `lab.fault.kill("nas/web")` and its like, undone by `heal` or a ``with`` block."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from lab.errors import RealiseError
from lab.realise.asking import ask, wait_until

if TYPE_CHECKING:
    from lab.realise.lab import Lab
    from lab.realise.message import Message


@dataclass(frozen=True, slots=True)
class FaultInForce:
    """A fault that was brought about; it lasts until healed, by `heal`, by the end of a ``with`` block, or in time."""

    lab: Lab
    number: int
    kind: str
    targets: tuple[str, ...]
    note: str  # what it did, for people

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.number in {fault["number"] for fault in self.lab.fault.in_force()}:
            self.heal()

    def heal(self) -> None:
        """Undo it, and wait until the services that start with that are ready.

        Raises:
            UsageError: it has been healed already.
            RealiseError: it could not be undone, or a service did not get ready.
        """
        heal(self.lab, self.number)


@dataclass(frozen=True, slots=True)
class LabFaults:
    """What can go wrong in a lab. `seconds`: heal it by itself after so long."""

    lab: Lab

    def kill(self, target: str, *, seconds: float | None = None) -> FaultInForce:
        """Switch a node off (`"nas"`), or end a service for good (`"nas/web"`): its restart policy is held back.

        A node that is off has no carrier on its links and no process. To heal it is to boot it.

        Raises:
            UsageError: no such node or service, it is not running, or is killed already.
        """
        return self._in_force("kill", target, seconds=seconds)

    def pause(self, target: str, *, seconds: float | None = None) -> FaultInForce:
        """Let a service (`"nas/web"`) or a whole node (`"nas"`) hang: stopped, but not gone.

        The kernel still takes connections for a service that is paused; a node that is paused answers nothing, not even
        ping, and its links keep their carrier.

        Raises:
            UsageError: no such node or service, it is not running, or is paused already.
        """
        return self._in_force("pause", target, seconds=seconds)

    def restart(self, target: str) -> None:
        """Stop a service or boot a node anew (SIGTERM, after three seconds SIGKILL), and wait until all is ready.

        A killed or paused one is healed by this.

        Raises:
            UsageError: no such node or service.
            RealiseError: it did not get ready.
        """
        bring_about(self.lab, "restart", [target], None)

    def partition(self, one: str, other: str, *, seconds: float | None = None) -> FaultInForce:
        """Let nothing pass between the addresses of two nodes or networks, in either direction, at both ends.

        Flows that exist are cut too, silently; all else passes. It holds for addresses that they get later, too.

        Raises:
            UsageError: no such node or network; they are parted already; or NAT hides each from the other, so that no
                address tells their packets from others'.
        """
        return self._in_force("partition", one, other, seconds=seconds)

    def flush_nat(self, router: str) -> None:
        """Let a router forget all its mappings and flows, as one does that was booted.

        Raises:
            UsageError: no such node, or it has no NAT.
        """
        bring_about(self.lab, "flush-nat", [router], None)

    def change_address(self, router: str, address: str | None = None, *, seconds: float | None = None) -> FaultInForce:
        """Give the outside of a router's NAT another IPv4 address of its prefix, as a provider does that renumbers.

        The router's flows are gone with the old address, its port forwards are at the new one, and `Lab.facts` and the
        node's addresses tell it.

        Args:
            router: a node with NAT.
            address: the new one; by default the next free one.
            seconds: the time until it has the old one again.

        Raises:
            UsageError: no such router, or the address is not to be had.
        """
        targets = [router] if address is None else [router, address]
        fault = self._in_force("change-address", *targets, seconds=seconds)
        self.lab.refresh()
        return fault

    def in_force(self) -> list[dict[str, Any]]:
        """The faults in force: number, kind, targets, note, since and until (seconds since the epoch), trouble."""
        faults: list[dict[str, Any]] = self.lab.ask({"ask": "faults"})[0]["faults"]
        return faults

    def heal(self) -> None:
        """As `Lab.heal`."""
        heal(self.lab, None)

    def _in_force(self, kind: str, *targets: str, seconds: float | None) -> FaultInForce:
        answer = bring_about(self.lab, kind, list(targets), seconds)
        return FaultInForce(self.lab, answer["fault"]["number"], kind, targets, answer["note"])


def bring_about(lab: Lab | socket.socket, kind: str, targets: list[str], seconds: float | None) -> Message:
    """Ask for a fault and wait until the services that start by it are ready; the supervisor's answer."""
    answer = _ask(lab, {"ask": "fault", "kind": kind, "targets": targets, "seconds": seconds})
    await_recovery(lab, answer["await"])
    return answer


def heal(lab: Lab | socket.socket, number: int | None) -> Message:
    """Heal one fault or all, and wait until the services that start by it are ready.

    Gives what was healed: faults, and the names of other things (links) that were mended with all faults.
    """
    answer = _ask(lab, {"ask": "heal", "fault": number})
    await_recovery(lab, answer["await"])
    if not isinstance(lab, socket.socket) and any(fault["kind"] == "change-address" for fault in answer["healed"]):
        lab.refresh()
    return answer


def await_recovery(lab: Lab | socket.socket, names: list[str]) -> None:
    """Wait until these services (and nodes that are being restarted) are ready.

    Raises:
        RealiseError: one failed, or was not ready in the time that it may take.
    """
    if not names:
        return
    state: Message = {}

    def recovered() -> bool:
        state.update(_ask(lab, {"ask": "recovery", "await": names}))
        return not state["left"] or bool(state["failed"])

    patience = float(_ask(lab, {"ask": "recovery", "await": names})["patience"])
    try:
        wait_until(recovered, patience, f"{', '.join(names)} are ready")
    except TimeoutError as error:
        why = "\n".join(state["why"]) or ", ".join(state["left"])
        raise RealiseError(f"not ready within {patience:g} s: {why}") from error
    if state["failed"]:
        raise RealiseError("\n".join(state["failed"]))


def _ask(lab: Lab | socket.socket, message: Message) -> Message:
    """By a handle on the lab, or by a connection to it, which is all that a command has."""
    return ask(lab, message)[0] if isinstance(lab, socket.socket) else lab.ask(message)[0]
