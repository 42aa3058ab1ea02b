"""Kinds of access as words for both directions of a link: `egress` is the uplink of the node whose link it is.

Rates and round trips of fibre, cable, dsl and lte are those of the connection profiles that WebPageTest measures web
pages with ("FIOS", "Cable", "DSL", "LTE"), half of the round trip in each direction. A geostationary satellite is 239.6
to 279.0 ms away one way (RFC 2488 section 2); its rates are the least that the FCC called broadband from 2015 to 2024.
PPPoE takes 8 bytes of an Ethernet frame (RFC 2516 section 7), here on a dsl line. Queues are as deep as such boxes have
them, for bufferbloat is real (RFC 8289 section 1). For wifi, and for jitter and loss, no figure holds everywhere: they
are plausible, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.topology.faults import Wrong, did_you_mean, listed, shown
from lab.topology.impairment import Words, overlaid, parse_word


@dataclass(frozen=True, slots=True)
class Preset:
    """Words for each direction, as a person writes them, and the MTU where the technique takes some of it."""

    egress: dict[str, str]
    ingress: dict[str, str]
    mtu: int | None = None


def _preset(both: dict[str, str], up: str, down: str, mtu: int | None = None) -> Preset:
    return Preset({**both, "rate": up}, {**both, "rate": down}, mtu)


_DSL = {"delay": "25ms", "jitter": "2ms", "queue": "250ms"}

PRESETS: dict[str, Preset] = {
    "fibre": _preset({"delay": "2ms"}, "5mbit", "20mbit"),
    "cable": _preset({"delay": "14ms", "jitter": "3ms", "queue": "250ms"}, "1mbit", "5mbit"),
    "dsl": _preset(_DSL, "384kbit", "1.5mbit"),
    "lte": _preset({"delay": "35ms", "jitter": "8ms", "loss": "0.1%", "queue": "300ms"}, "12mbit", "12mbit"),
    "satellite": _preset({"delay": "260ms", "jitter": "5ms", "loss": "0.2%", "queue": "500ms"}, "3mbit", "25mbit"),
    "wifi": _preset({"delay": "2ms", "jitter": "1ms", "loss": "p=0.1%,r=40%,bad=50%"}, "100mbit", "100mbit"),
    "pppoe": _preset(_DSL, "384kbit", "1.5mbit", 1492),
}
"""By their names in a topology and on the command line."""


def parse_preset(value: object) -> str:
    """The name of a preset. Raises Wrong."""
    if not isinstance(value, str) or value not in PRESETS:
        hint = did_you_mean(value, PRESETS) if isinstance(value, str) else ""
        raise Wrong(shown(value), f"a preset: {listed(PRESETS)}{hint}")
    return value


def with_preset(name: str, direction: str, words: Words) -> Words:
    """The preset's words for "egress" or "ingress", with `words` in place of its own."""
    preset = PRESETS[name]
    own = preset.egress if direction == "egress" else preset.ingress
    return overlaid({word: parse_word(word, text) for word, text in own.items()}, words)
