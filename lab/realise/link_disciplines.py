"""Queueing disciplines of links: `tc` run where the sending interface of each direction is."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field

from lab.errors import LabError, RealiseError
from lab.host import netlink
from lab.plan.link_backend import PLAIN, Backend, Pair
from lab.plan.link_discipline import discipline
from lab.plan.link_name import BOTH
from lab.plan.step import ConnectToSwitch
from lab.realise.nodes import Nodes
from lab.realise.place import Place
from lab.realise.process import Command, start, wait
from lab.topology.impairment import UNIMPAIRED

_LONGEST_ANSWER = 64 * 1024  # bytes
_LONGEST_CHANGE = 5.0  # seconds; the whole lab waits for it
_HANDLES = (0x11, 0x12)  # in turn, so that the kernel puts a new discipline in place of the old one at once


@dataclass(slots=True)
class Disciplines:
    """What is at the root of the interfaces of each link: the node's own for egress, the port for ingress."""

    nodes: Nodes
    _turn: int = 0
    _known: dict[str, bool] = field(default_factory=dict)

    def has(self, kind: Backend) -> bool:
        """Whether this kernel has the discipline; tried on the fabric's loopback, which carries nothing."""
        if kind not in self._known:
            self.nodes.fabric.enter_network()
            add = netlink.add_netem if kind is Backend.NETEM else netlink.add_token_bucket
            try:
                add(netlink.LOOPBACK)
            except OSError:
                self._known[kind] = False
            else:
                self._known[kind] = True
                _tc(self.nodes.fabric, ["qdisc", "del", "dev", "lo", "root"])
        return self._known[kind]

    def put(
        self, link: ConnectToSwitch, backend: Backend, pair: Pair, *, before: tuple[Backend, Pair], seed: int
    ) -> None:
        """Put disciplines in place of those of `before`; if one is refused, those are back.

        Raises:
            RealiseError: the kernel or `tc` refused; the text quotes it.
        """
        try:
            self._put(link, backend, pair, before[1], seed)
        except LabError:
            with contextlib.suppress(LabError):
                self._put(link, before[0], before[1], pair, seed)
            raise

    def remove(self, link: ConnectToSwitch, before: Pair) -> None:
        """Take both disciplines away.

        Raises:
            RealiseError: the kernel refused.
        """
        self._put(link, Backend.TBF, PLAIN, before, 0)

    def drops(self, link: ConnectToSwitch, backend: Backend) -> dict[str, int]:
        """Frames that each direction's discipline has dropped; nothing for other backends.

        Raises:
            RealiseError: `tc` cannot tell.
        """
        if backend not in (Backend.TBF, Backend.NETEM):
            return {}
        counts = {}
        for name, (place, device) in zip(BOTH, self._places(link), strict=True):
            told = json.loads(_tc(place, ["-json", "-statistics", "qdisc", "show", "dev", device, "root"]) or "[]")
            counts[name] = sum(each.get("drops", 0) for each in told if each.get("kind") == str(backend))
        return counts

    def _places(self, link: ConnectToSwitch) -> tuple[tuple[Place, str], tuple[Place, str]]:
        """Where each direction's sending interface is."""
        return (self.nodes.place(link.node), link.interface), (self.nodes.fabric, link.port)

    def _put(self, link: ConnectToSwitch, backend: Backend, pair: Pair, before: Pair, seed: int) -> None:
        self._turn += 1
        handle = _HANDLES[self._turn % len(_HANDLES)]
        netem_seed = seed if self._takes_seed(backend) else None
        for (place, device), impairment, old in zip(self._places(link), pair, before, strict=True):
            if impairment == old == UNIMPAIRED:
                continue
            for arguments in discipline(backend, device, impairment, link.mtu, handle=handle, seed=netem_seed):
                _tc(place, arguments)

    def _takes_seed(self, backend: Backend) -> bool:
        """Whether `tc` and the kernel know netem's seed."""
        if backend is not Backend.NETEM:
            return False
        if "seed" not in self._known:
            arguments = ["qdisc", "replace", "dev", "lo", "root", "netem", "delay", "1ms", "seed", "1"]
            try:
                _tc(self.nodes.fabric, arguments)
            except RealiseError:
                self._known["seed"] = False
            else:
                self._known["seed"] = True
                _tc(self.nodes.fabric, ["qdisc", "del", "dev", "lo", "root"])
        return self._known["seed"]


def _tc(place: Place, arguments: list[str]) -> str:
    """What `tc` says."""
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        pid = start(place, Command(("tc", *arguments)), (nothing, said, said))
        code = wait(pid, _LONGEST_CHANGE)
        text = os.pread(said, _LONGEST_ANSWER, 0).decode(errors="replace").strip()
        if code is None:
            text = f"it did not end within {_LONGEST_CHANGE:g} s"
        if code != 0:
            raise RealiseError(f"{place.name}: `tc {' '.join(arguments)}`: {text}")
        return text
    finally:
        os.close(nothing)
        os.close(said)
