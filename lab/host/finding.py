"""What was found out about the host, and for which feature of the lab it matters; asks nothing itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lab.errors import HostError


class Status(StrEnum):
    """How well the host serves a feature."""

    OK = "ok"
    LIMITED = "limited"  # works, with what `found` says taken away
    MISSING = "missing"
    NOT_NEEDED = "not needed"
    NOT_TRIED = "not tried"  # something else is missing first, so this question could not be asked


class Feature(StrEnum):
    """What a person wants from the lab, in the words of `lab doctor`."""

    LABS = "labs"
    NAT = "NAT and firewalls"
    UPNP = "routers that open ports when asked (UPnP, NAT-PMP, PCP)"
    IMPAIRMENT = "links with delay, loss or rate"
    CHANGE_USER = "services that change user (sshd, nginx)"
    IPV6 = "IPv6"
    MESH = "mesh"
    SSH = "ssh between nodes"
    WEB = "web servers and SNI routing"
    DNS = "DNS"
    CERTIFICATES = "certificates"
    PROBES = "probes by hand (curl, dig, ping)"


class Verdict(NamedTuple):
    """A judgement before it is tied to a name and features."""

    status: Status
    found: str  # one line
    mend: str = ""  # the line to type; empty if there is nothing to mend


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `lab doctor`."""

    name: str
    features: tuple[Feature, ...]
    status: Status
    found: str  # one line: what the host answered
    mend: str  # the exact line to type (Debian and Ubuntu first); empty if there is nothing to mend
    required: bool  # no homelab comes up without it


def finding(name: str, features: tuple[Feature, ...], verdict: Verdict, *, required: bool = False) -> Finding:
    """A finding from its judgement."""
    return Finding(name, features, verdict.status, verdict.found, verdict.mend, required)


def required(findings: Iterable[Finding], features: Collection[Feature] | None = None) -> list[Finding]:
    """The findings that stop the main job; with `features`, those that stop a lab which needs just these."""
    missing = [each for each in findings if each.status is Status.MISSING]
    if features is None:
        return [each for each in missing if each.required]
    return [each for each in missing if any(feature in features for feature in each.features)]


def refusal(lacking: Iterable[Finding]) -> HostError:
    """The error of a command that cannot do its job on this host: what is missing, and the line that mends it."""
    lines = ["this host is not able to run the lab:"]
    found = tuple(lacking)
    for each in found:
        lines.append(f"  {each.name}: {each.found}")
        if each.mend:
            lines.append(f"    mend it with: {each.mend}")
    lines.append("`lab doctor` tells more")
    return HostError("\n".join(lines), found)
