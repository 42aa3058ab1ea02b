"""Which means impairs a link: a queueing discipline of the kernel where that is exact, linkwire for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.errors import HostError, UsageError
from lab.topology.impairment import UNIMPAIRED, Impairment

Pair = tuple[Impairment, Impairment]
"""Egress (what the node sends) and ingress of a link."""
PLAIN: Pair = (UNIMPAIRED, UNIMPAIRED)


class Backend(StrEnum):
    """What impairs a link."""

    NONE = "none"
    TBF = "tbf"
    NETEM = "netem"
    LINKWIRE = "linkwire"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this host has for links; `no_tap` says why linkwire has no TAP devices and how to mend it ("": it has)."""

    netem: bool
    tbf: bool
    no_tap: str = ""


def choose(pair: Pair, able: Abilities, wanted: Backend | None = None) -> Backend:
    """The backend for a link.

    tbf does a rate alone and exactly. netem does delay and rate in the kernel; but it takes a segment that the network
    card would cut (GSO) for one frame, so that what judges each frame by itself goes to linkwire where there are TAPs.

    Raises:
        HostError: this host has nothing that can do it.
        UsageError: the wanted one cannot do it.
    """
    if pair == PLAIN:
        return Backend.NONE
    only_rate = all(each == UNIMPAIRED or each.asks_only_for_rate for each in pair)
    if wanted is Backend.TBF and not only_rate:
        raise UsageError(f"tbf cannot do more than rate and queue; `{words_of(pair)}` needs netem or linkwire")
    if wanted is not None and wanted is not Backend.NONE:
        _require(wanted, able)
        return wanted
    if only_rate and able.tbf:
        return Backend.TBF
    if able.netem and not any(each.judges_each_frame for each in pair):
        return Backend.NETEM
    if not able.no_tap:
        return Backend.LINKWIRE
    if able.netem:
        return Backend.NETEM
    raise HostError(f"this kernel has no netem, and linkwire has no TAP devices: {able.no_tap}")


def words_of(pair: Pair) -> str:
    """Both directions as a person asks for them."""
    egress, ingress = (each.describe() or "nothing" for each in pair)
    return egress if egress == ingress else f"egress: {egress}; ingress: {ingress}"


def _require(wanted: Backend, able: Abilities) -> None:
    if wanted is Backend.LINKWIRE and able.no_tap:
        raise HostError(f"linkwire has no TAP devices: {able.no_tap}")
    if (wanted is Backend.NETEM and not able.netem) or (wanted is Backend.TBF and not able.tbf):
        mend = f'sudo modprobe sch_{wanted} || sudo apt-get install "linux-modules-extra-$(uname -r)"'
        raise HostError(f"this kernel has no sch_{wanted}: {mend}")
