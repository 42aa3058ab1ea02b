"""What a direction of a link does to frames, and how words change it: one rule for the file and for live changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lab.topology.faults import Wrong, did_you_mean, listed, shown
from lab.topology.impairment_text import duration_text, rate_text, share_text, size_text
from lab.topology.units import LARGEST, parse_delay, parse_percentage, parse_rate, parse_size

DISTRIBUTIONS = ("normal", "uniform", "pareto", "paretonormal")
ETHERNET_HEADER = 14  # bytes; what a link's rate and queue count beside the IP packet

_DEFAULT_QUEUE = 100_000_000  # nanoseconds at the rate
_USUAL_MTU = 1500  # bytes
_FEWEST_FRAMES = 10  # that a default queue holds


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: a state that is left for the bad one with `p` and for the good one with `r`, at each frame."""

    p: float
    r: float
    good: float = 0.0  # share lost in the good state
    bad: float = 1.0

    def describe(self) -> str:
        """As the command takes it."""
        return f"p={share_text(self.p)},r={share_text(self.r)},good={share_text(self.good)},bad={share_text(self.bad)}"


@dataclass(frozen=True, slots=True)
class Impairment:
    """One direction of a link; as it is made, it leaves every frame alone. Shares are 0 to 1."""

    delay: int = 0  # nanoseconds
    jitter: int = 0  # nanoseconds: the deviation of `distribution`, half its width if uniform
    distribution: str = "normal"
    loss: float | GilbertElliott = 0.0
    reorder: float = 0.0  # share that overtakes: leaves without the delay
    duplicate: float = 0.0
    corrupt: float = 0.0  # share with one bit flipped
    rate: int = 0  # bit/s of whole Ethernet frames; 0: as fast as it goes
    queue: int = 0  # bytes that wait for the rate; 0: `queue_time` tells
    queue_time: int = 0  # nanoseconds at the rate; 0: 100 ms, at least ten frames

    def describe(self) -> str:
        """As the words that ask for it, "delay=40ms loss=1%"; "" if it leaves every frame alone."""
        words = [f"delay={duration_text(self.delay)}"] if self.delay else []
        words += [f"jitter={duration_text(self.jitter)}"] if self.jitter else []
        words += [f"distribution={self.distribution}"] if self.distribution != "normal" else []
        if isinstance(self.loss, GilbertElliott):
            words.append(f"loss={self.loss.describe()}")
        shares = {"reorder": self.reorder, "duplicate": self.duplicate, "corrupt": self.corrupt}
        shares |= {"loss": self.loss} if isinstance(self.loss, float) else {}
        words += [f"{name}={share_text(share)}" for name, share in shares.items() if share]
        words += [f"rate={rate_text(self.rate)}"] if self.rate else []
        words += [f"queue={size_text(self.queue)}"] if self.queue else []
        words += [f"queue={duration_text(self.queue_time)}"] if self.queue_time else []
        return " ".join(words)

    @property
    def asks_only_for_rate(self) -> bool:
        """Whether a token bucket does all of it."""
        return bool(self.rate) and self == Impairment(rate=self.rate, queue=self.queue, queue_time=self.queue_time)

    @property
    def judges_each_frame(self) -> bool:
        """Whether it treats one frame other than the next, so that a segment of many frames must be cut before it."""
        return bool(self.jitter or self.loss or self.reorder or self.duplicate or self.corrupt)

    def queue_bytes(self, mtu: int) -> int:
        """How many bytes may wait for the rate, on a link with this MTU; 0 without a rate."""
        if not self.rate:
            return 0
        if self.queue:
            return self.queue
        wanted = self.rate * (self.queue_time or _DEFAULT_QUEUE) // (8 * 1_000_000_000)
        return min(LARGEST, wanted if self.queue_time else max(wanted, _FEWEST_FRAMES * (mtu + ETHERNET_HEADER)))


UNIMPAIRED = Impairment()

Words = Mapping[str, Any]
"""Knobs by their names, each with its parsed value (see `parse_word`)."""


class WrongWord(Wrong):
    """A word that cannot stand beside the others; `word` is its name."""

    def __init__(self, word: str, found: str, allowed: str) -> None:
        super().__init__(found, allowed)
        self.word = word


def parse_loss(value: object) -> float | GilbertElliott:
    """`1%`, or a mapping of p, r and perhaps good, bad, each a percentage. Raises Wrong."""
    allowed = "a percentage, as 1%, or {p: 1%, r: 30%, good: 0%, bad: 100%} (Gilbert-Elliott)"
    if isinstance(value, str) and "=" in value:  # as the command takes it: p=1%,r=30%
        value = dict(each.partition("=")[::2] for each in value.split(","))
    if not isinstance(value, dict):
        if not isinstance(value, str):
            raise Wrong(shown(value), allowed)
        return parse_percentage(value)
    keys = ("p", "r", "good", "bad")
    for key in value:
        if key not in keys:
            raise Wrong(f"unknown key {shown(key)}", f"allowed: {listed(keys)}{did_you_mean(str(key), keys)}")
    for key in ("p", "r"):
        if key not in value:
            raise Wrong(f"the key '{key}' is missing", allowed)
    shares = {key: _share_of(key, each) for key, each in value.items()}
    if not shares["p"] or not shares["r"]:
        key = "r" if shares["p"] else "p"
        raise Wrong(f"{key} of 0%, so that one state is never left", "p and r above 0%; for steady loss: `loss: 1%`")
    return GilbertElliott(**shares)


