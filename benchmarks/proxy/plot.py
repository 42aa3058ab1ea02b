"""The numbers as bars (SVG): of each measure all proxies, each bar as long as its share of the longest."""

from __future__ import annotations

from html import escape

from benchmarks.proxy.measures import BULK_DOWN, CONNECT_NAME, IDLE, PING_ONE, TRANSPARENT, UDP_JOINED
from benchmarks.proxy.results import DIRECT, Results
from benchmarks.proxy.targets import number

_PANELS = [
    (BULK_DOWN, "gbit_s", "One TCP stream, Gbit/s"),
    (CONNECT_NAME, "per_s", "New connections a second, led by TLS name"),
    (UDP_JOINED, "gbit_s", "1200-byte datagrams (GSO, GRO) and back, Gbit/s"),
    (TRANSPARENT, "per_s", "New connections a second, PROXY in, transparent"),
    (PING_ONE, "p50_us", "64 bytes and back, median, us (short is good)"),
    (IDLE, "kib_each", "Memory of an idle connection, KiB (short is good)"),
]
_LABEL, _BAR, _VALUE = 145, 230, 70  # widths
_ROW, _HEAD, _GAP = 17, 30, 16  # heights
_COLOURS = {"ours": "#1f6feb", "direct": "#b8c0cc", "other": "#7d8894"}


def plot(results: Results) -> str:
    """The picture; panels in two columns."""
    panels = [(title, _bars(results, measure, key)) for measure, key, title in _PANELS]
    panels = [(title, bars) for title, bars in panels if bars]
    width = _LABEL + _BAR + _VALUE + 20
    parts, heights = [], [10, 10]
    for number_, (title, bars) in enumerate(panels):
        column = number_ % 2
        if column == 0:
            heights = [max(heights)] * 2
        parts.append(_panel(title, bars, column * width + 10, heights[column], results.ours))
        heights[column] += _HEAD + _ROW * len(bars) + _GAP
    style = "text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}"
    size = f'width="{2 * width}" height="{max(heights)}" viewBox="0 0 {2 * width} {max(heights)}"'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{ground}{"".join(parts)}</svg>\n'


def _bars(results: Results, measure: str, key: str) -> list[tuple[str, float]]:
    names = [*(peer.name for peer in results.peers), DIRECT]
    found = [(name, results.median(measure, name, key)) for name in names]
    return [(name, value) for name, value in found if value is not None]


def _panel(title: str, bars: list[tuple[str, float]], x: int, y: int, ours: str) -> str:
    longest = max(value for _, value in bars) or 1
    parts = [f'<text class="t" x="{x}" y="{y + 14}">{escape(title)}</text>']
    for row, (name, value) in enumerate(bars):
        top = y + _HEAD + row * _ROW - 6
        colour = _COLOURS["ours" if name == ours else "direct" if name == DIRECT else "other"]
        length = max(1.0, value / longest * _BAR)
        parts.append(f'<text x="{x}" y="{top + 11}">{escape(name)}</text>')
        parts.append(f'<rect x="{x + _LABEL}" y="{top}" width="{length:.1f}" height="13" fill="{colour}"/>')
        parts.append(f'<text x="{x + _LABEL + length + 5:.1f}" y="{top + 11}">{number(value)}</text>')
    return "".join(parts)
