"""Impairments as arguments of `tc` (tc-netem(8), tc-tbf(8)): what one direction asks, at the root of an interface."""

from __future__ import annotations

from lab.plan.link_backend import Backend
from lab.topology.impairment import ETHERNET_HEADER, UNIMPAIRED, GilbertElliott, Impairment

_BURST = 1_000_000  # nanoseconds at the rate that tbf lets pass at once
_SMALLEST_FRAME = 64  # bytes, for how many may be under way
_FASTEST = 10_000_000_000  # bit/s that a node may send; a rate comes after the delay
_MOST_FRAMES = 10_000_000
_LEAST_FRAMES = 1_000
# netem lets frames overtake each other under jitter, but those of a line with a rate leave in their order
# (kernel: netem_enqueue takes the last frame's departure as the earliest of the next). So fast that it adds nothing.
_RATE_THAT_KEEPS_ORDER = "32gbit"


def discipline(
    backend: Backend, device: str, impairment: Impairment, mtu: int, *, handle: int, seed: int | None = None
) -> list[list[str]]:
    """The commands, each as the arguments of `tc`, that put a direction's impairment in place of what was there.

    Args:
        backend: netem or tbf.
        device: the interface whose sending side it is.
        impairment: of this direction; if it asks for nothing, what was there goes away.
        mtu: of the link, in bytes.
        handle: other than that of the discipline in place, so that the kernel puts the new one there at once.
        seed: of netem's random numbers, where `tc` and the kernel know it (Linux 6.6, iproute2 6.6).
    """
    if impairment == UNIMPAIRED:
        return [["qdisc", "del", "dev", device, "root"]]
    root = ["qdisc", "replace", "dev", device, "root", "handle", f"{handle:x}:"]
    if backend is Backend.TBF:
        return [[*root, *_token_bucket(impairment, mtu)]]
    commands = [[*root, "netem", *_netem(impairment), *([] if seed is None else ["seed", str(seed)])]]
    if impairment.rate:
        child = ["qdisc", "add", "dev", device, "parent", f"{handle:x}:1", "handle", f"{handle + 0x100:x}:"]
        commands.append([*child, *_token_bucket(impairment, mtu)])
    return commands


def _token_bucket(impairment: Impairment, mtu: int) -> list[str]:
    burst = max(mtu + ETHERNET_HEADER, impairment.rate * _BURST // (8 * 1_000_000_000))
    rate, limit = f"{impairment.rate}bit", f"{impairment.queue_bytes(mtu)}b"
    return ["tbf", "rate", rate, "burst", f"{burst}b", "limit", limit]


def _netem(impairment: Impairment) -> list[str]:
    words = ["limit", str(_limit(impairment))]
    if impairment.delay or impairment.jitter:
        words += ["delay", _microseconds(impairment.delay)]
    if impairment.jitter:
        words.append(_microseconds(impairment.jitter))
        words += [] if impairment.distribution == "uniform" else ["distribution", impairment.distribution]
    if isinstance(impairment.loss, GilbertElliott):
        loss = impairment.loss
        words += ["loss", "gemodel", *(_percent(share) for share in (loss.p, loss.r, loss.bad, loss.good))]
    elif impairment.loss:
        words += ["loss", "random", _percent(impairment.loss)]
    for name in ("duplicate", "corrupt", "reorder"):
        share = getattr(impairment, name)
        words += [name, _percent(share)] if share else []
    if impairment.jitter and not impairment.reorder:
        words += ["rate", _RATE_THAT_KEEPS_ORDER]
    return words


def _limit(impairment: Impairment) -> int:
    """Frames that may be under way: with too few of them, netem would lose what nobody asked it to lose."""
    longest = impairment.delay + 4 * impairment.jitter
    frames = _FASTEST * longest // (8 * 1_000_000_000 * _SMALLEST_FRAME)
    return min(max(frames, _LEAST_FRAMES), _MOST_FRAMES)


def _microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1000:g}us" if nanoseconds % 1000 else f"{nanoseconds // 1000}us"


def _percent(share: float) -> str:
    return f"{share * 100:.9f}".rstrip("0").rstrip(".") + "%"
