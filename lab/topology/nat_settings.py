"""The knobs of a `nat`: its preset, what the file says instead, and who can do it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from lab.topology.nat_behaviour import (
    Allocation,
    Behaviour,
    Dependence,
    Engine,
    Hairpin,
    Pooling,
    Ports,
    Refresh,
    Timers,
    UnsolicitedTcp,
)
from lab.topology.nat_engine import beyond_the_kernel
from lab.topology.nat_preset import PRESETS

if TYPE_CHECKING:
    from lab.topology.faults import Fault
    from lab.topology.file import FirewallFile, NatFile, PortsFile, TimersFile
    from lab.topology.source import At

_WORDS = {
    "mapping": Dependence,
    "filtering": Dependence,
    "pooling": Pooling,
    "refresh": Refresh,
    "hairpin": Hairpin,
}


def resolve_behaviour(written: NatFile, firewall: FirewallFile | None, at: At, faults: list[Fault]) -> Behaviour:
    """What the preset says, unless the file says otherwise."""
    preset = PRESETS[written.preset]
    given: dict[str, Any] = {key: word(text) for key, word in _WORDS.items() if (text := getattr(written, key))}
    given |= {key: value for key in ("port_block", "sessions") if (value := getattr(written, key)) is not None}
    if written.icmp_errors is not None:
        given["icmp_errors"] = written.icmp_errors == "pass"
    _check_pooling(written, at, faults)
    return replace(
        preset,
        ports=_ports(preset.ports, written.ports),
        timers=_timers(preset.timers, written.timers),
        unsolicited_tcp=_unsolicited_tcp(written, firewall, at, faults),
        **given,
    )


def choose_engine(written: NatFile, behaviour: Behaviour, at: At, faults: list[Fault]) -> tuple[Engine, Behaviour]:
    """Who translates, and the behaviour with what follows from that: natbox never gives two endpoints one port."""
    reasons = beyond_the_kernel(behaviour)
    if written.overloading is False:
        reasons.append("overloading: false")
    if not reasons:
        return Engine.KERNEL, replace(behaviour, overloading=True)
    only_kernel = {
        "overloading": ("true", written.overloading is True),
        "hairpin": (str(behaviour.hairpin), behaviour.hairpin is Hairpin.FORWARDS),
        "upnp": ("true", written.upnp),
    }
    for key, (value, is_so) in only_kernel.items():
        if is_so:
            found = f"`{key}: {value}`, which only the kernel's NAT does, beside what it does not: {', '.join(reasons)}"
            faults.append((at / key).fault(found, "one or the other"))
    return Engine.NATBOX, replace(behaviour, overloading=False)


def _ports(preset: Ports, written: PortsFile) -> Ports:
    first, last = written.range or (preset.first, preset.last)
    allocation = Allocation(written.allocation) if written.allocation else preset.allocation
    return Ports(first, last, allocation, preset.parity if written.parity is None else written.parity)


def _timers(preset: Timers, written: TimersFile) -> Timers:
    given = {field.name: getattr(written, field.name) for field in fields(Timers)}
    return replace(preset, **{name: seconds for name, seconds in given.items() if seconds is not None})


def _check_pooling(written: NatFile, at: At, faults: list[Fault]) -> None:
    if written.pooling is not None and len(written.pool or ()) < 2:
        faults.append((at / "pooling").fault("`pooling` with one outside address", "a `pool` of several", of_key=True))


def _unsolicited_tcp(written: NatFile, firewall: FirewallFile | None, at: At, faults: list[Fault]) -> UnsolicitedTcp:
    """As the firewall's `input` has it, unless given: what no mapping waits for is for the router itself."""
    policy = firewall.input if firewall is not None and firewall.input is not None else "drop"
    if written.unsolicited_tcp is None:
        return UnsolicitedTcp.DROP if policy == "drop" else UnsolicitedTcp.REJECT
    if written.unsolicited_tcp == "drop" and policy == "accept":
        found = "`unsolicited_tcp: drop` beside `firewall: {input: accept}`, which answers"
        faults.append(
            (at / "unsolicited_tcp").fault(found, "`input: drop`, with what it lets in as `allow`", of_key=True)
        )
    return UnsolicitedTcp(written.unsolicited_tcp)
