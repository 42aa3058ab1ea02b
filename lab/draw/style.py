"""Colours and type of the pictures: calm, print-safe, told apart in grey as well (by lightness, border and shape)."""

from __future__ import annotations

from dataclasses import dataclass

from lab.draw.shape import ChipKind


@dataclass(frozen=True, slots=True)
class Hue:
    """A network's colours: its lines and border, and the fill of its bar."""

    line: str
    tint: str


CARD = "#ffffff"
PAPER = "#ffffff"
INK = "#1f2933"
SANS = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
MONO = "Menlo, Consolas, 'Liberation Mono', 'DejaVu Sans Mono', monospace"

NETWORK_HUES = (
    Hue("#33475b", "#33475b"),  # the internet: dark, its text light
    Hue("#2b6a99", "#d9e8f3"),
    Hue("#3b7a57", "#dcefe3"),
    Hue("#8a5a1f", "#f6e7d0"),
    Hue("#75518f", "#eadff1"),
    Hue("#9a4257", "#f6dfe4"),
    Hue("#3f7378", "#d8ecee"),
)


def chip_class(kind: ChipKind) -> str:
    """The style class of a pill."""
    return f"chip-{kind}"


STYLE = (
    f"text{{font-family:{SANS};fill:{INK}}}"
    f".card{{fill:{CARD};stroke:#d0d7de}}"
    ".heading{font-size:20px;font-weight:700}"
    ".counts{font-size:12px;fill:#57606a}"
    ".link{fill:none;stroke-width:1.6;stroke-linejoin:round}"
    f".address text{{font-family:{MONO};font-size:10.5px;text-anchor:middle;fill:#3a4650}}"
    ".network rect{stroke-width:1.4}"
    ".network .name{font-size:13px;font-weight:700}"
    f".network .prefix{{font-family:{MONO};font-size:11px}}"
    f".internet text{{fill:{PAPER}}}"
    ".cable rect{stroke-width:1}"
    ".node .box{fill:#ffffff;stroke:#57606a;stroke-width:1.2}"
    ".node.router .box{fill:#f1f4f7;stroke:#33475b;stroke-width:2}"
    ".node .behind{fill:#ffffff;stroke:#8b949e;stroke-width:1}"
    ".node .name{font-size:13px;font-weight:700}"
    ".icon{fill:none;stroke:#57606a;stroke-width:1.3;stroke-linecap:round;stroke-linejoin:round}"
    ".chip text{font-size:10.5px;text-anchor:middle}"
    ".chip-service rect{fill:#e6ebf0}"
    ".chip-forward rect{fill:#ffffff;stroke:#8a6d2f;stroke-width:1}"
    ".chip-image rect{fill:#ffffff;stroke:#8b949e;stroke-width:1;stroke-dasharray:2 2}"
    ".chip-nat rect{fill:#8a5a00}.chip-nat text{fill:#ffffff;font-weight:700}"
    ".chip-firewall rect{fill:#7d2d2d}.chip-firewall text{fill:#ffffff;font-weight:700}"
    ".halo{fill:none;stroke:#ffffff;stroke-width:5}"
    ".dash{fill:none;stroke:#24292f;stroke-width:1.5;stroke-dasharray:6 4;stroke-linejoin:round}"
    ".head{fill:#24292f}"
    ".legend>text{font-size:11px;fill:#57606a}"
    ".legend .rule{stroke:#d0d7de}"
)
