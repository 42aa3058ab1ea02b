"""Rows on time: how long mappings live, what keeps them alive, how long a SYN meets silence. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lab.certify import classify
from lab.certify.certificate import Row
from lab.certify.classify import Lifetime
from lab.certify.comparing import Declared, compared
from lab.certify.seen import Refreshed, Seen, Silence
from lab.topology.nat_behaviour import Dependence, Refresh, UnsolicitedTcp

# Timer, topic, requirement, and the least seconds that it allows.
_TIMERS = (
    ("udp", "UDP timer", "4787 REQ-5", 120.0),
    ("udp_dns", "UDP timer, to port 53", "4787 REQ-5a", None),
    ("tcp_established", "TCP timer, open", "5382 REQ-5", 7440.0),
    ("tcp_transitory", "TCP timer, opening", "5382 REQ-5", 240.0),
    ("icmp", "ICMP timer", "5508 REQ-2", 60.0),
)
_SILENCE_WANTED = 6.0  # seconds (RFC 5382 REQ-4)


def timer_rows(declared: Declared, seen: Seen) -> Iterator[Row]:
    timers = declared.get("timers", {})
    for name, topic, requirement, least in _TIMERS:
        wanted = timers.get(name) or (timers.get("udp") if name == "udp_dns" else None)
        yield _timer(topic, requirement, least, wanted, classify.lifetime(seen.idle.get(name, ())))
    yield from _refresh(declared, seen)
    yield _silence(declared, seen)


def _timer(topic: str, requirement: str, least: float | None, wanted: float | None, found: Lifetime | None) -> Row:
    declared = _seconds(wanted) if wanted is not None else None
    if found is None:
        return compared(topic, declared, None, requirement)
    if not found.is_consistent:
        why = f"alive after {_seconds(found.at_least)}, but gone after {_seconds(found.less_than)}"
        return compared(topic, declared, None, requirement, why=why)
    if not found.ended:
        if wanted is not None and wanted < found.at_least - _tolerance(wanted):
            return compared(topic, declared, f"more than {_seconds(found.at_least)}", requirement, agrees=False)
        why = f"longer than the patience: alive after {_seconds(found.at_least)}"
        return compared(topic, declared, None, requirement, why=why)
    text = f"{_seconds(found.at_least)} to {_seconds(found.less_than)}"
    agrees = wanted is not None and _holds(wanted, found)
    is_met = None if least is None or found.at_least < least < found.less_than else found.at_least >= least
    return compared(topic, declared, text, requirement, is_met=is_met, agrees=agrees)


def _holds(wanted: float, found: Lifetime) -> bool:
    """Whether a lifetime lies where mappings ended."""
    slack = _tolerance(wanted)
    return found.at_least - slack <= wanted <= found.less_than + slack


def _tolerance(wanted: float) -> float:
    """Seconds by which timers of kernels and machines may be off; less than the spaces between the times tried."""
    return max(0.05, wanted * 0.05)


def _refresh(declared: Declared, seen: Seen) -> Iterator[Row]:
    lifetime = declared.get("timers", {}).get("udp")
    kept = {way: _is_kept(found, lifetime) for way, found in seen.refresh.items()}
    wanted = declared.get("refresh")
    out, back = kept.get("outbound"), kept.get("inbound")
    if out is None or back is None:
        why = "the UDP timer is longer than the patience" if not any(seen.refresh.values()) else "the machine was late"
        yield compared("refresh", wanted, None, "4787 REQ-6", why=why)
        return
    words = {(True, True): Refresh.BOTH, (True, False): Refresh.OUTBOUND, (False, True): "inbound only"}
    yield compared("refresh", wanted, words.get((out, back), "none"), "4787 REQ-6", is_met=out)


def _is_kept(found: Refreshed | None, lifetime: float | None) -> bool | None:
    """None if the packet on the way came too late, or the question too early."""
    if found is None or lifetime is None:
        return None
    in_time = found.longest_pause < lifetime - _tolerance(lifetime)
    return found.alive if in_time and found.total > lifetime + _tolerance(lifetime) else None


def _silence(declared: Declared, seen: Seen) -> Row:
    """At a port without mapping always; at a mapped one too, unless its filter lets everyone in."""
    topic, requirement = "SYN that nobody waits for", "5382 REQ-4"
    wanted = {UnsolicitedTcp.DROP: "silence", UnsolicitedTcp.REJECT: "reset"}.get(declared.get("unsolicited_tcp", ""))
    met: list[Silence] = [seen.unmapped_syn] if seen.unmapped_syn else []
    if seen.unsolicited_syn and classify.filtering(seen.filtering_tcp) != Dependence.ENDPOINT_INDEPENDENT:
        met.append(seen.unsolicited_syn)
    if not met:
        return compared(topic, wanted, None, requirement)
    words = list(dict.fromkeys(each.answer for each in met))
    listened = min(each.seconds for each in met)
    is_silent = words == ["silence"]
    # An error that comes later is what the RFC asks for.
    allowed = set(words) <= {"silence", "unreachable"}
    is_met = None if is_silent and listened < _SILENCE_WANTED else allowed and listened >= _SILENCE_WANTED
    why = f"listened for {_seconds(listened)}" if is_silent else ""
    return compared(topic, wanted, " and ".join(words), requirement, is_met=is_met, why=why)


def _seconds(number: float) -> str:
    return f"{round(number, 2):g} s"
