"""The reachability matrix as text: rows ask, columns are asked; too many columns continue in a further block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from lab.cli.style import Style
from lab.probe.outcome import Outcome
from lab.probe.question import IPV4, IPV6, Target
from lab.probe.reach import Answer, Reachability

GAP = "  "

_MARKS = {
    Outcome.REFUSED: ("x", "red", "refused"),
    Outcome.UNREACHABLE: ("u", "red", "unreachable: no route, or a router or firewall said so"),
    Outcome.FILTERED: (".", "dim", "silence"),
    Outcome.NO_ANSWER: ("?", "yellow", "no answer: UDP leaves open why"),
    Outcome.NOT_ASKED: ("-", "dim", "not asked: itself, or no address"),
}


@dataclass(frozen=True, slots=True)
class _Column:
    """One target, and the words above its cells."""

    target: Target
    heads: tuple[str, ...]  # from top to bottom; the first is shared with neighbours that have the same
    width: int


def matrix(measured: Reachability, seconds: float, style: Style) -> str:
    """Both halves of the matrix, their legend, and a line that counts the outcomes."""
    cells = {(a.question.source, a.question.target, a.question.version): a for a in measured.answers}
    services = [target for target in measured.targets if target.port is not None]
    nodes = [target for target in measured.targets if target.port is None]
    parts = []
    if services:
        heads = [(target.node, target.service, f"{target.protocol}/{target.port}") for target in services]
        parts += _blocks("services", measured, _columns(services, heads), cells, style)
    parts += _blocks("ping", measured, _columns(nodes, [(target.node,) for target in nodes]), cells, style)
    return "\n".join([*parts, _legend(measured, style), summary(measured, seconds)])


def summary(measured: Reachability, seconds: float) -> str:
    """One line: how many questions came to what."""
    counts = outcomes(measured)
    counted = ", ".join(f"{counts[str(outcome)]} {outcome}" for outcome in Outcome if counts[str(outcome)])
    asked = sum(counts.values())
    return f"{measured.lab}: {asked} questions in {seconds:.2f} s: {counted or 'none'}"


def outcomes(measured: Reachability) -> dict[str, int]:
    """How many questions came to each outcome, in the order of `Outcome`."""
    counts = Counter(answer.outcome for answer in measured.answers)
    return {str(outcome): counts[outcome] for outcome in Outcome}


def _columns(targets: list[Target], heads: Sequence[tuple[str, ...]]) -> list[_Column]:
    """Each as wide as its own words; the last of a run with one node on top makes room for the node's name."""
    columns: list[_Column] = []
    pairs = zip(targets, heads, strict=True)
    for node, run in groupby(pairs, key=lambda pair: pair[1][0]):
        members = list(run)
        widths = [max(3, *(len(word) for word in words[1:]), 0) for _, words in members]
        missing = len(node) - sum(widths) - len(GAP) * (len(widths) - 1)
        widths[-1] += max(0, missing)
        columns += [_Column(target, words, width) for (target, words), width in zip(members, widths, strict=True)]
    return columns


def _blocks(
    title: str,
    measured: Reachability,
    columns: list[_Column],
    cells: dict[tuple[str, Target, int], Answer],
    style: Style,
) -> list[str]:
    """The rows under as many columns as fit, then under the next ones."""
    margin = max(len(word) for word in (title, *measured.sources))
    blocks = []
    rest = columns
    while rest:
        fitting = _fitting(rest, style.width - margin)
        shown, rest = rest[:fitting], rest[fitting:]
        lines = _heads(title, shown, margin, style)
        for source in measured.sources:
            row = "".join(GAP + _cell(source, column, cells, style) for column in shown)
            lines.append((style.paint(source, "cyan") + " " * (margin - len(source)) + row).rstrip())
        blocks.append("\n".join(lines) + "\n")
    return blocks


def _fitting(columns: list[_Column], width: int) -> int:
    """How many columns fit, at least one; a node's columns stay together where that leaves any."""
    used = 0
    for number, column in enumerate(columns):
        used += len(GAP) + column.width
        if used <= width or number == 0:
            continue
        node = column.target.node
        first = next(index for index, other in enumerate(columns) if other.target.node == node)
        return first or number
    return len(columns)


def _heads(title: str, columns: list[_Column], margin: int, style: Style) -> list[str]:
    lines = []
    for level in range(len(columns[0].heads)):
        line = style.paint(title, "bold") + " " * (margin - len(title)) if level == 0 else " " * margin
        if level == 0:
            for node, run in groupby(columns, key=lambda column: column.heads[0]):
                widths = [column.width for column in run]
                width = sum(widths) + len(GAP) * (len(widths) - 1)
                line += GAP + style.paint(node[:width], "bold") + " " * (width - len(node[:width]))
        else:
            for column in columns:
                line += GAP + style.paint(f"{column.heads[level]:{column.width}}", "dim" if level == 2 else "")
        lines.append(line.rstrip())
    return lines


def _cell(source: str, column: _Column, cells: dict[tuple[str, Target, int], Answer], style: Style) -> str:
    """The IP versions that reached it, as "4 6", else the mark of what came instead."""
    found = [cells.get((source, column.target, version)) for version in (IPV4, IPV6)]
    answers = [answer for answer in found if answer is not None and answer.attempts]
    reached = [str(a.question.version) for a in answers if a.outcome is Outcome.REACHED]
    if reached:
        text = "  6" if reached == ["6"] else " ".join(reached)
        colour = "green" if len(reached) == len(answers) else "yellow"
    else:
        best = min((answer.outcome for answer in answers), key=_TELLING.index, default=Outcome.NOT_ASKED)
        text, colour, _ = _MARKS[best]
    return style.paint(text, colour) + " " * (column.width - len(text))


_TELLING = (Outcome.REFUSED, Outcome.NO_ANSWER, Outcome.FILTERED, Outcome.UNREACHABLE, Outcome.NOT_ASKED)


def _legend(measured: Reachability, style: Style) -> str:
    """What the marks that occur mean, one a line, and what they leave out."""
    used = {answer.outcome for answer in measured.answers} | {Outcome.NOT_ASKED}
    words = [f"{style.paint('4 6', 'green')} reached by IPv4, by IPv6"]
    for outcome, (mark, colour, meaning) in _MARKS.items():
        if outcome in used:
            lasting = f" for {measured.timeout:g} s" if outcome is Outcome.FILTERED else ""
            words.append(f"{style.paint(mark, colour)} {meaning}{lasting}")
    words.append("A cell shows the best outcome over all addresses and both IP versions.")
    if {Outcome.UNREACHABLE, Outcome.FILTERED} <= used:
        words.append('Kernels ration their "unreachable" answers: a . may be a u that was not sent.')
    return "\n".join(words) + "\n"