def parse_queue(value: object) -> tuple[int, int]:
    """Bytes and nanoseconds, one of them 0, of "256KiB" or "100ms". Raises Wrong."""
    for index, parse in enumerate((parse_size, parse_delay)):
        try:
            amount = parse(value)
        except Wrong:
            continue
        if amount:
            return (amount, 0) if index == 0 else (0, amount)
    raise Wrong(shown(value), "a size up to 64MiB or a time at the rate, as 256KiB or 100ms")


def parse_distribution(value: object) -> str:
    """One of `DISTRIBUTIONS`. Raises Wrong."""
    if not isinstance(value, str) or value not in DISTRIBUTIONS:
        raise Wrong(shown(value), ", ".join(DISTRIBUTIONS))
    return value


def parse_rate_or_none(value: object) -> int:
    """A rate; 0 for the word `none`. Raises Wrong."""
    return 0 if value == "none" else parse_rate(value)


KNOBS: dict[str, Callable[[object], Any]] = {
    "delay": parse_delay,
    "jitter": parse_delay,
    "distribution": parse_distribution,
    "loss": parse_loss,
    "reorder": parse_percentage,
    "duplicate": parse_percentage,
    "corrupt": parse_percentage,
    "rate": parse_rate_or_none,
    "queue": parse_queue,
}
"""Every knob with what parses it."""


def parse_words(text: str) -> Words:
    """Knobs of "delay=40ms loss=1%", as the command takes them and `Impairment.describe` writes them.

    Raises:
        WrongWord: as `parse_word`; or a word without a value, or given twice.
    """
    words: dict[str, Any] = {}
    for each in text.split():
        name, sign, value = each.partition("=")
        if not sign:
            raise WrongWord(name, f"{shown(name)} without a value", "words as delay=40ms")
        if name in words:
            raise WrongWord(name, f"{shown(name)} twice", "each word once")
        words[name] = _parse_named(name, value)
    return words


def _parse_named(name: str, value: str) -> Any:
    """As `parse_word`, for those who do not see where in a text they are: the error names the word."""
    try:
        return parse_word(name, value)
    except WrongWord as wrong:
        if name not in KNOBS:
            raise
        found, allowed = str(wrong).split("; ", 1)
        raise WrongWord(name, f"{name}: {found}", allowed) from wrong


def parse_word(name: str, value: object) -> Any:
    """The value of a knob.

    Raises:
        WrongWord: no knob has this name, or it does not take such a value.
    """
    if name not in KNOBS:
        raise WrongWord(name, f"unknown word {shown(name)}", f"allowed: {listed(KNOBS)}{did_you_mean(name, KNOBS)}")
    try:
        return KNOBS[name](value)
    except Wrong as wrong:
        raise WrongWord(name, *str(wrong).split("; ", 1)) from wrong


# Each after what it needs: without that it means nothing.
_NEEDS = (("jitter", "delay"), ("reorder", "delay"), ("distribution", "jitter"), ("queue", "rate"))


def overlaid(general: Words, special: Words) -> Words:
    """`general` with `special` in place of its own; what means nothing any more by what is special is left out."""
    merged = {**general, **special}
    zeroed = {word for word, value in special.items() if not value}
    for word, needed in _NEEDS:
        if needed in zeroed and word not in special:
            merged.pop(word, None)
            zeroed.add(word)
    return merged


def changed(before: Impairment, words: Words, mtu: int) -> Impairment:
    """`before` with what `words` ask for; what they do not name stays, but a queue without its rate.

    Args:
        before: what holds so far.
        words: knobs with their parsed values.
        mtu: of the link, in bytes; a queue must hold a frame of it, and one of the usual MTU.

    Raises:
        WrongWord: what comes out contradicts itself, or a word would have no effect.
    """
    values = dict(words)
    if "queue" in values:
        values["queue"], values["queue_time"] = values["queue"]
    after = replace(before, **values)
    if not after.rate and "queue" not in words:
        after = replace(after, queue=0, queue_time=0)
    if not after.jitter and "distribution" not in words:
        after = replace(after, distribution=UNIMPAIRED.distribution)
    if not after.delay and "reorder" not in words:
        after = replace(after, reorder=0.0)
    _check(after, words, mtu)
    return after


def _check(after: Impairment, words: Words, mtu: int) -> None:
    if after.jitter > after.delay and not after.reorder:
        word = "jitter" if "jitter" in words or "delay" not in words else "delay"
        found = f"a jitter of {duration_text(after.jitter)} above the delay of {duration_text(after.delay)}"
        raise WrongWord(
            word, found, "at most the delay, as no frame can come before it was sent; or `reorder` above 0%"
        )
    if "distribution" in words and not after.jitter:
        raise WrongWord("distribution", "a distribution without a jitter", "with a `jitter` above 0ms")
    if after.reorder and not after.delay:
        raise WrongWord(
            "reorder", "reorder without a delay", "with a `delay`, as a frame that overtakes leaves without it"
        )
    if not after.rate and "queue" in words:
        raise WrongWord("queue", "a queue without a rate", "with a `rate`, as nothing waits without one")
    least = max(mtu, _USUAL_MTU) + ETHERNET_HEADER
    if after.rate and after.queue_bytes(mtu) < least:
        word = "queue" if "queue" in words else "rate"
        found = f"a queue of {after.queue_bytes(mtu)} bytes at {rate_text(after.rate)}"
        raise WrongWord(word, found, f"at least {least} bytes, a packet with its Ethernet header")


def _share_of(key: str, value: object) -> float:
    try:
        return parse_percentage(value)
    except Wrong as wrong:
        found, allowed = str(wrong).split("; ", 1)
        raise Wrong(f"{key}: {found}", allowed) from wrong
